//! The GPU that statements are tried on, and what they ask of it first.

use std::rc::Rc;

use crate::{
    call::{Verdict, broken, skip},
    code::Code,
    nvml::{ComputeInstance, ComputeProfile, Device, GPU_PROFILE_V2, GpuInstance, GpuProfile, Nvml},
};

/// Longer than any text of NVML's.
pub const TEXT: u32 = 96;
/// Far beyond any profile index there may ever be.
const INDICES: u32 = 64;
/// `NVML_COMPUTE_INSTANCE_PROFILE_COUNT` of every header so far is at most this.
const COMPUTE_INDICES: u32 = 16;

/// One GPU of an initialized library.
pub struct Gpu {
    /// The library.
    pub nvml: Rc<Nvml>,
    /// The GPU.
    pub device: Device,
    /// Its index.
    pub index: u32,
}

/// A profile that a GPU offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The index that it was found at.
    pub index: u32,
    /// Its name, without `MIG `.
    pub name: String,
    /// What it is.
    pub profile: GpuProfile,
}

/// A compute instance profile that a GPU instance offers.
#[derive(Clone, Debug)]
pub struct ComputeOffer {
    /// The index that it was found at.
    pub index: u32,
    /// Its name, without `MIG `.
    pub name: String,
    /// What it is.
    pub profile: ComputeProfile,
}

impl Gpu {
    /// Initializes the library and takes one GPU of it.
    pub fn open(nvml: Nvml, index: u32) -> Verdict<Self> {
        nvml.init().value()?;
        let count = nvml.count().value()?;
        if index >= count {
            return skip(format!("there is no GPU {index}"));
        }
        let device = nvml.by_index(index).value()?;
        Ok(Self { nvml: Rc::new(nvml), device, index })
    }

    /// The same GPU, looked up once more: a change of mode or a reset may have made its handle invalid.
    pub fn again(&self) -> Verdict<Self> {
        let device = self.nvml.by_index(self.index).value()?;
        Ok(Self { nvml: Rc::clone(&self.nvml), device, index: self.index })
    }

    /// Current and pending MIG mode, if it can have one.
    pub fn mode(&self) -> Verdict<Option<(u32, u32)>> {
        self.nvml.mig_mode(self.device).value_or(Code::NOT_SUPPORTED)
    }

    /// Goes on where MIG exists.
    pub fn capable(&self) -> Verdict<(u32, u32)> {
        self.mode()?.map_or_else(|| skip("the GPU has no MIG"), Ok)
    }

    /// Goes on where MIG mode is off.
    pub fn off(&self) -> Verdict {
        if self.capable()? == (0, 0) { Ok(()) } else { skip("MIG mode is on") }
    }

    /// Goes on where the GPU has MIG devices.
    pub fn cut(&self) -> Verdict {
        if self.capable()?.0 == 1 && !self.slices()?.is_empty() { Ok(()) } else { skip("the GPU is not cut") }
    }

    /// Goes on where there is no MIG.
    pub fn plain(&self) -> Verdict {
        if self.mode()?.is_none() { Ok(()) } else { skip("the GPU has MIG") }
    }

    /// Its UUID.
    pub fn uuid(&self) -> Verdict<String> {
        self.nvml.uuid(self.device, TEXT).value()
    }

    /// The driver's major version.
    pub fn driver_major(&self) -> Verdict<u32> {
        let version = self.nvml.driver_version(TEXT).value()?;
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        major.map_or_else(|| broken(format!("nvmlSystemGetDriverVersion: {version:?} is no version")), Ok)
    }

    /// The GPU instance profiles, in the order of their indices.
    pub fn offers(&self) -> Verdict<Vec<Offer>> {
        let mut offers = Vec::new();
        for index in 0..INDICES {
            let call = self.nvml.gpu_profile_v2(self.device, index, GPU_PROFILE_V2);
            if call.code()? == Code::INVALID_ARGUMENT {
                return Ok(offers);
            }
            if let Some((found, _)) = call.value_or(Code::NOT_SUPPORTED)? {
                offers.push(Offer { index, name: short(&found.name)?, profile: found.profile });
            }
        }
        broken(format!("nvmlDeviceGetGpuInstanceProfileInfoV: no index below {INDICES} is NVML_ERROR_INVALID_ARGUMENT"))
    }

    /// The offer with the fewest slices and the least memory, without extras.
    pub fn smallest(&self) -> Verdict<Offer> {
        let mut offers = self.offers()?;
        offers.retain(|offer| offer.name.ends_with("gb"));
        let least = offers.into_iter().min_by_key(|offer| (offer.profile.slices, offer.profile.memory_mb));
        least.map_or_else(|| broken("the GPU has no profile without extras"), Ok)
    }

    /// The offer that takes the whole GPU.
    pub fn whole(&self) -> Verdict<Offer> {
        let mut offers = self.offers()?;
        offers.retain(|offer| offer.name.ends_with("gb"));
        let most = offers.into_iter().max_by_key(|offer| offer.profile.slices);
        most.map_or_else(|| broken("the GPU has no profile without extras"), Ok)
    }

    /// The offer with most compute slices of which two fit side by side, or the largest that leaves some room.
    pub fn half(&self) -> Verdict<Offer> {
        let mut offers = self.offers()?;
        offers.retain(|offer| offer.name.ends_with("gb") && offer.profile.instances >= 2);
        let most = offers.into_iter().max_by_key(|offer| offer.profile.slices);
        most.map_or_else(|| skip("the GPU has no profile of which two fit"), Ok)
    }

    /// All GPU instances, with the profile of each.
    pub fn instances(&self) -> Verdict<Vec<(Offer, GpuInstance)>> {
        let mut found = Vec::new();
        for offer in self.offers()? {
            for instance in self.nvml.gpu_instances(self.device, offer.profile.id).value()? {
                found.push((offer.clone(), instance));
            }
        }
        Ok(found)
    }

    /// The compute instance profiles of a GPU instance.
    pub fn compute_offers(&self, instance: GpuInstance) -> Verdict<Vec<ComputeOffer>> {
        let mut offers = Vec::new();
        for index in 0..COMPUTE_INDICES {
            let call = self.nvml.compute_profile_v2(instance, index);
            if call.code()? == Code::INVALID_ARGUMENT {
                return Ok(offers);
            }
            if let Some(found) = call.value_or(Code::NOT_SUPPORTED)? {
                offers.push(ComputeOffer { index, name: short(&found.name)?, profile: found.profile });
            }
        }
        broken(format!(
            "nvmlGpuInstanceGetComputeInstanceProfileInfoV: no index below {COMPUTE_INDICES} is \
             NVML_ERROR_INVALID_ARGUMENT"
        ))
    }

    /// The compute profile that takes a whole GPU instance. 7g has two such on some GPUs: the first is the plain one.
    pub fn whole_compute(&self, instance: GpuInstance) -> Verdict<ComputeOffer> {
        let offers = self.compute_offers(instance)?;
        let most = offers.iter().map(|offer| offer.profile.slices).max();
        let whole = offers.into_iter().find(|offer| Some(offer.profile.slices) == most);
        whole.map_or_else(|| broken("the GPU instance has no compute instance profile"), Ok)
    }

    /// All compute instances of a GPU instance, with the profile of each.
    pub fn computes(&self, instance: GpuInstance) -> Verdict<Vec<(ComputeOffer, ComputeInstance)>> {
        let mut found = Vec::new();
        for offer in self.compute_offers(instance)? {
            for compute in self.nvml.compute_instances(instance, offer.profile.id).value()? {
                found.push((offer.clone(), compute));
            }
        }
        Ok(found)
    }

    /// The MIG devices, with their indices.
    pub fn slices(&self) -> Verdict<Vec<(u32, Device)>> {
        let mut found = Vec::new();
        for index in 0..self.nvml.max_mig_devices(self.device).value()? {
            if let Some(device) = self.nvml.mig_device(self.device, index).value_or(Code::NOT_FOUND)? {
                found.push((index, device));
            }
        }
        Ok(found)
    }

    /// The MIG device of a compute instance, by the ids of both.
    pub fn slice_of(&self, instance: u32, compute: u32) -> Verdict<Device> {
        for (_, device) in self.slices()? {
            let ids = (self.nvml.gpu_instance_id(device).value()?, self.nvml.compute_instance_id(device).value()?);
            if ids == (instance, compute) {
                return Ok(device);
            }
        }
        broken(format!("no MIG device has the GPU instance {instance} and compute instance {compute}"))
    }

    /// The UUIDs of the MIG devices.
    pub fn slice_uuids(&self) -> Verdict<Vec<String>> {
        self.slices()?.into_iter().map(|(_, device)| self.nvml.uuid(device, TEXT).value()).collect()
    }

    /// How many slices of memory the GPU has, as far as placements reach.
    pub fn memory_slices(&self) -> Verdict<u32> {
        let mut end = 0;
        for offer in self.offers()? {
            for place in self.nvml.placements(self.device, offer.profile.id).value()? {
                end = end.max(place.start.saturating_add(place.size));
            }
        }
        Ok(end)
    }
}

fn short(name: &str) -> Verdict<String> {
    let short = name.strip_prefix("MIG ").map(str::to_owned);
    short.map_or_else(|| broken(format!("profile name: expected \"MIG …\", got {name:?}")), Ok)
}

/// Whether a text is `GPU-` or `MIG-` and a UUID in lower case.
pub fn is_uuid(text: &str, prefix: &str) -> bool {
    let groups: Vec<&str> = text.strip_prefix(prefix).unwrap_or_default().split('-').collect();
    let hexadecimal = |group: &&str| group.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hexadecimal)
}
