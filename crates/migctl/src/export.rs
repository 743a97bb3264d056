use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use mig_model::{GpuInstance, GpuSurvey, MigMode, Profile, WantedInstance};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose format
    #[arg(long, value_name = "FORMAT", default_value = "mig-agent")]
    format: Format,

    /// How to name the GPUs (mig-parted knows indices only)
    #[arg(long, value_name = "WHAT", default_value = "uuid")]
    by: By,

    /// The layout's name
    #[arg(long, value_name = "NAME", default_value = "current", value_parser = plain_name)]
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Ours, with placements
    MigAgent,
    /// NVIDIA's mig-parted's, with counts
    MigParted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// For this very machine, whatever becomes of its slots
    Uuid,
    /// For machines like this one
    Index,
    /// For this machine, whatever becomes of its cards
    Pci,
}

/// As a YAML key without quotes.
fn plain_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    (plain && starts).then(|| text.to_owned()).ok_or_else(|| "expected letters, digits, -, _ and .".to_owned())
}

/// `version: mig-agent/v1`, in JSON as in YAML.
#[derive(Serialize)]
struct Ours<'s> {
    version: &'static str,
    layouts: BTreeMap<&'s str, Vec<OurEntry<'s>>>,
}

#[derive(Serialize)]
struct OurEntry<'s> {
    gpus: Vec<Name<'s>>,
    mig: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<OurInstance>,
    #[serde(skip)]
    comment: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Name<'s> {
    Index(u32),
    Text(&'s str),
}

#[derive(Serialize)]
struct OurInstance {
    profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compute: Vec<Profile>,
}

/// mig-parted's `version: v1`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Parted<'s> {
    version: &'static str,
    mig_configs: BTreeMap<&'s str, Vec<PartedEntry>>,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
struct PartedEntry {
    devices: Vec<u32>,
    mig_enabled: bool,
    mig_devices: BTreeMap<String, u32>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let node = context.node()?;
    let gpus: Vec<&GpuSurvey> = context
        .gpus_to_read(&node.survey)?
        .into_iter()
        .filter(|survey| can_be_exported(survey, args.format, context))
        .collect();
    if gpus.is_empty() {
        return Err(Failure::failed("NotSupported", "there is no GPU here that can be cut"));
    }
    match args.format {
        Format::MigAgent => {
            let entries = gpus.iter().map(|gpu| our_entry(gpu, args.by)).collect();
            let layouts = BTreeMap::from([(args.name.as_str(), entries)]);
            context.output.answer(&Ours { version: "mig-agent/v1", layouts }, our_text)
        }
        Format::MigParted => {
            let configs = BTreeMap::from([(args.name.as_str(), parted_entries(&gpus))]);
            context.output.answer(&Parted { version: "v1", mig_configs: configs }, parted_text)
        }
    }
}

fn can_be_exported(survey: &GpuSurvey, format: Format, context: &Context) -> bool {
    let gpu = &survey.gpu;
    let why = match (&gpu.fault, gpu.mig) {
        (Some(_), _) => return false,
        (None, MigMode::Unsupported) => "it has no MIG",
        (None, MigMode::Known { .. }) => {
            for bare in gpu.instances.iter().filter(|instance| instance.compute_instances.is_empty()) {
                let id = bare.id;
                let index = gpu.index;
                let consequence = match format {
                    Format::MigAgent => "a layout has one in each, and apply makes it",
                    Format::MigParted => "it is left out, because mig-parted counts compute instances",
                };
                context.output.warn(&format!("GPU {index}: GPU instance {id} has no compute instance; {consequence}"));
            }
            return true;
        }
    };
    context.output.warn(&format!("GPU {} is left out: {why}", gpu.index));
    false
}

/// A mode that waits for a reset is what somebody wants.
fn wanted(mode: MigMode) -> bool {
    matches!(mode, MigMode::Known { enabled: true, .. } | MigMode::Known { pending: true, .. })
}

fn our_entry(survey: &GpuSurvey, by: By) -> OurEntry<'_> {
    let gpu = &survey.gpu;
    let name = match (by, gpu.pci_address.as_deref()) {
        (By::Index, _) => Name::Index(gpu.index),
        (By::Pci, Some(pci)) => Name::Text(pci),
        _ => Name::Text(gpu.uuid.as_str()),
    };
    OurEntry {
        gpus: vec![name],
        mig: wanted(gpu.mig),
        instances: gpu.instances.iter().map(our_instance).collect(),
        comment: format!("GPU {}, {}", gpu.index, gpu.name).replace(char::is_control, " "),
    }
}

fn our_instance(instance: &GpuInstance) -> OurInstance {
    let WantedInstance { profile, start, compute } = WantedInstance::same_as(instance);
    OurInstance { profile, placement: start, compute }
}

fn our_text(file: &Ours<'_>) -> String {
    let mut text = format!("version: {}\nlayouts:\n", file.version);
    for (name, entries) in &file.layouts {
        let _ = writeln!(text, "  {name}:");
        for entry in entries {
            let gpus: Vec<String> = entry
                .gpus
                .iter()
                .map(|name| match name {
                    Name::Index(index) => index.to_string(),
                    Name::Text(text) => format!("{text:?}"),
                })
                .collect();
            let _ = writeln!(text, "    - gpus: [{}] # {}", gpus.join(", "), entry.comment);
            let _ = writeln!(text, "      mig: {}", entry.mig);
            if !entry.instances.is_empty() {
                text.push_str("      instances:\n");
            }
            for OurInstance { profile, placement, compute } in &entry.instances {
                let place = placement.map(|start| format!(", placement: {start}")).unwrap_or_default();
                let parts: Vec<String> = compute.iter().map(Profile::to_string).collect();
                let parts = if parts.is_empty() { String::new() } else { format!(", compute: [{}]", parts.join(", ")) };
                let _ = writeln!(text, "        - {{ profile: {profile}{place}{parts} }}");
            }
        }
    }
    text
}

/// GPUs that are alike share an entry.
fn parted_entries(gpus: &[&GpuSurvey]) -> Vec<PartedEntry> {
    let mut entries: Vec<PartedEntry> = Vec::new();
    for GpuSurvey { gpu, .. } in gpus {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for compute in gpu.instances.iter().flat_map(|instance| &instance.compute_instances) {
            *counts.entry(compute.profile.to_string()).or_default() += 1;
        }
        let enabled = wanted(gpu.mig);
        match entries.iter_mut().find(|entry| entry.mig_enabled == enabled && entry.mig_devices == counts) {
            Some(entry) => entry.devices.push(gpu.index),
            None => entries.push(PartedEntry { devices: vec![gpu.index], mig_enabled: enabled, mig_devices: counts }),
        }
    }
    entries
}

fn parted_text(file: &Parted<'_>) -> String {
    let mut text = format!("version: {}\nmig-configs:\n", file.version);
    for (name, entries) in &file.mig_configs {
        let _ = writeln!(text, "  {name}:");
        for entry in entries {
            let devices: Vec<String> = entry.devices.iter().map(u32::to_string).collect();
            let _ = writeln!(text, "    - devices: [{}]", devices.join(", "));
            let _ = writeln!(text, "      mig-enabled: {}", entry.mig_enabled);
            if entry.mig_devices.is_empty() {
                text.push_str("      mig-devices: {}\n");
            } else {
                text.push_str("      mig-devices:\n");
            }
            for (profile, count) in &entry.mig_devices {
                let _ = writeln!(text, "        {profile:?}: {count}");
            }
        }
    }
    text
}
