//! NVML for those who look thoroughly, or change things.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mig_model::{Driver, GpuUuid, NodeSurvey, Step};

use crate::describe;
use crate::error::DriverError;
use crate::execute;
use crate::library::Library;
use crate::metrics::Metrics;
use crate::report::{Progress, Report};
use crate::session::Session;
use crate::survey;

/// Where things are on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The driver's files: `/`, if not in a container.
    pub driver: PathBuf,
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// Usually `/proc`.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { driver: "/".into(), sys: "/sys".into(), proc: "/proc".into() }
    }
}

/// NVML, started. Every method asks everything anew, and finds GPUs by their UUIDs: what NVML's handles mean changes with
/// each change.
pub struct Hardware {
    pub(crate) session: Session,
    pub(crate) library: Library,
    pub(crate) roots: Roots,
}

/// What a file in `models/` says of a GPU beyond what a survey does. None is what the driver would not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Versions of the driver that told it.
    pub driver: Driver,
    /// The product's name.
    pub name: String,
    /// NVML's number: 7 is Ampere, 8 Ada, 9 Hopper, 10 Blackwell.
    pub architecture: Option<u32>,
    /// NVML's number.
    pub brand: Option<u32>,
    /// CUDA's, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// CUDA cores; the driver does not say with MIG on.
    pub cores: Option<u32>,
    /// PCI device and vendor as one number, and the subsystem's.
    pub pci_ids: Option<(u32, u32)>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Of these, what the driver keeps.
    pub memory_reserved: Option<u64>,
    /// Version of its firmware.
    pub vbios: Option<String>,
    /// What its maker lets it draw.
    pub power_limit_milliwatts: Option<u32>,
    /// The most MIG devices that it can have; the driver does not say with MIG off.
    pub max_mig_devices: Option<u32>,
    /// Under which index NVML describes each GPU instance profile, by its id.
    pub profile_indices: BTreeMap<u32, u32>,
    /// The same for compute instance profiles, by both ids; of those GPU instance profiles that there are instances of.
    pub compute_profile_indices: BTreeMap<(u32, u32), u32>,
}

impl Hardware {
    /// Loads the library, `library` or the one that is found below the driver's root, and starts NVML.
    pub fn open(library: Option<&Path>, roots: Roots) -> Result<Self, DriverError> {
        let library = Library::find(library, &roots.driver)?;
        let session = Session::start(&library, &roots.driver, Metrics::default())?;
        Ok(Self { session, library, roots })
    }

    /// Which library it is.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Everything there is to know of every GPU. One that fails says so itself, the others are there all the same.
    pub fn survey(&self) -> Result<NodeSurvey, DriverError> {
        survey::survey(self)
    }

    /// Takes the steps in order, up to the first that fails. `watch` hears of each before and after, and may end the
    /// change between two.
    pub fn execute(
        &self,
        gpu: &GpuUuid,
        steps: &[Step],
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Report {
        execute::execute(self, gpu, steps, watch)
    }

    /// What a file in `models/` says of this GPU beyond its survey.
    pub fn describe(&self, gpu: &GpuUuid) -> Result<ModelFacts, DriverError> {
        describe::describe(self, gpu)
    }
}
