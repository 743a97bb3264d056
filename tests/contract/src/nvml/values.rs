//! What calls answer with.

use super::{Device, GpuInstance};

/// Where an instance lies: memory slices for a GPU instance, compute slices for a compute instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The first slice.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// The first version's fields of a GPU instance profile; later versions have them all but the last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct GpuProfile {
    pub id: u32,
    pub slices: u32,
    pub instances: u32,
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
    pub memory_mb: u64,
}

/// A compute instance profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct ComputeProfile {
    pub id: u32,
    pub slices: u32,
    pub instances: u32,
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
}

/// What later versions of a profile's structure add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The first version's fields.
    pub profile: T,
    /// What the driver left in `version`.
    pub version: u32,
    /// The profile's name.
    pub name: String,
}

/// What a GPU instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct GpuInstanceInfo {
    pub device: Device,
    pub id: u32,
    pub profile: u32,
    pub placement: Placement,
}

/// What a compute instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct ComputeInstanceInfo {
    pub device: Device,
    pub gpu_instance: GpuInstance,
    pub id: u32,
    pub profile: u32,
    pub placement: Placement,
}

/// What a MIG device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Attributes {
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
    pub gpu_slices: u32,
    pub compute_slices: u32,
    pub memory_mb: u64,
}

/// Where a GPU is on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Pci {
    pub domain: u32,
    pub bus: u32,
    pub device: u32,
    pub device_id: u32,
    pub subsystem_id: u32,
    pub bus_id: String,
}

/// A GPU's or MIG device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Memory {
    pub version: u32,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Event {
    pub device: Device,
    pub kind: u64,
    pub data: u64,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// A process on a GPU or MIG device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Process {
    pub pid: u32,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}
