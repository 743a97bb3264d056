//! The names of GPU instance profiles: the driver's own, or where it gives none, computed by NVIDIA's rule.

use std::collections::HashMap;

use mig_model::Profile;
use nvml_wrapper::error::NvmlError;

use crate::error::DriverError;
use crate::session::{Handle, ProfileInfo};

/// What NVIDIA's tools append for the profile at each index of `nvmlDeviceGetGpuInstanceProfileInfo`.
const ATTRIBUTES: [&str; 18] =
    ["", "", "", "", "", "", "", "+me", "+me", "", "+gfx", "+gfx", "+gfx", "-me", "-me", "+me.all", "+me.all", "+gfx"];

/// Far beyond any header's count, so that a library that never ends its list does not hold us.
const MOST_PROFILES: u32 = 64;

/// Names by GPU model and profile id, asked for once: they don't change while a driver runs.
#[derive(Default)]
pub(crate) struct ProfileNames {
    known: HashMap<(String, u32), Profile>,
}

impl ProfileNames {
    /// The name of a profile id. `model` must tell apart GPUs that name their profiles differently.
    pub(crate) fn name(&mut self, model: &str, gpu: &Handle<'_>, index: u32, id: u32) -> Result<Profile, DriverError> {
        let key = (model.to_owned(), id);
        if let Some(profile) = self.known.get(&key) {
            return Ok(profile.clone());
        }
        let profile = ask(gpu, index, id)?;
        self.known.insert(key, profile.clone());
        Ok(profile)
    }
}

fn ask(gpu: &Handle<'_>, index: u32, id: u32) -> Result<Profile, DriverError> {
    if let Ok(info) = gpu.profile_by_id(id)
        && let Some(profile) = own_name(&info)
    {
        return Ok(profile);
    }
    // A driver that has no such call, or no name to give.
    for (number, profile_index) in (0..MOST_PROFILES).enumerate() {
        let info = match gpu.profile_by_index(profile_index) {
            Err(error) if is_absent(&error) => gpu.unnamed_profile_by_index(profile_index),
            other => other,
        };
        match info {
            Ok(info) if info.id == id => {
                let attributes = ATTRIBUTES.get(number).copied().unwrap_or_default();
                return own_name(&info).map_or_else(|| computed(gpu, &info, attributes), Ok);
            }
            Ok(_) => {}
            // The GPU has no such profile; those after it may exist.
            Err(DriverError::Call { source: NvmlError::NotSupported, .. }) => {}
            // The driver knows no index this high.
            Err(DriverError::Call { source: NvmlError::InvalidArg, .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Err(DriverError::UnknownProfile { gpu: index, id })
}

fn own_name(info: &ProfileInfo) -> Option<Profile> {
    let name = info.name.as_deref()?;
    name.strip_prefix("MIG ").unwrap_or(name).parse().ok()
}

fn computed(gpu: &Handle<'_>, info: &ProfileInfo, attributes: &str) -> Result<Profile, DriverError> {
    let slices = u8::try_from(info.slices).unwrap_or_default();
    Ok(Profile::computed(slices, info.memory_mib, gpu.memory_bytes()?, attributes)?)
}

/// Whether the library, or the driver below it, is too old for a call or for its version of the struct.
fn is_absent(error: &DriverError) -> bool {
    /// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`, which nvml-wrapper does not name.
    const VERSION_MISMATCH: u32 = 25;
    matches!(
        error,
        DriverError::Call { source: NvmlError::FunctionNotFound | NvmlError::UnexpectedVariant(VERSION_MISMATCH), .. }
    )
}
