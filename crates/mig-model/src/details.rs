//! What is told of a node's GPUs beyond what offering them takes.

use std::collections::BTreeMap;

use crate::geometry::Engines;
use crate::identity::GpuUuid;
use crate::profile::Profile;

/// What a driver told of the GPUs of an inventory. What is missing it would not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeDetails {
    /// The newest CUDA that the driver runs, major and minor.
    pub cuda: Option<(u32, u32)>,
    /// Of each GPU.
    pub gpus: BTreeMap<GpuUuid, GpuDetails>,
    /// Of the MIG devices of one profile on GPUs of one name: they are all alike.
    pub parts: BTreeMap<(String, Profile), PartDetails>,
}

/// A GPU as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuDetails {
    /// Its memory in MiB; with MIG on, not everybody is told.
    pub memory_mib: Option<u64>,
    /// CUDA's, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Its PCI class, as the kernel has it: `0x030200` is a 3D controller.
    pub pci_class: Option<u32>,
}

/// A MIG device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartDetails {
    /// Memory of its GPU instance in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors of its own.
    pub multiprocessors: u32,
    /// Compute slices of its GPU instance.
    pub gpu_slices: u32,
    /// Compute slices of its own.
    pub compute_slices: u32,
    /// Engines of its GPU instance.
    pub engines: Engines,
}
