//! Which device is offered under which resource name: NVIDIA's strategies `none`, `single` and `mixed`.
//!
//! One difference from NVIDIA's plugin: a GPU that does not fit the strategy is left out and named, and the others are
//! offered; theirs refuses the whole node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::inventory::{Fault, Gpu, NodeInventory, Placement};
use crate::profile::Profile;
use crate::resource::ResourceName;
use crate::sharing::{Replica, Terms};

/// How MIG devices are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// MIG is ignored: every GPU is offered whole.
    None,
    /// All MIG devices of the node are alike and are offered as whole GPUs are.
    Single,
    /// Each profile is a resource of its own; GPUs that are not cut are offered whole.
    #[default]
    Mixed,
}

/// A text that is no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MIG strategy, expected none, single or mixed")]
pub struct StrategyError(String);

impl FromStr for Strategy {
    type Err = StrategyError;

    fn from_str(text: &str) -> Result<Self, StrategyError> {
        match text {
            "none" => Ok(Self::None),
            "single" => Ok(Self::Single),
            "mixed" => Ok(Self::Mixed),
            _ => Err(StrategyError(text.to_owned())),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Single => "single",
            Self::Mixed => "mixed",
        })
    }
}

/// One thing that a container can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// What the kubelet calls it: the UUID, and for a replica `<uuid>::<n>`.
    pub id: String,
    /// The UUID of the MIG device or GPU: the hardware, which replicas have in common.
    pub uuid: String,
    /// Which of the parts in which it is shared; nothing if it is not.
    pub replica: Option<Replica>,
    /// The UUID of the GPU that it is, or is a part of.
    pub gpu: String,
    /// The MIG device's kind; nothing for a whole GPU.
    pub profile: Option<Profile>,
    /// The memory slices that it, or its GPU instance, lies in, where that is known.
    pub placement: Option<Placement>,
    /// NUMA node of the GPU.
    pub numa_node: Option<u32>,
    /// Where the driver's files and indices have it.
    pub address: Address,
    /// Why it can't be used at present.
    pub fault: Option<Fault>,
}

/// By which numbers the driver knows a device; none of them outlives a change as its UUID does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// NVML's index of the GPU.
    pub gpu_index: u32,
    /// `/dev/nvidia<minor>` of the GPU, where the driver says.
    pub gpu_minor: Option<u32>,
    /// Of a MIG device.
    pub mig: Option<MigAddress>,
}

/// By which numbers the driver knows a MIG device on its GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigAddress {
    /// NVML's index among the GPU's MIG devices, where it is known.
    pub index: Option<u32>,
    /// The GPU instance's id.
    pub gpu_instance: u32,
    /// The compute instance's id in it.
    pub compute_instance: u32,
}

/// What a node offers, and what it has but does not offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// The driver's version, which is a part of the names of its files.
    pub driver_version: String,
    /// By resource, each in the order of GPUs and placements.
    pub resources: BTreeMap<ResourceName, Vec<Device>>,
    /// GPUs of which nothing, or not all, is offered.
    pub left_out: Vec<LeftOut>,
}

/// A GPU that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// NVML's index.
    pub gpu: u32,
    /// Why, and what to do, in one line.
    pub reason: String,
}

/// Names every device of the node.
pub fn assign(inventory: &NodeInventory, terms: &Terms) -> Offers {
    let mut offers = Offers { driver_version: inventory.driver.version.clone(), ..Offers::default() };
    // Those that are gone have an index that is another's by now.
    for gpu in inventory.unreadable.iter().filter(|gpu| gpu.uuid.is_none()) {
        offers.leave_out(gpu.index, gpu.fault.message.clone());
    }
    match terms.strategy {
        Strategy::None => inventory.gpus.iter().for_each(|gpu| offers.add_whole(gpu, terms)),
        Strategy::Mixed => inventory.gpus.iter().for_each(|gpu| offers.add_mixed(gpu, terms)),
        Strategy::Single => offers.add_single(inventory, terms),
    }
    offers.resources = terms.time_slicing.share(offers.resources);
    offers
}

// === impl Offers ===

impl Offers {
    fn leave_out(&mut self, gpu: u32, reason: impl Into<String>) {
        self.left_out.push(LeftOut { gpu, reason: reason.into() });
    }

    fn add_whole(&mut self, gpu: &Gpu, terms: &Terms) {
        // Whoever has the whole of a GPU that is cut has the slice that is ill, too.
        let parts = || gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
        let of_a_part = || {
            parts().find_map(|part| {
                let fault = part.fault.as_ref()?;
                Some(Fault {
                    kind: fault.kind,
                    message: format!("{} ({}): {}", part.uuid, part.profile, fault.message),
                })
            })
        };
        let device = Device {
            id: gpu.uuid.to_string(),
            uuid: gpu.uuid.to_string(),
            replica: None,
            gpu: gpu.uuid.to_string(),
            profile: None,
            placement: None,
            numa_node: gpu.numa_node,
            address: Address { gpu_index: gpu.index, gpu_minor: gpu.minor, mig: None },
            fault: gpu.fault.clone().or_else(of_a_part),
        };
        let named = Terms::named(&terms.gpu_names, &gpu.name);
        let name = named.unwrap_or_else(|| ResourceName::gpu(&terms.domain));
        self.resources.entry(name).or_default().push(device);
    }

    fn add_mixed(&mut self, gpu: &Gpu, terms: &Terms) {
        if !gpu.mig.is_enabled() {
            return self.add_whole(gpu, terms);
        }
        if mig_devices(gpu).next().is_none() {
            self.leave_out(gpu.index, NOTHING_CUT);
        }
        for device in mig_devices(gpu) {
            let Some(profile) = &device.profile else { continue };
            let named = Terms::named(&terms.mig_names, &profile.to_string());
            let name = named.unwrap_or_else(|| ResourceName::mig(&terms.domain, profile));
            self.resources.entry(name).or_default().push(device);
        }
    }

    fn add_single(&mut self, inventory: &NodeInventory, terms: &Terms) {
        let Some(profile) = prevailing_profile(inventory) else {
            for gpu in &inventory.gpus {
                match gpu.mig.is_enabled() {
                    // NVIDIA's plugin offers whole GPUs only on nodes where none has MIG on; here the others stay of use.
                    false => self.add_whole(gpu, terms),
                    true if gpu.instances.is_empty() => self.leave_out(gpu.index, NOTHING_CUT),
                    true => self.leave_out(gpu.index, unlike(gpu)),
                }
            }
            return;
        };
        for gpu in &inventory.gpus {
            if !gpu.mig.is_enabled() {
                self.leave_out(
                    gpu.index,
                    format!("MIG is off here, but the strategy single offers the node's {profile} devices: cut this GPU too, or use mixed"),
                );
            } else if gpu.instances.is_empty() {
                self.leave_out(gpu.index, NOTHING_CUT);
            } else if let Some(other) = mig_devices(gpu).filter_map(|d| d.profile).find(|p| *p != profile) {
                self.leave_out(
                    gpu.index,
                    format!("has {other}, but the strategy single offers the node's {profile} devices: cut this GPU alike, or use mixed"),
                );
            } else {
                let named = Terms::named(&terms.mig_names, &profile.to_string());
                let name = named.unwrap_or_else(|| ResourceName::gpu(&terms.domain));
                self.resources.entry(name).or_default().extend(mig_devices(gpu));
            }
        }
    }
}

const NOTHING_CUT: &str =
    "MIG is on and nothing is cut: create instances (nvidia-smi mig -cgi PROFILE -C), or turn MIG off";

/// Why a GPU has nothing that is alike.
fn unlike(gpu: &Gpu) -> String {
    let profiles: BTreeSet<String> = mig_devices(gpu).filter_map(|d| d.profile).map(|p| p.to_string()).collect();
    let profiles = profiles.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "has {profiles}, but the strategy single offers devices of one profile: cut this GPU into one kind, or use mixed"
    )
}

/// The profile of most of the GPUs that are cut into one kind; of the first such GPU if it's a draw.
fn prevailing_profile(inventory: &NodeInventory) -> Option<Profile> {
    let uniform = |gpu: &Gpu| {
        let mut profiles = mig_devices(gpu).filter_map(|device| device.profile);
        let first = profiles.next().filter(|_| gpu.mig.is_enabled())?;
        profiles.all(|other| other == first).then_some(first)
    };
    let kinds: Vec<Profile> = inventory.gpus.iter().filter_map(uniform).collect();
    let votes = |profile: &Profile| kinds.iter().filter(|kind| *kind == profile).count();
    kinds.iter().rev().max_by_key(|profile| votes(profile)).cloned()
}

/// The GPU's MIG devices by placement.
fn mig_devices(gpu: &Gpu) -> impl Iterator<Item = Device> {
    let parts = gpu.instances.iter().flat_map(|instance| instance.compute_instances.iter().map(move |c| (instance, c)));
    parts.map(|(instance, compute)| {
        let ids = MigAddress { index: compute.index, gpu_instance: instance.id, compute_instance: compute.id };
        Device {
            id: compute.uuid.to_string(),
            uuid: compute.uuid.to_string(),
            replica: None,
            gpu: gpu.uuid.to_string(),
            profile: Some(compute.profile.clone()),
            placement: instance.placement,
            numa_node: gpu.numa_node,
            address: Address { gpu_index: gpu.index, gpu_minor: gpu.minor, mig: Some(ids) },
            fault: gpu.fault.clone().or_else(|| compute.fault.clone()),
        }
    })
}

#[cfg(test)]
mod tests;
