use mig_model::{Fault, IdentityError, ProfileError};
use nvml_wrapper::error::NvmlError;

use crate::library::LibraryError;

/// Something that NVML would not do, and what we were at.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No library, or one that does not load.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// NVML does not start.
    #[error("NVML does not start: {source}{}", advice(source))]
    Init {
        /// NVML's answer.
        source: NvmlError,
    },
    /// One call failed.
    #[error("{call} failed{}: {source}{}", of_gpu(*gpu), advice(source))]
    Call {
        /// NVML's function.
        call: &'static str,
        /// On which GPU, if on one.
        gpu: Option<u32>,
        /// NVML's answer.
        source: NvmlError,
    },
    /// The driver gave a UUID that cannot be one.
    #[error("the driver's answer makes no sense: {0}")]
    Identity(#[from] IdentityError),
    /// The driver gave a profile that cannot be one.
    #[error("the driver's answer makes no sense: {0}")]
    Profile(#[from] ProfileError),
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
}

fn of_gpu(gpu: Option<u32>) -> String {
    gpu.map(|index| format!(" on GPU {index}")).unwrap_or_default()
}

/// What the administrator can do about it.
fn advice(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::NoPermission => {
            " (reading MIG instances needs the mig/monitor capability: give the container /dev/nvidia-caps/nvidia-cap2, \
             with NVIDIA's runtime by NVIDIA_MIG_MONITOR_DEVICES=all)"
        }
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
            Self::Identity(_) | Self::Profile(_) | Self::Implausible { .. } | Self::UnknownProfile { .. } => "Nonsense",
        }
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
        _ => "Unknown",
    }
}
