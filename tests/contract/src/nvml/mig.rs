//! MIG mode and MIG devices.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;

use super::{Attributes, Device, Nvml, zeroed};
use crate::{call::Call, code::Code};

/// MIG mode and MIG devices.
impl Nvml {
    /// `nvmlDeviceGetMigMode`: current and pending.
    pub fn mig_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut current, mut pending) = (0, 0);
        let code = code!(self, nvmlDeviceGetMigMode(device.0, &raw mut current, &raw mut pending));
        Call::new("nvmlDeviceGetMigMode", code, (current, pending))
    }

    /// `nvmlDeviceSetMigMode`: the activation's status.
    pub fn set_mig_mode(&self, device: Device, mode: u32) -> Call<Code> {
        get!(self, nvmlDeviceSetMigMode(device.0, mode; 0)).map(Code).on(format_args!("mode {mode}"))
    }

    /// `nvmlDeviceGetMigDeviceHandleByIndex`
    pub fn mig_device(&self, device: Device, index: u32) -> Call<Device> {
        let found = get!(self, nvmlDeviceGetMigDeviceHandleByIndex(device.0, index; null_mut()));
        found.map(Device).on(format_args!("index {index}"))
    }

    /// `nvmlDeviceGetDeviceHandleFromMigDeviceHandle`
    pub fn parent(&self, device: Device) -> Call<Device> {
        get!(self, nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device.0; null_mut())).map(Device)
    }

    /// `nvmlDeviceGetAttributes_v2`
    pub fn attributes(&self, device: Device) -> Call<Attributes> {
        let start = zeroed::<sys::nvmlDeviceAttributes_t>();
        get!(self, nvmlDeviceGetAttributes_v2(device.0; start)).map(|known| Attributes {
            multiprocessors: known.multiprocessorCount,
            copy: known.sharedCopyEngineCount,
            decoder: known.sharedDecoderCount,
            encoder: known.sharedEncoderCount,
            jpeg: known.sharedJpegCount,
            ofa: known.sharedOfaCount,
            gpu_slices: known.gpuInstanceSliceCount,
            compute_slices: known.computeInstanceSliceCount,
            memory_mb: known.memorySizeMB,
        })
    }
}
