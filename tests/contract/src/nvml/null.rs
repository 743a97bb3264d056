//! Calls that give NULL where something should be filled.

use std::ptr::{null, null_mut};

use super::{Device, Nvml};
use crate::{call::Call, code::Code};

/// Calls with NULL where something should be filled, one by one.
macro_rules! nulls {
    ($nvml:ident; $($function:ident($($argument:expr),* $(,)?);)*) => {
        vec![$(Call::new(stringify!($function), code!($nvml, $function($($argument),*)), ())),*]
    };
}

impl Nvml {
    /// Functions of no device, given NULL for what they fill.
    pub fn nulls(&self) -> Vec<Call<()>> {
        nulls! { self;
            nvmlSystemGetDriverVersion(null_mut(), 80);
            nvmlSystemGetNVMLVersion(null_mut(), 80);
            nvmlSystemGetCudaDriverVersion_v2(null_mut());
            nvmlDeviceGetCount_v2(null_mut());
            nvmlDeviceGetHandleByIndex_v2(0, null_mut());
            nvmlDeviceGetHandleByUUID(null(), null_mut());
            nvmlDeviceGetHandleByPciBusId_v2(null(), null_mut());
            nvmlEventSetCreate(null_mut());
        }
    }

    /// Functions of a device, given NULL for what they fill.
    pub fn nulls_of(&self, device: Device) -> Vec<Call<()>> {
        let mut number = 0;
        nulls! { self;
            nvmlDeviceGetIndex(device.0, null_mut());
            nvmlDeviceGetName(device.0, null_mut(), 96);
            nvmlDeviceGetUUID(device.0, null_mut(), 96);
            nvmlDeviceGetMinorNumber(device.0, null_mut());
            nvmlDeviceGetBrand(device.0, null_mut());
            nvmlDeviceGetArchitecture(device.0, null_mut());
            nvmlDeviceGetPciInfo_v3(device.0, null_mut());
            nvmlDeviceGetMemoryInfo(device.0, null_mut());
            nvmlDeviceGetSupportedEventTypes(device.0, null_mut());
            nvmlDeviceGetMaxMigDeviceCount(device.0, null_mut());
            nvmlDeviceIsMigDeviceHandle(device.0, null_mut());
            nvmlDeviceGetMigMode(device.0, null_mut(), null_mut());
            nvmlDeviceGetMigMode(device.0, &raw mut number, null_mut());
            nvmlDeviceGetMigMode(device.0, null_mut(), &raw mut number);
        }
    }

    /// Functions of a GPU instance profile, given NULL for what they fill.
    pub fn nulls_of_profile(&self, device: Device, index: u32, id: u32) -> Vec<Call<()>> {
        let mut count = 0;
        nulls! { self;
            nvmlDeviceGetGpuInstanceProfileInfo(device.0, index, null_mut());
            nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index, null_mut());
            nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, id, null_mut(), null_mut());
            nvmlDeviceGetGpuInstanceRemainingCapacity(device.0, id, null_mut());
            nvmlDeviceGetGpuInstances(device.0, id, null_mut(), &raw mut count);
            nvmlDeviceGetGpuInstances(device.0, id, null_mut(), null_mut());
        }
    }

    /// Functions that make something, given NULL for what they made.
    pub fn nulls_of_making(&self, device: Device, id: u32) -> Vec<Call<()>> {
        let mut made = null_mut();
        nulls! { self;
            nvmlDeviceCreateGpuInstance(device.0, id, null_mut());
            nvmlDeviceCreateGpuInstanceWithPlacement(device.0, id, null(), &raw mut made);
        }
    }
}
