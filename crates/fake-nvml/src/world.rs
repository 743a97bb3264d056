//! What a pretended machine is: its driver, its GPUs and how they are cut. Plain data, stored as it is.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    faults::Fault,
    model::{ComputeProfile, Mig, Model, Profile},
};

/// One machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct World {
    pub driver: String,
    pub nvml: String,
    pub cuda: i32,
    /// Each model once, however many GPUs are of it.
    pub models: Vec<Model>,
    pub gpus: Vec<Gpu>,
    pub faults: Vec<Fault>,
    pub permission: Permission,
    /// Whether a change of the MIG mode unbinds the GPU, which then comes back with another minor number.
    pub minors_move: bool,
    /// What happened of late, oldest first: clients that wait for events read it from where they registered.
    pub events: VecDeque<Event>,
    /// The next number to give to a GPU, an instance or an event: none is given twice in the life of a machine, so that a handle
    /// to something that is gone is never taken for what came after it.
    pub next_serial: u32,
}

/// One GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct Gpu {
    pub serial: u32,
    /// Index in [`World::models`].
    pub model: usize,
    pub uuid: String,
    pub minor: u32,
    pub pci: PciAddress,
    pub numa: u32,
    pub board_serial: String,
    pub mig_current: bool,
    pub mig_pending: bool,
    pub lost: bool,
    pub vitals: Vitals,
    /// By id.
    pub instances: Vec<GpuInstance>,
    /// In the order in which they came.
    pub processes: Vec<Process>,
}

/// How a GPU's hardware does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vitals {
    /// Memory errors since the last reset that could not be corrected.
    pub uncorrectable_errors: u64,
    /// Rows of memory that were replaced, for errors that could be corrected and for others.
    pub remapped_rows: (u32, u32),
    /// Some are to be replaced at the next reset.
    pub remap_pending: bool,
    /// Some could not be replaced.
    pub remap_failed: bool,
    /// What the driver wants done.
    pub recovery: Recovery,
}

/// `nvmlDeviceGpuRecoveryAction_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "NVML's own words")]
pub enum Recovery {
    #[default]
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
}

/// What the processes on this machine may do, which a real host decides by its capability device nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Neither look at GPU instances nor change them.
    None,
    /// Look at them: `nvidia-cap2`.
    Monitor,
    /// Change them and the MIG mode too: `nvidia-cap1` and root.
    #[default]
    Config,
}

/// A program that uses a GPU, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct Process {
    pub pid: u32,
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// Whether it draws, and is not listed among those that compute.
    pub graphics: bool,
    /// The id of the GPU instance that it uses; without one it uses the GPU as a whole.
    pub instance: Option<u32>,
    /// The id of the compute instance in it.
    pub compute: Option<u32>,
}

/// Something that clients can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct Event {
    /// Grows from one event to the next.
    pub serial: u32,
    /// The GPU's index.
    pub gpu: usize,
    /// One bit of NVML's `nvmlEventType`s.
    pub kind: u64,
    pub data: u64,
    pub instance: Option<u32>,
    pub compute: Option<u32>,
}

/// Where a GPU is on the PCI bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

/// A GPU instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct GpuInstance {
    pub serial: u32,
    pub id: u32,
    /// Index in the model's profiles.
    pub profile: usize,
    /// In memory slices.
    pub start: u32,
    /// By id.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance, which is what NVML calls a MIG device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named by what they hold")]
pub struct ComputeInstance {
    pub serial: u32,
    pub id: u32,
    /// Index in the profile's compute profiles.
    pub profile: usize,
    /// In compute slices of its GPU instance.
    pub start: u32,
    pub uuid: String,
    /// The index among the GPU's MIG devices; there may be gaps.
    pub mig_index: u32,
}

impl Process {
    /// What one is called of which only the number is known.
    pub fn nameless(pid: u32) -> String {
        format!("process-{pid}")
    }
}

impl PciAddress {
    /// `0000:07:00.0`.
    pub fn parse(text: &str) -> Option<Self> {
        let (domain, rest) = match text.matches(':').count() {
            1 => ("0", text),
            _ => text.split_once(':')?,
        };
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
        Some(Self {
            domain: u32::from_str_radix(domain, 16).ok()?,
            bus: u8::from_str_radix(bus, 16).ok()?,
            device: u8::from_str_radix(device, 16).ok().filter(|device| *device < 32)?,
            function: u8::from_str_radix(function, 16).ok().filter(|function| *function < 8)?,
        })
    }

    /// As sysfs and NVML's older calls write it.
    pub fn short(&self) -> String {
        format!("{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }

    /// As NVML's newer calls write it.
    pub(crate) fn long(&self) -> String {
        format!("{:08X}:{:02X}:{:02X}.{:X}", self.domain, self.bus, self.device, self.function)
    }
}

impl World {
    /// The model of a GPU.
    pub(crate) fn model(&self, gpu: &Gpu) -> Option<&Model> {
        self.models.get(gpu.model)
    }

    /// The GPU's way of being cut, when it has one.
    pub(crate) fn mig(&self, gpu: &Gpu) -> Option<&Mig> {
        self.model(gpu).and_then(|model| model.mig.as_ref())
    }

    /// The profile of a GPU instance.
    pub(crate) fn profile(&self, gpu: &Gpu, instance: &GpuInstance) -> Option<&Profile> {
        self.mig(gpu)?.profiles.get(instance.profile)
    }

    /// The profile of a compute instance.
    pub(crate) fn compute_profile(
        &self,
        gpu: &Gpu,
        instance: &GpuInstance,
        compute: &ComputeInstance,
    ) -> Option<&ComputeProfile> {
        self.profile(gpu, instance)?.compute_profiles.get(compute.profile)
    }

    /// A number for something new.
    pub(crate) fn serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        serial
    }
}

impl Gpu {
    /// Every MIG device, in the order of instance ids.
    pub(crate) fn mig_devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.instances.iter().flat_map(|gi| gi.compute.iter().map(move |ci| (gi, ci)))
    }
}
