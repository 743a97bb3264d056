//! GPU models: the files in `models/`, which say what NVML reports for each.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Deserializer, Serialize, de};

include!(concat!(env!("OUT_DIR"), "/models.rs"));

/// One kind of GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of models/*.yaml, named as NVML names them")]
pub struct Model {
    pub name: String,
    pub architecture: u32,
    pub brand: u32,
    pub compute_capability: [i32; 2],
    pub cores: u32,
    #[serde(deserialize_with = "hexadecimal")]
    pub pci_device_id: u32,
    #[serde(deserialize_with = "hexadecimal")]
    pub pci_subsystem_id: u32,
    pub memory: Memory,
    pub vbios: String,
    pub power_limit_milliwatts: u32,
    pub mig: Option<Mig>,
}

/// Bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct Memory {
    pub total: u64,
    pub reserved: u64,
}

/// How a GPU can be cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct Mig {
    pub mode_change_needs_reset: bool,
    pub max_devices: u32,
    pub memory_slices: u32,
    pub compute_slices: u32,
    pub profiles: Vec<Profile>,
}

/// A GPU instance profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct Profile {
    pub name: String,
    pub index: u32,
    pub id: u32,
    pub slices: u32,
    pub memory_mb: u64,
    pub multiprocessors: u32,
    pub engines: Engines,
    pub max_instances: u32,
    pub placements: Placements,
    pub compute_profiles: Vec<ComputeProfile>,
}

/// A compute instance profile within a GPU instance profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct ComputeProfile {
    pub name: String,
    pub index: u32,
    pub id: u32,
    pub slices: u32,
    pub multiprocessors: u32,
    pub max_instances: u32,
    pub placements: Placements,
}

/// How many of each engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct Engines {
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
}

/// Where an instance may lie: in memory slices on a GPU, in compute slices in a GPU instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see Model")]
pub struct Placements {
    pub starts: Vec<u32>,
    pub size: u32,
}

impl fmt::Display for Placements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts: Vec<String> = self.starts.iter().map(u32::to_string).collect();
        write!(f, "{{{}}}:{}", starts.join(","), self.size)
    }
}

impl Model {
    /// The model of this name, or the file that `name` is the path of when it ends in `.yaml`.
    pub(crate) fn load(name: &str, beside: &Path) -> Result<Self, String> {
        if Path::new(name).extension().is_some_and(|ending| ending == "yaml") {
            let path = beside.join(name);
            let text = fs::read_to_string(&path).map_err(|error| format!("model {}: {error}", path.display()))?;
            return Self::parse(&text).map_err(|reason| format!("model {}: {reason}", path.display()));
        }
        let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = EMBEDDED.iter().map(|(known, _)| *known).collect();
            return Err(format!("unknown model {name:?}; known: {} (or a path ending in .yaml)", known.join(", ")));
        };
        Self::parse(text).map_err(|reason| format!("model {name}: {reason}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| crate::scene::describe(&error))
    }
}

/// NVML packs device and vendor in one number, which people write as `0x20B010DE`.
fn hexadecimal<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    if !from.is_human_readable() {
        return u32::deserialize(from);
    }
    let text = String::deserialize(from)?;
    let digits = text.strip_prefix("0x").ok_or_else(|| de::Error::custom("expected a number such as 0x20B010DE"))?;
    u32::from_str_radix(digits, 16).map_err(de::Error::custom)
}
