//! GPU instances.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;

use super::{
    Device, GPU_PROFILE_V2, GPU_PROFILE_V3, GpuInstance, GpuInstanceInfo, GpuProfile, Nvml, Placement, ROOM, Versioned,
    text, zeroed,
};
use crate::{call::Call, code::Code};

macro_rules! gpu_profile {
    ($info:expr) => {
        GpuProfile {
            id: $info.id,
            slices: $info.sliceCount,
            instances: $info.instanceCount,
            multiprocessors: $info.multiprocessorCount,
            copy: $info.copyEngineCount,
            decoder: $info.decoderCount,
            encoder: $info.encoderCount,
            jpeg: $info.jpegCount,
            ofa: $info.ofaCount,
            memory_mb: $info.memorySizeMB,
        }
    };
}

/// GPU instances.
impl Nvml {
    /// `nvmlDeviceGetGpuInstanceProfileInfo`, and whether peer-to-peer is supported.
    pub fn gpu_profile(&self, device: Device, index: u32) -> Call<(GpuProfile, u32)> {
        let start = zeroed::<sys::nvmlGpuInstanceProfileInfo_t>();
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfo(device.0, index; start));
        info.map(|info| (gpu_profile!(info), info.isP2pSupported)).on(format_args!("profile {index}"))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoV` with its second version, and whether peer-to-peer is supported.
    pub fn gpu_profile_v2(&self, device: Device, index: u32, version: u32) -> Call<(Versioned<GpuProfile>, u32)> {
        let start = sys::nvmlGpuInstanceProfileInfo_v2_t { version, ..zeroed() };
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index; start));
        let info = info.on(format_args!("profile {index}, version {version:#x}"));
        info.map(|info| (versioned!(info, gpu_profile), info.isP2pSupported))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoV` with its third version.
    pub fn gpu_profile_v3(&self, device: Device, index: u32) -> Call<Versioned<GpuProfile>> {
        let mut info = sys::nvmlGpuInstanceProfileInfo_v3_t { version: GPU_PROFILE_V3, ..zeroed() };
        let code = code!(self, nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index, (&raw mut info).cast()));
        Call::new("nvmlDeviceGetGpuInstanceProfileInfoV", code, versioned!(info, gpu_profile))
            .on(format_args!("profile {index}, version {GPU_PROFILE_V3:#x}"))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoByIdV` with its second version.
    pub fn gpu_profile_by_id(&self, device: Device, id: u32) -> Call<Versioned<GpuProfile>> {
        let start = sys::nvmlGpuInstanceProfileInfo_v2_t { version: GPU_PROFILE_V2, ..zeroed() };
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfoByIdV(device.0, id; start));
        info.map(|info| versioned!(info, gpu_profile)).on(format_args!("profile id {id}"))
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements_v2` without a list: how long it is.
    pub fn placement_count(&self, device: Device, profile: u32) -> Call<u32> {
        let count = get!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, profile, null_mut(); 0));
        count.on(format_args!("profile id {profile} and no list"))
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements_v2`
    pub fn placements(&self, device: Device, profile: u32) -> Call<Vec<Placement>> {
        let list: Call<Vec<sys::nvmlGpuInstancePlacement_t>> =
            get_list!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, profile));
        list.on(format_args!("profile id {profile}"))
            .map(|list| list.iter().map(|place| Placement { start: place.start, size: place.size }).collect())
    }

    /// `nvmlDeviceGetGpuInstanceRemainingCapacity`
    pub fn remaining(&self, device: Device, profile: u32) -> Call<u32> {
        get!(self, nvmlDeviceGetGpuInstanceRemainingCapacity(device.0, profile; 0))
            .on(format_args!("profile id {profile}"))
    }

    /// `nvmlDeviceGetGpuInstances`
    pub fn gpu_instances(&self, device: Device, profile: u32) -> Call<Vec<GpuInstance>> {
        let list: Call<Vec<sys::nvmlGpuInstance_t>> = get_list!(self, nvmlDeviceGetGpuInstances(device.0, profile));
        list.on(format_args!("profile id {profile}")).map(|list| list.into_iter().map(GpuInstance).collect())
    }

    /// `nvmlDeviceGetGpuInstanceById`
    pub fn gpu_instance(&self, device: Device, id: u32) -> Call<GpuInstance> {
        get!(self, nvmlDeviceGetGpuInstanceById(device.0, id; null_mut())).map(GpuInstance).on(format_args!("id {id}"))
    }

    /// `nvmlGpuInstanceGetInfo`
    pub fn gpu_instance_info(&self, instance: GpuInstance) -> Call<GpuInstanceInfo> {
        let start = zeroed::<sys::nvmlGpuInstanceInfo_t>();
        get!(self, nvmlGpuInstanceGetInfo(instance.0; start)).map(|info| GpuInstanceInfo {
            device: Device(info.device),
            id: info.id,
            profile: info.profileId,
            placement: Placement { start: info.placement.start, size: info.placement.size },
        })
    }

    /// `nvmlDeviceCreateGpuInstance`
    pub fn create_gpu_instance(&self, device: Device, profile: u32) -> Call<GpuInstance> {
        let made = get!(self, nvmlDeviceCreateGpuInstance(device.0, profile; null_mut()));
        made.map(GpuInstance).on(format_args!("profile id {profile}"))
    }

    /// `nvmlDeviceCreateGpuInstanceWithPlacement`
    pub fn create_gpu_instance_at(&self, device: Device, profile: u32, place: Placement) -> Call<GpuInstance> {
        let place = sys::nvmlGpuInstancePlacement_t { start: place.start, size: place.size };
        let made =
            get!(self, nvmlDeviceCreateGpuInstanceWithPlacement(device.0, profile, &raw const place; null_mut()));
        made.map(GpuInstance).on(format_args!("profile id {profile} at {}:{}", place.start, place.size))
    }

    /// `nvmlGpuInstanceDestroy`
    pub fn destroy_gpu_instance(&self, instance: GpuInstance) -> Call<()> {
        Call::new("nvmlGpuInstanceDestroy", code!(self, nvmlGpuInstanceDestroy(instance.0)), ())
    }
}
