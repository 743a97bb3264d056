//! GPU instances and compute instances: which there are, how they come and go.

use mig_model::Placement;
use nvml_wrapper::error::nvml_try;
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstanceInfo_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
};

use super::call::present;
use super::{ComputeHandle, Handle, InstanceHandle, Object};
use crate::error::DriverError;

/// Far more instances of one profile than any GPU or GPU instance takes, so that there is always room for NVML's lists.
const MOST_INSTANCES: u32 = 64;

/// A GPU instance as the driver describes it.
pub(crate) struct InstanceInfo {
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    /// In memory slices.
    pub(crate) placement: Placement,
}

/// A compute instance as the driver describes it.
pub(crate) struct ComputeInfo {
    pub(crate) id: u32,
    /// In compute slices of its GPU instance.
    pub(crate) placement: Placement,
}

impl<'s> Handle<'s> {
    /// The GPU instances of a profile.
    pub(crate) fn instances(
        &self,
        profile_id: u32,
        max_instances: u32,
    ) -> Result<Vec<InstanceHandle<'s>>, DriverError> {
        let room = room(max_instances)?;
        let function = &self.session.functions().nvmlDeviceGetGpuInstances;
        let found = self.fill_list("nvmlDeviceGetGpuInstances", function, profile_id, room)?;
        Ok(found.into_iter().map(|raw| Object { session: self.session, raw, gpu: self.gpu }).collect())
    }

    /// A GPU instance by its id.
    pub(crate) fn instance(&self, id: u32) -> Result<InstanceHandle<'s>, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetGpuInstanceById;
        let raw = self.fill_by("nvmlDeviceGetGpuInstanceById", function, id)?;
        Ok(Object { session: self.session, raw, gpu: self.gpu })
    }

    /// Creates a GPU instance without compute instances.
    pub(crate) fn create_instance(&self, profile_id: u32, at: Placement) -> Result<InstanceHandle<'s>, DriverError> {
        let placement = nvmlGpuInstancePlacement_t { start: at.start, size: at.size };
        let mut raw: nvmlGpuInstance_t = std::ptr::null_mut();
        let call = || {
            let function = present(&self.session.functions().nvmlDeviceCreateGpuInstanceWithPlacement)?;
            // SAFETY: `self.raw` came from this session, which is alive; the placement is live and only read, the handle
            // is live and writable.
            nvml_try(unsafe { function(self.raw, profile_id, &raw const placement, &raw mut raw) })
        };
        self.timed("nvmlDeviceCreateGpuInstanceWithPlacement", call)?;
        Ok(Object { session: self.session, raw, gpu: self.gpu })
    }
}

impl<'s> InstanceHandle<'s> {
    pub(crate) fn info(&self) -> Result<InstanceInfo, DriverError> {
        let info: nvmlGpuInstanceInfo_t =
            self.fill("nvmlGpuInstanceGetInfo", &self.session.functions().nvmlGpuInstanceGetInfo)?;
        let placement = Placement { start: info.placement.start, size: info.placement.size };
        Ok(InstanceInfo { id: info.id, profile_id: info.profileId, placement })
    }

    /// The compute instances of a profile.
    pub(crate) fn compute_instances(
        &self,
        profile_id: u32,
        max_instances: u32,
    ) -> Result<Vec<ComputeHandle<'s>>, DriverError> {
        let room = room(max_instances)?;
        let function = &self.session.functions().nvmlGpuInstanceGetComputeInstances;
        let found = self.fill_list("nvmlGpuInstanceGetComputeInstances", function, profile_id, room)?;
        Ok(found.into_iter().map(|raw| Object { session: self.session, raw, gpu: self.gpu }).collect())
    }

    /// A compute instance by its id.
    pub(crate) fn compute_instance(&self, id: u32) -> Result<ComputeHandle<'s>, DriverError> {
        let function = &self.session.functions().nvmlGpuInstanceGetComputeInstanceById;
        let raw = self.fill_by("nvmlGpuInstanceGetComputeInstanceById", function, id)?;
        Ok(Object { session: self.session, raw, gpu: self.gpu })
    }

    /// Creates a compute instance where the driver finds room.
    pub(crate) fn create_compute_instance(&self, profile_id: u32) -> Result<ComputeHandle<'s>, DriverError> {
        let function = &self.session.functions().nvmlGpuInstanceCreateComputeInstance;
        let raw = self.fill_by("nvmlGpuInstanceCreateComputeInstance", function, profile_id)?;
        Ok(Object { session: self.session, raw, gpu: self.gpu })
    }

    /// Destroys it; it must have no compute instances.
    pub(crate) fn destroy(self) -> Result<(), DriverError> {
        self.act("nvmlGpuInstanceDestroy", &self.session.functions().nvmlGpuInstanceDestroy)
    }
}

impl ComputeHandle<'_> {
    pub(crate) fn info(&self) -> Result<ComputeInfo, DriverError> {
        let info: nvmlComputeInstanceInfo_t =
            self.fill("nvmlComputeInstanceGetInfo_v2", &self.session.functions().nvmlComputeInstanceGetInfo_v2)?;
        let placement = Placement { start: info.placement.start, size: info.placement.size };
        Ok(ComputeInfo { id: info.id, placement })
    }

    pub(crate) fn destroy(self) -> Result<(), DriverError> {
        self.act("nvmlComputeInstanceDestroy", &self.session.functions().nvmlComputeInstanceDestroy)
    }
}

/// For a list of instances NVML asks for as much room as the profile has instances at most.
fn room(max_instances: u32) -> Result<u32, DriverError> {
    if max_instances > MOST_INSTANCES {
        return Err(DriverError::Implausible { what: "instances of one profile", count: max_instances });
    }
    Ok(MOST_INSTANCES)
}
