//! Scenes: YAML files that say what a pretended machine has. This is their syntax; `resolve` gives it meaning.

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::world::{Permission, Vitals};

/// A scene file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scene {
    pub(crate) driver: Option<String>,
    pub(crate) nvml: Option<String>,
    pub(crate) cuda: Option<i32>,
    #[serde(default)]
    pub(crate) permission: Permission,
    #[serde(default)]
    pub(crate) minors_move: bool,
    #[serde(default)]
    pub(crate) gpus: Vec<GpuScene>,
    #[serde(default)]
    pub(crate) faults: Vec<FaultScene>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuScene {
    pub(crate) model: Spanned<String>,
    pub(crate) count: Option<Spanned<u32>>,
    pub(crate) uuid: Option<Spanned<String>>,
    pub(crate) mig: Option<Spanned<MigScene>>,
    pub(crate) minor: Option<Spanned<u32>>,
    pub(crate) pci: Option<Spanned<String>>,
    pub(crate) numa: Option<u32>,
    pub(crate) serial: Option<String>,
    #[serde(default)]
    pub(crate) lost: bool,
    #[serde(default)]
    pub(crate) vitals: Vitals,
    #[serde(default)]
    pub(crate) instances: Vec<InstanceScene>,
    #[serde(default)]
    pub(crate) processes: Vec<ProcessScene>,
    #[serde(default)]
    pub(crate) faults: Vec<FaultScene>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false or { current: ..., pending: ... }")]
pub(crate) enum MigScene {
    Both(bool),
    Each(MigModes),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigModes {
    pub(crate) current: bool,
    pub(crate) pending: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstanceScene {
    pub(crate) profile: Spanned<String>,
    pub(crate) placement: Option<Spanned<u32>>,
    pub(crate) id: Option<Spanned<u32>>,
    pub(crate) uuid: Option<Spanned<String>>,
    pub(crate) index: Option<Spanned<u32>>,
    pub(crate) compute: Option<Vec<ComputeScene>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComputeScene {
    pub(crate) profile: Spanned<String>,
    pub(crate) placement: Option<Spanned<u32>>,
    pub(crate) id: Option<Spanned<u32>>,
    pub(crate) uuid: Option<Spanned<String>>,
    pub(crate) index: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessScene {
    pub(crate) pid: Spanned<u32>,
    pub(crate) name: Option<String>,
    /// In MiB.
    #[serde(default)]
    pub(crate) memory: u32,
    #[serde(default)]
    pub(crate) graphics: bool,
    pub(crate) instance: Option<u32>,
    pub(crate) compute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultScene {
    pub(crate) call: Spanned<String>,
    pub(crate) returns: Option<Spanned<String>>,
    pub(crate) delay: Option<Spanned<String>>,
    pub(crate) nth: Option<Spanned<u64>>,
}

/// A syntax error as `line N: reason`, in one line.
pub(crate) fn describe(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let reason = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match error.location() {
        Some(place) if place.line() > 0 => {
            // The parser says the place at the end; people and editors look for it at the beginning.
            let own = format!(" at line {}, column {}", place.line(), place.column());
            format!("line {}: {}", place.line(), reason.trim_end_matches(&own))
        }
        _ => reason,
    }
}
