//! What a node has, as the driver told it in one pass.

use std::fmt;

use serde::Serialize;

use crate::identity::{GpuUuid, MigUuid};
use crate::profile::Profile;
use crate::survey::Process;
use crate::vitals::Vitals;

/// One reading of the node's GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeInventory {
    /// Versions of the driver that told it.
    pub driver: Driver,
    /// The GPUs by index.
    pub gpus: Vec<Gpu>,
    /// GPUs that have not said who they are since the agent started.
    pub unreadable: Vec<UnreadableGpu>,
}

/// Versions, as NVML writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Of the kernel driver: `580.159.04`.
    pub version: String,
    /// Of the library: `13.580.159.04`.
    pub nvml: String,
}

/// A GPU and how it is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// NVML's index: the order of PCI addresses, not stable across hardware changes.
    pub index: u32,
    /// Who it is.
    pub uuid: GpuUuid,
    /// The product's name: `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// `/dev/nvidia<minor>`, where the driver says.
    pub minor: Option<u32>,
    /// PCI address as the kernel writes it: `0000:07:00.0`, where the driver says.
    pub pci_address: Option<String>,
    /// NUMA node of its PCI slot, where the kernel knows one.
    pub numa_node: Option<u32>,
    /// MIG mode, now and after the next reset.
    pub mig: MigMode,
    /// GPU instances by placement: those that have at least one compute instance; in a [`crate::GpuSurvey`] all.
    pub instances: Vec<GpuInstance>,
    /// How its hardware does.
    pub vitals: Vitals,
    /// What computes on it, in order; nothing if the driver does not say.
    pub processes: Option<Vec<Process>>,
    /// Why nobody would learn of its errors, if so.
    pub unwatched: Option<Fault>,
    /// Why it can't be used at present.
    pub fault: Option<Fault>,
    /// It cannot be read at present: what is above is the last that was known.
    #[serde(skip)]
    pub outdated: bool,
}

/// Of which of a GPU's errors the driver tells this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Of all, with the slices that they are in.
    All,
    /// Of those that are in the whole GPU: whom the driver does not let look at GPU instances, it may not tell of their
    /// errors (`nvml.h` on `nvmlEventSetWait_v2`).
    WholeGpu,
    /// Of none.
    Nothing,
}

/// A GPU that has an index and no more; or one that was there before, and that the driver counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableGpu {
    /// NVML's index, or what it was.
    pub index: u32,
    /// Which it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<GpuUuid>,
    /// What the driver said.
    pub fault: Fault,
}

impl Gpu {
    /// Of which of its errors anybody would learn.
    pub fn watched(&self) -> Watched {
        if self.unwatched.is_some() {
            Watched::Nothing
        } else if self.instances.iter().any(|instance| instance.placement.is_none()) {
            Watched::WholeGpu
        } else {
            Watched::All
        }
    }
}

/// What went wrong, for people and for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// A word for metrics and tests: `GpuIsLost`.
    pub kind: &'static str,
    /// One line that says what was tried and what the driver answered.
    pub message: String,
}

/// Whether a GPU is cut into instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum MigMode {
    /// This GPU cannot be cut.
    Unsupported,
    /// The driver's answer.
    Known {
        /// In force.
        enabled: bool,
        /// In force after the next reset of the GPU.
        pending: bool,
    },
}

impl MigMode {
    /// Whether MIG is in force.
    pub fn is_enabled(self) -> bool {
        matches!(self, Self::Known { enabled: true, .. })
    }
}

/// A GPU instance: a share of memory, engines and compute slices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuInstance {
    /// NVML's id, unique on its GPU; says nothing of the placement.
    pub id: u32,
    /// Its kind.
    pub profile: Profile,
    /// Where it lies; unknown to those whom the driver does not let look.
    pub placement: Option<Placement>,
    /// What processes run on, by id.
    pub compute_instances: Vec<ComputeInstance>,
}

/// A compute instance: what CUDA calls a MIG device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComputeInstance {
    /// NVML's id, unique in its GPU instance.
    pub id: u32,
    /// Its kind: the GPU instance's, or a part of it.
    pub profile: Profile,
    /// Who it is.
    pub uuid: MigUuid,
    /// NVML's index among the GPU's MIG devices; it shifts when others are destroyed.
    #[serde(skip)]
    pub index: Option<u32>,
    /// Where it lies, in compute slices of its GPU instance; only a [`crate::GpuSurvey`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Why it can't be used at present, though its GPU can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// A stretch of slices: a GPU's memory slices for a GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Placement {
    /// The first memory slice.
    pub start: u32,
    /// How many.
    pub size: u32,
}

impl Placement {
    /// The first slice after it.
    pub fn end(&self) -> u32 {
        self.start.saturating_add(self.size)
    }

    /// Whether the two share a slice.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// `4:4`, start and size, as NVIDIA's tools write it.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.start, self.size))
    }
}
