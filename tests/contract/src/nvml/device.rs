//! Devices.

use std::{
    ffi::{c_int, c_uint},
    ptr::null_mut,
};

use nvml_wrapper_sys::bindings as sys;

use super::{Device, Memory, Nvml, Pci, Process, text, zeroed};
use crate::{call::Call, code::Code};

/// Devices.
impl Nvml {
    /// `nvmlDeviceGetName`
    pub fn name(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetName(device.0))
    }

    /// `nvmlDeviceGetUUID`
    pub fn uuid(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetUUID(device.0))
    }

    /// `nvmlDeviceGetVbiosVersion`
    pub fn vbios(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetVbiosVersion(device.0))
    }

    /// `nvmlDeviceGetGspFirmwareVersion`
    pub fn gsp_version(&self, device: Device) -> Call<String> {
        let mut buffer = [0; 256];
        let code = code!(self, nvmlDeviceGetGspFirmwareVersion(device.0, buffer.as_mut_ptr()));
        Call::new("nvmlDeviceGetGspFirmwareVersion", code, text(&buffer))
    }

    /// `nvmlDeviceGetGspFirmwareMode`: enabled, and by default.
    pub fn gsp_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut enabled, mut default) = (0, 0);
        let code = code!(self, nvmlDeviceGetGspFirmwareMode(device.0, &raw mut enabled, &raw mut default));
        Call::new("nvmlDeviceGetGspFirmwareMode", code, (enabled, default))
    }

    /// `nvmlDeviceGetEccMode`: current and pending.
    pub fn ecc_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut current, mut pending) = (0, 0);
        let code = code!(self, nvmlDeviceGetEccMode(device.0, &raw mut current, &raw mut pending));
        Call::new("nvmlDeviceGetEccMode", code, (current, pending))
    }

    /// `nvmlDeviceGetPersistenceMode`
    pub fn persistence_mode(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetPersistenceMode(device.0; 0))
    }

    /// `nvmlDeviceGetComputeMode`
    pub fn compute_mode(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetComputeMode(device.0; 0))
    }

    /// `nvmlDeviceGetPowerUsage`, in milliwatts.
    pub fn power(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetPowerUsage(device.0; 0))
    }

    /// `nvmlDeviceGetCudaComputeCapability`
    pub fn compute_capability(&self, device: Device) -> Call<(i32, i32)> {
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        let code = code!(self, nvmlDeviceGetCudaComputeCapability(device.0, &raw mut major, &raw mut minor));
        Call::new("nvmlDeviceGetCudaComputeCapability", code, (major, minor))
    }

    /// `nvmlDeviceGetPciInfo_v3`, and the short form of the address that is in it.
    pub fn pci(&self, device: Device) -> Call<(Pci, String)> {
        let info = get!(self, nvmlDeviceGetPciInfo_v3(device.0; zeroed::<sys::nvmlPciInfo_t>()));
        info.map(|info| {
            let pci = Pci {
                domain: info.domain,
                bus: info.bus,
                device: info.device,
                device_id: info.pciDeviceId,
                subsystem_id: info.pciSubSystemId,
                bus_id: text(&info.busId),
            };
            (pci, text(&info.busIdLegacy))
        })
    }

    /// `nvmlDeviceGetPciInfoExt`
    pub fn pci_ext(&self, device: Device, version: u32) -> Call<Pci> {
        let start = sys::nvmlPciInfoExt_t { version, ..zeroed() };
        get!(self, nvmlDeviceGetPciInfoExt(device.0; start)).on(format_args!("version {version:#x}")).map(|info| Pci {
            domain: info.domain,
            bus: info.bus,
            device: info.device,
            device_id: info.pciDeviceId,
            subsystem_id: info.pciSubSystemId,
            bus_id: text(&info.busId),
        })
    }

    /// `nvmlDeviceGetMemoryInfo`, whose first version knows nothing of what is reserved.
    pub fn memory(&self, device: Device) -> Call<Memory> {
        let info = get!(self, nvmlDeviceGetMemoryInfo(device.0; zeroed::<sys::nvmlMemory_t>()));
        info.map(|info| Memory { version: 0, total: info.total, reserved: 0, free: info.free, used: info.used })
    }

    /// `nvmlDeviceGetMemoryInfo_v2`
    pub fn memory_v2(&self, device: Device, version: u32) -> Call<Memory> {
        let start = sys::nvmlMemory_v2_t { version, ..zeroed() };
        let info = get!(self, nvmlDeviceGetMemoryInfo_v2(device.0; start)).on(format_args!("version {version:#x}"));
        info.map(|info| Memory {
            version: info.version,
            total: info.total,
            reserved: info.reserved,
            free: info.free,
            used: info.used,
        })
    }

    /// `nvmlDeviceGetComputeRunningProcesses_v3`, with room enough.
    pub fn processes(&self, device: Device) -> Call<Vec<Process>> {
        let mut list = [zeroed::<sys::nvmlProcessInfo_t>(); 1024];
        let mut count: c_uint = 1024;
        let code = code!(self, nvmlDeviceGetComputeRunningProcesses_v3(device.0, &raw mut count, list.as_mut_ptr()));
        let count = usize::try_from(count).unwrap_or(list.len());
        let processes = list.iter().take(count).map(|info| Process {
            pid: info.pid,
            gpu_instance: info.gpuInstanceId,
            compute_instance: info.computeInstanceId,
        });
        Call::new("nvmlDeviceGetComputeRunningProcesses_v3", code, processes.collect())
    }

    /// `nvmlDeviceGetComputeRunningProcesses_v3`, with no room at all: how much it would take.
    pub fn processes_without_room(&self, device: Device) -> Call<u32> {
        let mut count: c_uint = 0;
        let code = code!(self, nvmlDeviceGetComputeRunningProcesses_v3(device.0, &raw mut count, null_mut()));
        Call::new("nvmlDeviceGetComputeRunningProcesses_v3", code, count).on("no room")
    }
}
