//! The names of GPU instance profiles: the driver's own, or where it gives none, computed by NVIDIA's rule.

use std::collections::HashMap;

use mig_model::Profile;
use nvml_wrapper::error::NvmlError;

use crate::error::DriverError;
use crate::session::{Handle, ProfileInfo, Share};

/// What NVIDIA's tools append for the profile at each index of `nvmlDeviceGetGpuInstanceProfileInfo`.
const ATTRIBUTES: [&str; 18] =
    ["", "", "", "", "", "", "", "+me", "+me", "", "+gfx", "+gfx", "+gfx", "-me", "-me", "+me.all", "+me.all", "+gfx"];

/// Far beyond any header's count, so that a library that never ends its list does not hold us.
const MOST_PROFILES: u32 = 64;

/// A profile, and under which index the driver describes it.
type Listed = (u32, ProfileInfo);

/// A profile as the driver lists it, with its name.
pub(crate) struct KnownProfile {
    pub(crate) profile: Profile,
    pub(crate) index: u32,
    pub(crate) info: ProfileInfo,
}

/// What was asked once: profiles don't change while a driver runs. By the GPU's model, which must tell apart GPUs that
/// name their profiles differently.
#[derive(Default)]
pub(crate) struct ProfileNames {
    names: HashMap<(String, u32), Profile>,
    lists: HashMap<String, Vec<Listed>>,
}

impl ProfileNames {
    /// The name of a profile id.
    pub(crate) fn by_id(&mut self, model: &str, gpu: &Handle<'_>, index: u32, id: u32) -> Result<Profile, DriverError> {
        let key = (model.to_owned(), id);
        if let Some(profile) = self.names.get(&key) {
            return Ok(profile.clone());
        }
        let own = gpu.profile_by_id(id).ok().as_ref().and_then(own_name);
        let profile = match own {
            Some(profile) => profile,
            // A driver that has no such call, or no name to give.
            None => match self.list(model, gpu)?.iter().find(|(_, info)| info.id == id) {
                Some((index, info)) => name_of(gpu, *index, info)?,
                None => return Err(DriverError::UnknownProfile { gpu: index, id }),
            },
        };
        self.names.insert(key, profile.clone());
        Ok(profile)
    }

    /// The only profile that has this share of the GPU: for those whom the driver does not tell an instance's profile.
    /// Some GPUs have several that differ in nothing but graphics; then there is no answer.
    pub(crate) fn by_share(
        &mut self,
        model: &str,
        gpu: &Handle<'_>,
        share: Share,
    ) -> Result<Option<Profile>, DriverError> {
        let mut matching = self.list(model, gpu)?.iter().filter(|(_, info)| info.share == share);
        match (matching.next(), matching.next()) {
            (Some((index, info)), None) => name_of(gpu, *index, info).map(Some),
            _ => Ok(None),
        }
    }

    fn list(&mut self, model: &str, gpu: &Handle<'_>) -> Result<&[Listed], DriverError> {
        if !self.lists.contains_key(model) {
            self.lists.insert(model.to_owned(), profiles(gpu)?);
        }
        Ok(self.lists.get(model).map(Vec::as_slice).unwrap_or_default())
    }
}

/// All GPU instance profiles, in the driver's order.
pub(crate) fn known_profiles(gpu: &Handle<'_>) -> Result<Vec<KnownProfile>, DriverError> {
    let named = |(index, info): Listed| Ok(KnownProfile { profile: name_of(gpu, index, &info)?, index, info });
    profiles(gpu)?.into_iter().map(named).collect()
}

fn profiles(gpu: &Handle<'_>) -> Result<Vec<Listed>, DriverError> {
    let mut profiles = Vec::new();
    for index in 0..MOST_PROFILES {
        let info = match gpu.profile_by_index(index) {
            // Pretended drivers say that it is not supported where a real one would lack the function.
            Err(error) if error.is_too_new() || error.is_unsaid() => gpu.unnamed_profile_by_index(index),
            other => other,
        };
        match info {
            Ok(info) => profiles.push((index, info)),
            Err(error) => match error.nvml() {
                // The GPU has no such profile; those after it may exist.
                Some(NvmlError::NotSupported) => {}
                // The driver knows no index this high.
                Some(NvmlError::InvalidArg) => break,
                _ => return Err(error),
            },
        }
    }
    Ok(profiles)
}

fn name_of(gpu: &Handle<'_>, index: u32, info: &ProfileInfo) -> Result<Profile, DriverError> {
    if let Some(profile) = own_name(info) {
        return Ok(profile);
    }
    let attributes = usize::try_from(index).ok().and_then(|index| ATTRIBUTES.get(index)).copied().unwrap_or_default();
    let slices = u8::try_from(info.share.slices).unwrap_or_default();
    Ok(Profile::computed(slices, info.share.memory_mib, gpu.memory_bytes()?, attributes)?)
}

fn own_name(info: &ProfileInfo) -> Option<Profile> {
    let name = info.name.as_deref()?;
    name.strip_prefix("MIG ").unwrap_or(name).parse().ok()
}
