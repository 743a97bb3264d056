//! The profiles of GPU instances and of compute instances, and where their instances may lie.

use mig_model::Placement;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstanceProfileInfo_t, nvmlDevice_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
};

use super::call::{FillBy, FillList, Plain, Symbol, present, text, versioned};
use super::{Handle, InstanceHandle, Object};
use crate::error::DriverError;

/// Far more places than an instance has to lie at.
const MOST_PLACEMENTS: u32 = 1024;

/// `NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`, the only one there is.
const SHARED_ENGINES: u32 = 0;

/// What a GPU instance has, as the driver describes its profile and each MIG device in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) slices: u32,
    pub(crate) memory_mib: u64,
    /// Copy engines, decoders, encoders, JPEG and optical-flow units.
    pub(crate) engines: [u32; 5],
}

/// A GPU instance profile as the driver describes it.
pub(crate) struct ProfileInfo {
    pub(crate) id: u32,
    pub(crate) share: Share,
    pub(crate) multiprocessors: u32,
    pub(crate) max_instances: u32,
    /// Drivers that know version 2 of the call give a name.
    pub(crate) name: Option<String>,
}

/// A compute instance profile as the driver describes it.
pub(crate) struct ComputeProfileInfo {
    pub(crate) id: u32,
    pub(crate) slices: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) max_instances: u32,
}

impl Handle<'_> {
    /// A GPU instance profile by its id: drivers of R575 and later.
    pub(crate) fn profile_by_id(&self, id: u32) -> Result<ProfileInfo, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetGpuInstanceProfileInfoByIdV;
        self.profile_v2("nvmlDeviceGetGpuInstanceProfileInfoByIdV", function, id)
    }

    /// A GPU instance profile by its index: drivers of R510 and later.
    pub(crate) fn profile_by_index(&self, index: u32) -> Result<ProfileInfo, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetGpuInstanceProfileInfoV;
        self.profile_v2("nvmlDeviceGetGpuInstanceProfileInfoV", function, index)
    }

    fn profile_v2<E>(
        &self,
        name: &'static str,
        function: &Symbol<FillBy<nvmlDevice_t, nvmlGpuInstanceProfileInfo_v2_t>, E>,
        which: u32,
    ) -> Result<ProfileInfo, DriverError> {
        type Info = nvmlGpuInstanceProfileInfo_v2_t;
        let info = self.fill_by_from(name, function, which, Info { version: versioned::<Info>(2), ..Info::zero() })?;
        let name = Some(text(&info.name)).filter(|name| !name.is_empty());
        let engines = [info.copyEngineCount, info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount];
        let share = Share { slices: info.sliceCount, memory_mib: info.memorySizeMB, engines };
        let (multiprocessors, max_instances) = (info.multiprocessorCount, info.instanceCount);
        Ok(ProfileInfo { id: info.id, share, multiprocessors, max_instances, name })
    }

    /// A GPU instance profile by its index, without a name: every driver that knows MIG.
    pub(crate) fn unnamed_profile_by_index(&self, index: u32) -> Result<ProfileInfo, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetGpuInstanceProfileInfo;
        let info: nvmlGpuInstanceProfileInfo_t =
            self.fill_by("nvmlDeviceGetGpuInstanceProfileInfo", function, index)?;
        let engines = [info.copyEngineCount, info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount];
        let share = Share { slices: info.sliceCount, memory_mib: info.memorySizeMB, engines };
        let (multiprocessors, max_instances) = (info.multiprocessorCount, info.instanceCount);
        Ok(ProfileInfo { id: info.id, share, multiprocessors, max_instances, name: None })
    }

    /// Where instances of a profile may lie, whether something lies there now or not.
    pub(crate) fn placements(&self, profile_id: u32) -> Result<Vec<Placement>, DriverError> {
        let functions = self.session.functions();
        let newer = &functions.nvmlDeviceGetGpuInstancePossiblePlacements_v2;
        let found = match self.counted_list("nvmlDeviceGetGpuInstancePossiblePlacements_v2", newer, profile_id) {
            Err(error) if error.is_absent() => {
                let older = &functions.nvmlDeviceGetGpuInstancePossiblePlacements;
                self.counted_list("nvmlDeviceGetGpuInstancePossiblePlacements", older, profile_id)
            }
            other => other,
        }?;
        Ok(found.iter().map(|at| Placement { start: at.start, size: at.size }).collect())
    }

    /// How many more instances of a profile there is room for.
    pub(crate) fn remaining(&self, profile_id: u32) -> Result<u32, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetGpuInstanceRemainingCapacity;
        self.fill_by("nvmlDeviceGetGpuInstanceRemainingCapacity", function, profile_id)
    }
}

impl InstanceHandle<'_> {
    /// A compute instance profile by its index.
    pub(crate) fn compute_profile_by_index(&self, index: u32) -> Result<ComputeProfileInfo, DriverError> {
        let mut info = nvmlComputeInstanceProfileInfo_t::zero();
        let call = || {
            let function = present(&self.session.functions().nvmlGpuInstanceGetComputeInstanceProfileInfo)?;
            // SAFETY: `raw` came from this session, which is alive; the pointer is to a live, writable struct of the type
            // that this function fills.
            nvml_try(unsafe { function(self.raw, index, SHARED_ENGINES, &raw mut info) })
        };
        self.timed("nvmlGpuInstanceGetComputeInstanceProfileInfo", call)?;
        let (multiprocessors, max_instances) = (info.multiprocessorCount, info.instanceCount);
        Ok(ComputeProfileInfo { id: info.id, slices: info.sliceCount, multiprocessors, max_instances })
    }

    /// Where compute instances of a profile may lie in this GPU instance.
    pub(crate) fn compute_placements(&self, profile_id: u32) -> Result<Vec<Placement>, DriverError> {
        let function = &self.session.functions().nvmlGpuInstanceGetComputeInstancePossiblePlacements;
        let found = self.counted_list("nvmlGpuInstanceGetComputeInstancePossiblePlacements", function, profile_id)?;
        Ok(found.iter().map(|at| Placement { start: at.start, size: at.size }).collect())
    }
}

impl<H: Copy> Object<'_, H> {
    /// A function that says without a list how long it would be. The answer does not change while a driver runs.
    fn counted_list<T: Plain, E>(
        &self,
        name: &'static str,
        function: &Symbol<FillList<H, T>, E>,
        which: u32,
    ) -> Result<Vec<T>, DriverError> {
        let mut count = 0;
        let call = || {
            let function = present(function)?;
            // SAFETY: `raw` came from this session, which is alive; NVML documents that the list may be null, and
            // `count` is live and writable.
            match nvml_try(unsafe { function(self.raw, which, std::ptr::null_mut(), &raw mut count) }) {
                Err(NvmlError::InsufficientSize(_)) => Ok(()),
                other => other,
            }
        };
        self.timed(name, call)?;
        if count > MOST_PLACEMENTS {
            return Err(DriverError::Implausible { what: "placements of one profile", count });
        }
        if count == 0 { Ok(Vec::new()) } else { self.fill_list(name, function, which, count) }
    }
}
