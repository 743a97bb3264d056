//! mig-parted's `version: v1`, as its `api/spec/v1` has it: nothing more is taken, nothing less understood.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{Entry, EntryInstance, Filter, GpuSelector, Gpus, MOST_INSTANCES};
use crate::profile::Profile;
use crate::yaml::{self, WordOrList};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: String,
    #[serde(rename = "mig-configs")]
    configs: BTreeMap<String, Vec<Spanned<Config>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    device_filter: Option<Spanned<WordOrList<String>>>,
    devices: Spanned<WordOrList<u32>>,
    mig_enabled: bool,
    mig_devices: Option<BTreeMap<String, Spanned<u32>>>,
}

pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Vec<Entry>>, String> {
    let file: File = yaml::parse(text)?;
    let entries = |configs: &[Spanned<Config>]| configs.iter().map(entry).collect::<Result<Vec<_>, _>>();
    file.configs.iter().map(|(name, configs)| Ok((name.clone(), entries(configs)?))).collect()
}

fn entry(config: &Spanned<Config>) -> Result<Entry, String> {
    let line = yaml::line(config);
    let Config { device_filter, devices, mig_enabled, mig_devices } = &config.value;
    let gpus = match &devices.value {
        WordOrList::Word(word) if word == "all" => Gpus::All,
        WordOrList::Word(word) => {
            let line = yaml::line(devices);
            return Err(format!(
                "line {line}: unknown devices {word:?}: expected all, or a list of indices such as [0, 1]"
            ));
        }
        WordOrList::List(indices) => Gpus::Named(indices.iter().map(|index| GpuSelector::Index(*index)).collect()),
    };
    let filters = match device_filter {
        None => Vec::new(),
        Some(ids) => vec![Filter::PciIds(pci_ids(ids)?)],
    };
    let mut instances = Vec::new();
    for (name, count) in mig_devices.iter().flatten() {
        let line = yaml::line(count);
        let profile: Profile = name.parse().map_err(|error| format!("line {line}: {error}"))?;
        if count.value > MOST_INSTANCES {
            return Err(format!(
                "line {line}: {} of {profile} on one GPU: no GPU takes more than {MOST_INSTANCES}",
                count.value
            ));
        }
        instances.push(EntryInstance { line, profile, start: None, count: count.value, compute: Vec::new() });
    }
    let none = instances.iter().all(|one| one.count == 0);
    match (mig_enabled, mig_devices) {
        (true, None) => return Err(format!("line {line}: mig-devices is missing; {{}} stands for none")),
        (true, Some(devices)) if !devices.is_empty() && none => {
            return Err(format!("line {line}: mig-devices has no count above 0; {{}} stands for none"));
        }
        (false, Some(_)) if !instances.is_empty() => {
            return Err(format!("line {line}: mig-devices with mig-enabled: false, which leaves nothing to cut"));
        }
        _ => {}
    }
    Ok(Entry { line, gpus, filters, strict: false, mig: *mig_enabled, instances })
}

/// `0x20B010DE`, or with the subsystem `0x20B010DE:0x144E10DE`.
pub(super) fn pci_ids(ids: &Spanned<WordOrList<String>>) -> Result<Vec<(u32, Option<u32>)>, String> {
    let read = |text: &str| yaml::hexadecimal(text).map_err(|reason| format!("line {}: {reason}", yaml::line(ids)));
    let both = |text: &String| match text.split_once(':') {
        Some((device, subsystem)) => Ok((read(device)?, Some(read(subsystem)?))),
        None => Ok((read(text)?, None)),
    };
    ids.value.all().iter().map(both).collect()
}
