//! Everything there is to know of a GPU before it is cut: what it has, what it offers, and who uses it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::geometry::Geometry;
use crate::inventory::{Driver, Gpu, UnreadableGpu};

/// One thorough reading of a node, for those who are about to change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeSurvey {
    /// Versions of the driver that told it.
    pub driver: Driver,
    /// The GPUs by index.
    pub gpus: Vec<GpuSurvey>,
    /// GPUs that did not say who they are.
    pub unreadable: Vec<UnreadableGpu>,
}

/// A GPU, thoroughly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuSurvey {
    /// Who it is and how it is cut, with every GPU instance there is.
    pub gpu: Gpu,
    /// What it offers; none where it cannot be cut.
    pub geometry: Option<Geometry>,
    /// How many more of each profile the driver says it takes, by profile id; empty with MIG off.
    pub remaining: BTreeMap<u32, u32>,
    /// Memory of the whole GPU.
    pub memory_bytes: Option<u64>,
    /// PCI device and vendor as one number: `0x20B010DE`, where the driver says; and the subsystem's.
    pub pci_ids: Option<(u32, u32)>,
    /// What runs on it, as far as the driver tells.
    pub processes: Vec<Process>,
    /// Whether that is all: a driver may not let everybody look.
    pub processes_known: bool,
}

/// A process on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// Its number, as the driver sees it.
    pub pid: u32,
    /// The GPU instance it is on, when the GPU is cut and the driver says.
    pub gpu_instance: Option<u32>,
    /// The compute instance it is on.
    pub compute_instance: Option<u32>,
    /// Memory it holds there.
    pub memory_bytes: Option<u64>,
    /// Its command's name, where the driver or the kernel says.
    pub name: Option<String>,
}
