//! The text of a file in `models/`: the keys, their order and their style are those of the files that are there.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use mig_model::{ComputeProfile, Geometry, GpuSurvey, InstanceProfile, MigMode, Placement};
use mig_nvml::ModelFacts;

use crate::failure::Failure;

/// NVML's numbers, as `nvml.h` names them.
const ARCHITECTURES: [(u32, &str); 9] = [
    (2, "Kepler"),
    (3, "Maxwell"),
    (4, "Pascal"),
    (5, "Volta"),
    (6, "Turing"),
    (AMPERE, "Ampere"),
    (8, "Ada"),
    (9, "Hopper"),
    (10, "Blackwell"),
];
const BRANDS: [(u32, &str); 7] =
    [(1, "Quadro"), (2, "Tesla"), (4, "GRID"), (5, "GeForce"), (12, "Quadro RTX"), (13, "NVIDIA RTX"), (14, "NVIDIA")];
const AMPERE: u32 = 7;

/// What is not the driver's own word, for the file's heading.
#[derive(Default)]
struct Doubts {
    /// Keys whose values the driver did not say.
    unsaid: Vec<&'static str>,
    notes: Vec<String>,
}

impl Doubts {
    /// What the driver said, or nothing at all.
    fn said<T: Default>(&mut self, key: &'static str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.unsaid.push(key);
            T::default()
        })
    }
}

pub(super) fn text(survey: &GpuSurvey, facts: &ModelFacts, date: &str) -> Result<String, Failure> {
    let mut doubts = Doubts::default();
    let mut body = String::new();
    body_of(&mut body, &mut doubts, survey, facts).map_err(|_| broken("it cannot be written"))??;
    let mode = match survey.gpu.mig {
        MigMode::Unsupported => "no MIG",
        MigMode::Known { enabled: true, .. } => "MIG mode on",
        MigMode::Known { enabled: false, .. } => "MIG mode off",
    };
    let (name, driver) = (one_line(&facts.name), one_line(&facts.driver.version));
    let mut text = format!(
        "# {name} as NVML reports it.\n# Source: one {name} with driver {driver}, {mode}; written by migctl capture on {date}.\n"
    );
    if !doubts.unsaid.is_empty() {
        doubts.notes.insert(0, format!("The driver did not say: {}; zero here.", doubts.unsaid.join(", ")));
    }
    text.extend(doubts.notes.iter().map(|note| format!("# {note}\n")));
    Ok(text + &body)
}

type Written = Result<Result<(), Failure>, fmt::Error>;

fn body_of(out: &mut String, doubts: &mut Doubts, survey: &GpuSurvey, facts: &ModelFacts) -> Written {
    let architecture = doubts.said("architecture", facts.architecture);
    let brand = doubts.said("brand", facts.brand);
    let (major, minor) = doubts.said("compute_capability", facts.compute_capability);
    let cores = match survey.gpu.mig.is_enabled() {
        true => doubts.said("cores (it does with MIG off)", facts.cores),
        false => doubts.said("cores", facts.cores),
    };
    let (device, subsystem) = doubts.said("PCI ids", facts.pci_ids);
    let total = doubts.said("total memory", facts.memory_total);
    let reserved = doubts.said("reserved memory", facts.memory_reserved);
    let vbios = doubts.said("vbios", facts.vbios.clone());
    let power = doubts.said("power_limit_milliwatts", facts.power_limit_milliwatts);
    writeln!(out, "name: {}", scalar(&facts.name))?;
    writeln!(out, "architecture: {architecture}{}", comment(&ARCHITECTURES, architecture))?;
    writeln!(out, "brand: {brand}{}", comment(&BRANDS, brand))?;
    writeln!(out, "compute_capability: [{major}, {minor}]")?;
    writeln!(out, "cores: {cores}")?;
    writeln!(out, "pci_device_id: \"0x{device:08X}\"")?;
    writeln!(out, "pci_subsystem_id: \"0x{subsystem:08X}\"")?;
    writeln!(out, "memory: {{ total: {total}, reserved: {reserved} }}  # bytes")?;
    writeln!(out, "vbios: {}", scalar(&vbios))?;
    writeln!(out, "power_limit_milliwatts: {power}")?;
    let Some(geometry) = &survey.geometry else {
        writeln!(out, "mig: null  # not capable")?;
        return Ok(Ok(()));
    };
    doubts.notes.push(
        "mode_change_needs_reset follows from the architecture: Ampere needs a reset, as published; none is known of later."
            .to_owned(),
    );
    doubts.notes.extend(unasked(geometry));
    let largest = geometry.profiles.iter().map(|profile| profile.max_instances).max().unwrap_or_default();
    writeln!(out, "mig:")?;
    writeln!(out, "  mode_change_needs_reset: {}", architecture == AMPERE)?;
    // With MIG off the driver does not say: then as many as of the smallest type.
    writeln!(out, "  max_devices: {}", facts.max_mig_devices.unwrap_or(largest))?;
    writeln!(out, "  memory_slices: {}", geometry.memory_slices)?;
    writeln!(out, "  compute_slices: {}", geometry.compute_slices)?;
    writeln!(out, "  # engines: copy, decoder, encoder, jpeg, ofa")?;
    writeln!(out, "  profiles:")?;
    let mut profiles: Vec<&InstanceProfile> = geometry.profiles.iter().collect();
    profiles.sort_by_key(|known| (known.slices, known.memory_mib, facts.profile_indices.get(&known.id)));
    for profile in profiles {
        if let Err(failure) = instance_profile(out, geometry, profile, facts)? {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(()))
}

/// A driver tells of compute instances only in GPU instances that there are.
fn unasked(geometry: &Geometry) -> Option<String> {
    let told = |profile: &&InstanceProfile| !profile.compute_profiles.is_empty();
    let asked: BTreeSet<String> =
        geometry.profiles.iter().filter(told).map(|profile| profile.profile.to_string()).collect();
    if asked.len() == geometry.profiles.len() {
        return None;
    }
    let rule = "follow from A100's published ones, the placements too, and are unverified: a driver tells only of instances that there are";
    Some(match asked.into_iter().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => format!("Compute instance profiles {rule}."),
        asked => format!("Compute instance profiles of {asked} are the driver's; all others {rule}."),
    })
}

fn instance_profile(out: &mut String, geometry: &Geometry, profile: &InstanceProfile, facts: &ModelFacts) -> Written {
    let Some(index) = facts.profile_indices.get(&profile.id) else {
        return Ok(Err(broken(&format!("{} has no index", profile.profile))));
    };
    let Some(placements) = places(&profile.placements) else { return Ok(Err(uneven(&profile.profile))) };
    let engines = profile.engines;
    writeln!(out, "    - name: {}", profile.profile)?;
    writeln!(out, "      index: {index}")?;
    writeln!(out, "      id: {}", profile.id)?;
    writeln!(out, "      slices: {}", profile.slices)?;
    writeln!(out, "      memory_mb: {}", profile.memory_mib)?;
    writeln!(out, "      multiprocessors: {}", profile.multiprocessors)?;
    writeln!(
        out,
        "      engines: {{ copy: {}, decoder: {}, encoder: {}, jpeg: {}, ofa: {} }}",
        engines.copy, engines.decoder, engines.encoder, engines.jpeg, engines.ofa
    )?;
    writeln!(out, "      max_instances: {}", profile.max_instances)?;
    writeln!(out, "      placements: {placements}")?;
    writeln!(out, "      compute_profiles:")?;
    for part in geometry.compute_profiles(profile).iter() {
        let known = facts.compute_profile_indices.get(&(profile.id, part.id)).copied();
        let Some(index) = known.or_else(|| usual_index(part)) else {
            return Ok(Err(broken(&format!("{} has no index", part.profile))));
        };
        let Some(placements) = places(&part.placements) else { return Ok(Err(uneven(&part.profile))) };
        let ComputeProfile { profile, id, slices, multiprocessors, max_instances, .. } = part;
        writeln!(
            out,
            "        - {{ name: {profile}, index: {index}, id: {id}, slices: {slices}, multiprocessors: {multiprocessors}, \
             max_instances: {max_instances}, placements: {placements} }}"
        )?;
    }
    Ok(Ok(()))
}

/// NVML's index of the compute instance profile that takes so many slices.
fn usual_index(part: &ComputeProfile) -> Option<u32> {
    match part.slices {
        slices @ 1..=4 => Some(slices - 1),
        7 => Some(4),
        8 => Some(5),
        6 => Some(6),
        _ => None,
    }
}

/// `{ starts: [0, 4], size: 4 }`; none if they are not of one size.
fn places(placements: &[Placement]) -> Option<String> {
    let size = placements.first()?.size;
    let starts: Vec<String> = placements.iter().map(|at| at.start.to_string()).collect();
    let is_even = placements.iter().all(|at| at.size == size);
    is_even.then(|| format!("{{ starts: [{}], size: {size} }}", starts.join(", ")))
}

fn uneven(profile: &mig_model::Profile) -> Failure {
    broken(&format!("{profile} has no placements, or some of several sizes"))
}

fn broken(why: &str) -> Failure {
    Failure::failed("NoModel", format!("no models/ file can say what the driver does: {why}"))
}

fn comment(names: &[(u32, &str)], number: u32) -> String {
    names.iter().find(|(known, _)| *known == number).map(|(_, name)| format!("  # {name}")).unwrap_or_default()
}

/// A text as YAML has it: without quotes where they are not needed.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " ._+-()/".contains(c);
    let is_word =
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && !text.ends_with(' ') && text.chars().all(is_plain);
    let is_other = text.parse::<f64>().is_ok()
        || text.starts_with("0x")
        || ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    // JSON's strings are YAML's, too.
    if is_word && !is_other { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// For comments, which a line's end would end.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_when_they_have_to_be() {
        for plain in ["NVIDIA H200", "96.00.A5.00.1A", "NVIDIA RTX PRO 6000 Blackwell Server Edition"] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in ["", "96.00", "1e5", "no", "Null", "- a", "a: b", "a #b", "a\nb", "\u{fffd}", "a ", "0x1F"] {
            let text = scalar(quoted);
            assert!(text.starts_with('"'), "{quoted:?}");
            assert_eq!(serde_saphyr::from_str::<String>(&text).unwrap(), quoted);
        }
    }
}
