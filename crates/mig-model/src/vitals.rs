//! How a GPU's hardware does, as the driver tells it.

use serde::Serialize;

use crate::identity::GpuUuid;

/// What a driver tells of a GPU's hardware; nothing where it does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vitals {
    /// Memory errors that could not be corrected, since the driver was loaded or the GPU was reset.
    pub uncorrectable_errors: Option<u64>,
    /// Rows of memory that were replaced by spare ones.
    pub remapped_rows: Option<RemappedRows>,
    /// What the driver wants done about the GPU.
    pub recovery: Option<Recovery>,
}

/// Rows of memory that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RemappedRows {
    /// Replaced because of errors that could be corrected.
    pub correctable: u32,
    /// Replaced because of errors that could not.
    pub uncorrectable: u32,
    /// Some are to be replaced at the next reset.
    pub pending: bool,
    /// Some could not be replaced: no spare rows are left for them.
    pub failed: bool,
}

/// What the driver wants done to make a GPU whole again (`nvmlDeviceGpuRecoveryAction_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// Nothing.
    None,
    /// A reset of the GPU.
    GpuReset,
    /// A restart of the node.
    NodeReboot,
    /// An end of traffic between GPUs.
    DrainP2p,
    /// That, and a reset of the GPU.
    DrainAndReset,
    /// Something that is not known here, by NVML's number.
    Other(u32),
}

/// An error that the driver has reported, where it said that it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidEvent {
    /// On which GPU.
    pub gpu: GpuUuid,
    /// NVIDIA's number of the error.
    pub xid: u64,
    /// In which GPU instance, if in one.
    pub gpu_instance: Option<u32>,
    /// In which of its compute instances, if in one.
    pub compute_instance: Option<u32>,
}
