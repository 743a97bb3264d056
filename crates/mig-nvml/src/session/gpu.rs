//! GPUs, and what MIG devices say of themselves.

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_MIG_ENABLE, nvmlDeviceAttributes_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t,
};

use super::call::{Plain as _, text, versioned};
use super::{Handle, Object, Share};
use crate::error::DriverError;

/// Where on the PCI bus, and what.
pub(crate) struct Pci {
    pub(crate) device: u32,
    pub(crate) subsystem: u32,
    /// Domain, bus and device as NVML writes them.
    pub(crate) bus: String,
}

/// What a MIG device has.
pub(crate) struct PartAttributes {
    /// Its GPU instance's.
    pub(crate) share: Share,
    /// Its own.
    pub(crate) compute_slices: u32,
    /// Its own.
    pub(crate) multiprocessors: u32,
}

impl<'s> Handle<'s> {
    pub(crate) fn uuid(&self) -> Result<String, DriverError> {
        self.fill_text("nvmlDeviceGetUUID", &self.session.functions().nvmlDeviceGetUUID)
    }

    pub(crate) fn name(&self) -> Result<String, DriverError> {
        self.fill_text("nvmlDeviceGetName", &self.session.functions().nvmlDeviceGetName)
    }

    pub(crate) fn index(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetIndex", &self.session.functions().nvmlDeviceGetIndex)
    }

    pub(crate) fn minor(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetMinorNumber", &self.session.functions().nvmlDeviceGetMinorNumber)
    }

    pub(crate) fn pci(&self) -> Result<Pci, DriverError> {
        let info: nvmlPciInfo_t =
            self.fill("nvmlDeviceGetPciInfo_v3", &self.session.functions().nvmlDeviceGetPciInfo_v3)?;
        Ok(Pci { device: info.pciDeviceId, subsystem: info.pciSubSystemId, bus: text(&info.busId) })
    }

    pub(crate) fn memory_bytes(&self) -> Result<u64, DriverError> {
        let info: nvmlMemory_t =
            self.fill("nvmlDeviceGetMemoryInfo", &self.session.functions().nvmlDeviceGetMemoryInfo)?;
        Ok(info.total)
    }

    /// Of its memory, what the driver keeps.
    pub(crate) fn reserved_memory_bytes(&self) -> Result<u64, DriverError> {
        let unfilled = nvmlMemory_v2_t { version: versioned::<nvmlMemory_v2_t>(2), ..nvmlMemory_v2_t::zero() };
        let function = &self.session.functions().nvmlDeviceGetMemoryInfo_v2;
        Ok(self.fill_from("nvmlDeviceGetMemoryInfo_v2", function, unfilled)?.reserved)
    }

    pub(crate) fn architecture(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetArchitecture", &self.session.functions().nvmlDeviceGetArchitecture)
    }

    pub(crate) fn brand(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetBrand", &self.session.functions().nvmlDeviceGetBrand)
    }

    pub(crate) fn cores(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetNumGpuCores", &self.session.functions().nvmlDeviceGetNumGpuCores)
    }

    pub(crate) fn vbios(&self) -> Result<String, DriverError> {
        self.fill_text("nvmlDeviceGetVbiosVersion", &self.session.functions().nvmlDeviceGetVbiosVersion)
    }

    pub(crate) fn default_power_limit(&self) -> Result<u32, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetPowerManagementDefaultLimit;
        self.fill("nvmlDeviceGetPowerManagementDefaultLimit", function)
    }

    /// CUDA's, major and minor.
    pub(crate) fn compute_capability(&self) -> Result<(i32, i32), DriverError> {
        let function = &self.session.functions().nvmlDeviceGetCudaComputeCapability;
        self.fill_two("nvmlDeviceGetCudaComputeCapability", function)
    }

    /// MIG mode now and after the next reset.
    pub(crate) fn mig_mode(&self) -> Result<(bool, bool), DriverError> {
        let (current, pending) =
            self.fill_two("nvmlDeviceGetMigMode", &self.session.functions().nvmlDeviceGetMigMode)?;
        Ok((current == NVML_DEVICE_MIG_ENABLE, pending == NVML_DEVICE_MIG_ENABLE))
    }

    /// Switches MIG on or off. The driver notes the wish in any case; within is what it says of bringing it into force.
    pub(crate) fn set_mig_mode(&self, enabled: bool) -> Result<Result<(), NvmlError>, DriverError> {
        let function = &self.session.functions().nvmlDeviceSetMigMode;
        let activation: u32 = self.fill_by("nvmlDeviceSetMigMode", function, enabled.into())?;
        Ok(nvml_try(activation))
    }

    pub(crate) fn max_mig_devices(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetMaxMigDeviceCount", &self.session.functions().nvmlDeviceGetMaxMigDeviceCount)
    }

    pub(crate) fn mig_device(&self, index: u32) -> Result<Handle<'s>, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetMigDeviceHandleByIndex;
        let raw = self.fill_by("nvmlDeviceGetMigDeviceHandleByIndex", function, index)?;
        Ok(Object { raw, ..*self })
    }

    pub(crate) fn gpu_instance_id(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetGpuInstanceId", &self.session.functions().nvmlDeviceGetGpuInstanceId)
    }

    pub(crate) fn compute_instance_id(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetComputeInstanceId", &self.session.functions().nvmlDeviceGetComputeInstanceId)
    }

    pub(crate) fn attributes(&self) -> Result<PartAttributes, DriverError> {
        let a: nvmlDeviceAttributes_t =
            self.fill("nvmlDeviceGetAttributes_v2", &self.session.functions().nvmlDeviceGetAttributes_v2)?;
        let engines =
            [a.sharedCopyEngineCount, a.sharedDecoderCount, a.sharedEncoderCount, a.sharedJpegCount, a.sharedOfaCount];
        let share = Share { slices: a.gpuInstanceSliceCount, memory_mib: a.memorySizeMB, engines };
        Ok(PartAttributes {
            share,
            compute_slices: a.computeInstanceSliceCount,
            multiprocessors: a.multiprocessorCount,
        })
    }
}
