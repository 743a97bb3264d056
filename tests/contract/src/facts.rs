//! What one H200 answered: `facts/h200.yaml`, which travels in the program.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    call::{Stop, Verdict},
    nvml::{GpuProfile, Placement},
};

const H200: &str = include_str!("../facts/h200.yaml");

/// See the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the file says what they are")]
pub struct Facts {
    pub driver: String,
    pub nvml: String,
    pub cuda: i32,
    pub name: String,
    pub architecture: u32,
    pub brand: u32,
    pub compute_capability: (i32, i32),
    pub cores: u32,
    pub pci_device_id: u32,
    pub pci_subsystem_id: u32,
    pub supported_events: u64,
    pub ecc: (u32, u32),
    pub gsp_mode: (u32, u32),
    pub memory_v2_version: u32,
    pub memory_total: u64,
    pub memory_reserved: u64,
    pub profile_indices: u32,
    pub profiles: Vec<Profile>,
    pub error_strings: BTreeMap<u32, String>,
}

/// A GPU instance profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the file says what they are")]
pub struct Profile {
    pub index: u32,
    pub name: String,
    pub id: u32,
    pub peer_to_peer: u32,
    pub slices: u32,
    pub instances: u32,
    pub multiprocessors: u32,
    pub engines: Engines,
    pub memory_mb: u64,
    pub placements: Placements,
    pub remaining: u32,
}

/// How many of each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the file says what they are")]
pub struct Engines {
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
}

/// In memory slices.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the file says what they are")]
pub struct Placements {
    pub starts: Vec<u32>,
    pub size: u32,
}

impl Profile {
    /// As NVML has it.
    pub fn as_nvml(&self) -> GpuProfile {
        GpuProfile {
            id: self.id,
            slices: self.slices,
            instances: self.instances,
            multiprocessors: self.multiprocessors,
            copy: self.engines.copy,
            decoder: self.engines.decoder,
            encoder: self.engines.encoder,
            jpeg: self.engines.jpeg,
            ofa: self.engines.ofa,
            memory_mb: self.memory_mb,
        }
    }

    /// Where its instances may lie.
    pub fn places(&self) -> Vec<Placement> {
        self.placements.starts.iter().map(|start| Placement { start: *start, size: self.placements.size }).collect()
    }
}

/// The H200's.
pub fn h200() -> Verdict<Facts> {
    serde_saphyr::from_str(H200).map_err(|error| Stop::Broken(format!("facts/h200.yaml: {error}")))
}
