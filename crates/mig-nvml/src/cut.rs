//! How one GPU is cut, completely: every GPU instance with every compute instance in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use mig_model::{ComputeInstance, ComputeProfile, GpuInstance, Profile};
use nvml_wrapper::error::NvmlError;

use crate::error::DriverError;
use crate::names::KnownProfile;
use crate::read::{MigDevice, mig_devices, said, sort};
use crate::session::{ComputeProfileInfo, Handle, InstanceHandle};

/// Beyond the header's last index. What a GPU instance does not have is refused in more than one way, so that a refusal
/// does not end the list.
const COMPUTE_PROFILE_INDICES: u32 = 16;

/// How often to look when somebody else changes the GPU meanwhile.
const ATTEMPTS: u32 = 3;

/// A GPU's instances.
#[derive(Default)]
pub(crate) struct Cut {
    /// By placement.
    pub(crate) instances: Vec<GpuInstance>,
    /// Into what they can be cut, by the id of their profile.
    pub(crate) compute_profiles: BTreeMap<u32, Vec<KnownComputeProfile>>,
}

/// A compute instance profile as the driver lists it, with its name.
pub(crate) struct KnownComputeProfile {
    pub(crate) profile: Profile,
    pub(crate) index: u32,
    pub(crate) info: ComputeProfileInfo,
}

/// Reads the instances of a GPU that is cut.
pub(crate) fn read_cut(gpu: &Handle<'_>, profiles: &[KnownProfile]) -> Result<Cut, DriverError> {
    let mut attempt = 1;
    loop {
        match read_once(gpu, profiles) {
            Err(error)
                if attempt < ATTEMPTS && (error.is_gone() || matches!(error, DriverError::Contradiction { .. })) =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

fn read_once(gpu: &Handle<'_>, profiles: &[KnownProfile]) -> Result<Cut, DriverError> {
    let devices = mig_devices(gpu)?;
    let mut cut = Cut::default();
    for known in profiles {
        for handle in gpu.instances(known.info.id, known.info.max_instances)? {
            let info = handle.info()?;
            if cut.instances.iter().any(|other| other.id == info.id) {
                continue;
            }
            let compute_profiles = match cut.compute_profiles.entry(known.info.id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(known_compute_profiles(&handle, &known.profile)?),
            };
            let compute_instances = compute_instances(&handle, info.id, compute_profiles, &devices)?;
            let (profile, placement) = (known.profile.clone(), Some(info.placement));
            cut.instances.push(GpuInstance { id: info.id, profile, placement, compute_instances });
        }
    }
    for MigDevice { gpu_instance, compute_instance, uuid, .. } in devices {
        let is_it = |of: &&GpuInstance| of.id == gpu_instance;
        let within = cut.instances.iter().find(is_it).map(|of| of.compute_instances.as_slice()).unwrap_or_default();
        if !within.iter().any(|compute| compute.id == compute_instance) {
            let what = format!(
                "{uuid} is compute instance {compute_instance} of GPU instance {gpu_instance}, which it does not list"
            );
            return Err(DriverError::Contradiction { gpu: gpu.gpu_index(), what });
        }
    }
    sort(&mut cut.instances);
    Ok(cut)
}

fn compute_instances(
    instance: &InstanceHandle<'_>,
    gpu_instance: u32,
    profiles: &[KnownComputeProfile],
    devices: &[MigDevice<'_>],
) -> Result<Vec<ComputeInstance>, DriverError> {
    let mut found: Vec<ComputeInstance> = Vec::new();
    for known in profiles {
        for handle in instance.compute_instances(known.info.id, known.info.max_instances)? {
            let info = handle.info()?;
            if found.iter().any(|other| other.id == info.id) {
                continue;
            }
            let stands_for_it =
                |device: &&MigDevice<'_>| (device.gpu_instance, device.compute_instance) == (gpu_instance, info.id);
            let Some(device) = devices.iter().find(stands_for_it) else {
                let what =
                    format!("no MIG device stands for compute instance {} of GPU instance {gpu_instance}", info.id);
                return Err(DriverError::Contradiction { gpu: instance.gpu_index(), what });
            };
            let (profile, uuid) = (known.profile.clone(), device.uuid.clone());
            found.push(ComputeInstance {
                id: info.id,
                profile,
                uuid,
                index: None,
                placement: Some(info.placement),
                fault: None,
            });
        }
    }
    Ok(found)
}

/// What a GPU instance can be cut into, in the driver's order. Two may have one name: index 8 is a second way to take all
/// of a 7g instance, and index 7 of one slice; the first of a name is the usual one.
pub(crate) fn known_compute_profiles(
    instance: &InstanceHandle<'_>,
    of: &Profile,
) -> Result<Vec<KnownComputeProfile>, DriverError> {
    let mut known = Vec::new();
    for index in 0..COMPUTE_PROFILE_INDICES {
        let info = match instance.compute_profile_by_index(index) {
            Ok(info) => info,
            Err(error) if matches!(error.nvml(), Some(NvmlError::NotSupported | NvmlError::InvalidArg)) => continue,
            Err(error) => return Err(error),
        };
        // The agent names compute instances by their slices too, so both say the same.
        let slices = u8::try_from(info.slices).unwrap_or(u8::MAX).min(of.slices());
        known.push(KnownComputeProfile { profile: of.with_compute_slices(slices)?, index, info });
    }
    Ok(known)
}

/// The same as the planner takes it: each name once, with placements. Nothing where the driver does not say them, as
/// drivers before R535 do not.
pub(crate) fn compute_offers(
    instance: &InstanceHandle<'_>,
    known: &[KnownComputeProfile],
) -> Result<Vec<ComputeProfile>, DriverError> {
    let mut offers: Vec<ComputeProfile> = Vec::new();
    for KnownComputeProfile { profile, info, .. } in known {
        if offers.iter().any(|offer| offer.profile == *profile) {
            continue;
        }
        let Some(placements) = said(instance.compute_placements(info.id))? else { return Ok(Vec::new()) };
        let ComputeProfileInfo { id, slices, multiprocessors, max_instances } = *info;
        offers.push(ComputeProfile {
            profile: profile.clone(),
            id,
            slices,
            multiprocessors,
            max_instances,
            placements,
        });
    }
    Ok(offers)
}
