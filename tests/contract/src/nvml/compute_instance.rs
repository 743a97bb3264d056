//! Compute instances.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;

use super::{
    COMPUTE_PROFILE_V2, COMPUTE_PROFILE_V3, ComputeInstance, ComputeInstanceInfo, ComputeProfile, Device, GpuInstance,
    Nvml, Placement, ROOM, Versioned, text, zeroed,
};
use crate::{call::Call, code::Code};

macro_rules! compute_profile {
    ($info:expr) => {
        ComputeProfile {
            id: $info.id,
            slices: $info.sliceCount,
            instances: $info.instanceCount,
            multiprocessors: $info.multiprocessorCount,
            copy: $info.sharedCopyEngineCount,
            decoder: $info.sharedDecoderCount,
            encoder: $info.sharedEncoderCount,
            jpeg: $info.sharedJpegCount,
            ofa: $info.sharedOfaCount,
        }
    };
}

/// Compute instances.
impl Nvml {
    /// `nvmlGpuInstanceGetComputeInstanceProfileInfo`
    pub fn compute_profile(&self, instance: GpuInstance, index: u32) -> Call<ComputeProfile> {
        let start = zeroed::<sys::nvmlComputeInstanceProfileInfo_t>();
        let info = get!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo(instance.0, index, 0; start));
        info.map(|info| compute_profile!(info)).on(format_args!("compute profile {index}"))
    }

    /// `nvmlGpuInstanceGetComputeInstanceProfileInfoV` with its second version.
    pub fn compute_profile_v2(&self, instance: GpuInstance, index: u32) -> Call<Versioned<ComputeProfile>> {
        let start = sys::nvmlComputeInstanceProfileInfo_v2_t { version: COMPUTE_PROFILE_V2, ..zeroed() };
        let info = get!(self, nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance.0, index, 0; start));
        info.map(|info| versioned!(info, compute_profile)).on(format_args!("compute profile {index}, version 2"))
    }

    /// `nvmlGpuInstanceGetComputeInstanceProfileInfoV` with its third version.
    pub fn compute_profile_v3(&self, instance: GpuInstance, index: u32) -> Call<Versioned<ComputeProfile>> {
        let mut info = sys::nvmlComputeInstanceProfileInfo_v3_t { version: COMPUTE_PROFILE_V3, ..zeroed() };
        let code =
            code!(self, nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance.0, index, 0, (&raw mut info).cast()));
        Call::new("nvmlGpuInstanceGetComputeInstanceProfileInfoV", code, versioned!(info, compute_profile))
            .on(format_args!("compute profile {index}, version 3"))
    }

    /// `nvmlGpuInstanceGetComputeInstancePossiblePlacements`
    pub fn compute_placements(&self, instance: GpuInstance, profile: u32) -> Call<Vec<Placement>> {
        let list: Call<Vec<sys::nvmlComputeInstancePlacement_t>> =
            get_list!(self, nvmlGpuInstanceGetComputeInstancePossiblePlacements(instance.0, profile));
        list.on(format_args!("compute profile id {profile}"))
            .map(|list| list.iter().map(|place| Placement { start: place.start, size: place.size }).collect())
    }

    /// `nvmlGpuInstanceGetComputeInstanceRemainingCapacity`
    pub fn compute_remaining(&self, instance: GpuInstance, profile: u32) -> Call<u32> {
        get!(self, nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance.0, profile; 0))
            .on(format_args!("compute profile id {profile}"))
    }

    /// `nvmlGpuInstanceGetComputeInstances`
    pub fn compute_instances(&self, instance: GpuInstance, profile: u32) -> Call<Vec<ComputeInstance>> {
        let list: Call<Vec<sys::nvmlComputeInstance_t>> =
            get_list!(self, nvmlGpuInstanceGetComputeInstances(instance.0, profile));
        list.on(format_args!("compute profile id {profile}"))
            .map(|list| list.into_iter().map(ComputeInstance).collect())
    }

    /// `nvmlGpuInstanceGetComputeInstanceById`
    pub fn compute_instance(&self, instance: GpuInstance, id: u32) -> Call<ComputeInstance> {
        let found = get!(self, nvmlGpuInstanceGetComputeInstanceById(instance.0, id; null_mut()));
        found.map(ComputeInstance).on(format_args!("id {id}"))
    }

    /// `nvmlComputeInstanceGetInfo_v2`
    pub fn compute_instance_info(&self, compute: ComputeInstance) -> Call<ComputeInstanceInfo> {
        let start = zeroed::<sys::nvmlComputeInstanceInfo_t>();
        get!(self, nvmlComputeInstanceGetInfo_v2(compute.0; start)).map(|info| ComputeInstanceInfo {
            device: Device(info.device),
            gpu_instance: GpuInstance(info.gpuInstance),
            id: info.id,
            profile: info.profileId,
            placement: Placement { start: info.placement.start, size: info.placement.size },
        })
    }

    /// `nvmlGpuInstanceCreateComputeInstance`
    pub fn create_compute_instance(&self, instance: GpuInstance, profile: u32) -> Call<ComputeInstance> {
        let made = get!(self, nvmlGpuInstanceCreateComputeInstance(instance.0, profile; null_mut()));
        made.map(ComputeInstance).on(format_args!("compute profile id {profile}"))
    }

    /// `nvmlGpuInstanceCreateComputeInstanceWithPlacement`
    pub fn create_compute_instance_at(
        &self,
        instance: GpuInstance,
        profile: u32,
        place: Placement,
    ) -> Call<ComputeInstance> {
        let at = sys::nvmlComputeInstancePlacement_t { start: place.start, size: place.size };
        let made = get!(self, nvmlGpuInstanceCreateComputeInstanceWithPlacement(instance.0, profile, &raw const at; null_mut()));
        made.map(ComputeInstance).on(format_args!("compute profile id {profile} at {}:{}", place.start, place.size))
    }

    /// `nvmlComputeInstanceDestroy`
    pub fn destroy_compute_instance(&self, compute: ComputeInstance) -> Call<()> {
        Call::new("nvmlComputeInstanceDestroy", code!(self, nvmlComputeInstanceDestroy(compute.0)), ())
    }
}
