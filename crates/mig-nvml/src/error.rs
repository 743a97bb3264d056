use std::borrow::Cow;

use mig_model::{Fault, GeometryError, GpuUuid, IdentityError, ProfileError};
use nvml_wrapper::error::NvmlError;

use crate::library::LibraryError;

/// Something that NVML would not do, and what we were at.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No library, or one that does not load.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// NVML does not start.
    #[error("NVML does not start: {}{}", words(source), advice("", source))]
    Init {
        /// NVML's answer.
        source: NvmlError,
    },
    /// One call failed.
    #[error("{call} failed{}: {}{}", of_gpu(*gpu), words(source), advice(call, source))]
    Call {
        /// NVML's function.
        call: &'static str,
        /// On which GPU, if on one.
        gpu: Option<u32>,
        /// NVML's answer.
        source: NvmlError,
    },
    /// It has no such GPU, or has lost sight of it.
    #[error("the driver knows no GPU {0}")]
    NoSuchGpu(GpuUuid),
    /// The driver gave a UUID that cannot be one.
    #[error("the driver's answer makes no sense: {0}")]
    Identity(#[from] IdentityError),
    /// The driver gave a profile that cannot be one.
    #[error("the driver's answer makes no sense: {0}")]
    Profile(#[from] ProfileError),
    /// The driver gave profiles that no GPU can have.
    #[error("the driver's answer makes no sense: {0}")]
    Geometry(#[from] GeometryError),
    /// The driver gave a count that cannot be one.
    #[error("the driver's answer makes no sense: {count} {what}")]
    Implausible {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u32,
    },
    /// A GPU instance's profile is none of those that the GPU says it has.
    #[error("GPU {gpu} has a GPU instance of profile id {id}, which the driver does not list")]
    UnknownProfile {
        /// NVML's index of the GPU.
        gpu: u32,
        /// The profile's id.
        id: u32,
    },
    /// Two of the driver's answers do not go together.
    #[error("the driver contradicts itself on GPU {gpu}: {what}")]
    Contradiction {
        /// NVML's index of the GPU.
        gpu: u32,
        /// In what.
        what: String,
    },
}

fn of_gpu(gpu: Option<u32>) -> String {
    gpu.map(|index| format!(" on GPU {index}")).unwrap_or_default()
}

/// NVML's codes that nvml-wrapper has no name for: a word for machines, and NVML's own words.
const UNNAMED: [(u32, &str, &str); 8] = [
    (23, "InsufficientResources", "insufficient resources"),
    (24, "FrequencyNotSupported", "invalid frequency"),
    (VERSION_MISMATCH, "ArgumentVersionMismatch", "argument version mismatch"),
    (26, "Deprecated", "requested functionality has been deprecated"),
    (27, "NotReady", "system is not in ready state"),
    (28, "GpuNotFound", "no supported GPUs were found"),
    (29, "InvalidState", "resource not in correct state to perform requested operation"),
    (30, "ResetTypeNotSupported", "reset type is not supported for given device"),
];

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`.
const VERSION_MISMATCH: u32 = 25;

/// What NVML says.
pub(crate) fn words(error: &NvmlError) -> Cow<'static, str> {
    match error {
        NvmlError::UnexpectedVariant(code) => match UNNAMED.iter().find(|(known, ..)| known == code) {
            Some((.., words)) => (*words).into(),
            None => format!("error {code}").into(),
        },
        error => error.to_string().into(),
    }
}

/// The calls that change something.
const CHANGES: [&str; 5] = [
    "nvmlDeviceSetMigMode",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceDestroy",
    "nvmlComputeInstanceDestroy",
];

/// What the administrator can do about it.
fn advice(call: &str, error: &NvmlError) -> &'static str {
    match error {
        NvmlError::NoPermission if call == "nvmlDeviceSetMigMode" => " (switching MIG mode takes root)",
        NvmlError::NoPermission if CHANGES.contains(&call) => {
            " (changing MIG instances takes root, or the mig/config capability: /dev/nvidia-caps/nvidia-cap1, in a container \
             of NVIDIA's runtime by NVIDIA_MIG_CONFIG_DEVICES=all)"
        }
        NvmlError::NoPermission => {
            " (reading MIG instances needs the mig/monitor capability: give the container /dev/nvidia-caps/nvidia-cap2, \
             with NVIDIA's runtime by NVIDIA_MIG_MONITOR_DEVICES=all)"
        }
        NvmlError::InUse if call == "nvmlDeviceSetMigMode" => {
            " (end what uses the GPU, monitoring agents and nvidia-persistenced too)"
        }
        NvmlError::InUse => " (end the processes that use it, and the pods and containers that hold it)",
        NvmlError::DriverNotLoaded => " (is the nvidia kernel module loaded, and /dev/nvidiactl visible here?)",
        NvmlError::LibRmVersionMismatch => {
            " (library and kernel module are of different versions: the driver was upgraded without a reboot, or --nvidia-driver-root names another driver's files)"
        }
        NvmlError::GpuLost => " (see the kernel's log for its XID; it needs a reset or a reboot)",
        NvmlError::ResetRequired => " (reset the GPU: nvidia-smi --gpu-reset -i INDEX)",
        _ => "",
    }
}

impl DriverError {
    /// A word for metrics, tests and those who match on errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Library(_) => "Library",
            Self::Init { source } | Self::Call { source, .. } => kind_of(source),
            Self::NoSuchGpu(_) => "NotFound",
            Self::Identity(_)
            | Self::Profile(_)
            | Self::Geometry(_)
            | Self::Implausible { .. }
            | Self::UnknownProfile { .. }
            | Self::Contradiction { .. } => "Nonsense",
        }
    }

    /// What NVML answered.
    pub(crate) fn nvml(&self) -> Option<&NvmlError> {
        match self {
            Self::Call { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The library is too old for this call.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.nvml(), Some(NvmlError::FunctionNotFound))
    }

    /// The library, or the driver below it, is too old for this call or for its version of the struct.
    pub(crate) fn is_too_new(&self) -> bool {
        let mismatch = matches!(self.nvml(), Some(NvmlError::UnexpectedVariant(VERSION_MISMATCH)));
        mismatch || self.is_absent()
    }

    /// The driver does not tell it, to nobody.
    pub(crate) fn is_unsaid(&self) -> bool {
        matches!(self.nvml(), Some(NvmlError::NotSupported | NvmlError::FunctionNotFound))
    }

    /// The driver does not tell it, to us or to anybody.
    pub(crate) fn is_denied(&self) -> bool {
        self.is_unsaid() || matches!(self.nvml(), Some(NvmlError::NoPermission))
    }

    /// What was asked about is not there, perhaps not any more: the driver refuses handles of what is gone as invalid.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.nvml(), Some(NvmlError::NotFound | NvmlError::InvalidArg))
    }

    /// As a snapshot carries it.
    pub fn fault(&self) -> Fault {
        Fault { kind: self.kind(), message: self.to_string() }
    }
}

/// NVML's return codes as words.
pub fn kind_of(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::Uninitialized => "Uninitialized",
        NvmlError::InvalidArg => "InvalidArgument",
        NvmlError::NotSupported => "NotSupported",
        NvmlError::NoPermission => "NoPermission",
        NvmlError::NotFound => "NotFound",
        NvmlError::DriverNotLoaded => "DriverNotLoaded",
        NvmlError::Timeout => "Timeout",
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => "FunctionNotFound",
        NvmlError::GpuLost => "GpuIsLost",
        NvmlError::ResetRequired => "ResetRequired",
        NvmlError::LibRmVersionMismatch => "LibRmVersionMismatch",
        NvmlError::InUse => "InUse",
        NvmlError::InsufficientMemory => "Memory",
        NvmlError::OperatingSystem => "OperatingSystem",
        NvmlError::UnexpectedVariant(code) => {
            UNNAMED.iter().find(|(known, ..)| known == code).map_or("Unknown", |(_, word, _)| word)
        }
        _ => "Unknown",
    }
}
