//! On what terms devices are offered: under which names, and how many containers may share one. NVIDIA's `resources` and
//! `sharing.timeSlicing`, of which their plugin reads `resources`, `rename` and `devices`, and ignores them.

use std::collections::BTreeMap;
use std::fmt;

use crate::resource::{ResourceDomain, ResourceName};
use crate::strategy::{Device, Strategy};

/// A list with more devices than this times a node's slices would be more than a kubelet reads at once.
pub const MOST_REPLICAS: u32 = 512;

/// Everything that decides what a node's devices are called, and how often each is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How MIG devices are named where no pattern says it.
    pub strategy: Strategy,
    /// What stands before the slash.
    pub domain: ResourceDomain,
    /// Names for whole GPUs, by the product's name.
    pub gpu_names: Vec<NamePattern>,
    /// Names for MIG devices, by the profile's name.
    pub mig_names: Vec<NamePattern>,
    /// Which devices are shared.
    pub time_slicing: TimeSlicing,
}

/// `*` stands for any characters; the whole name must match, and the first pattern that does wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// Of a product's or profile's name.
    pub pattern: String,
    /// What it is offered as.
    pub name: ResourceName,
}

/// Devices that several containers use in turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeSlicing {
    /// Whether shared devices get a name of their own, which ends in `.shared`, where no `rename` says another.
    pub rename_by_default: bool,
    /// Whether a container may have one replica at most: two of one device are no more than one.
    pub fail_requests_greater_than_one: bool,
    /// A device is shared as the first says that names it.
    pub resources: Vec<SharedResource>,
}

/// How the devices of one resource are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedResource {
    /// The resource as it is called unshared.
    pub name: ResourceName,
    /// By how many.
    pub replicas: u32,
    /// What it is called then.
    pub rename: Option<ResourceName>,
    /// Which of its devices.
    pub devices: SharedDevices,
}

/// Some of a resource's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedDevices {
    /// Every one.
    All,
    /// The first so many, by GPU and placement.
    Count(usize),
    /// These.
    List(Vec<DeviceReference>),
}

/// A device, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceReference {
    /// A GPU by NVML's index, and every slice of it.
    Gpu(u32),
    /// A slice by NVML's indices: `0:1`.
    Slice(u32, u32),
    /// A slice, or a GPU and every slice of it.
    Uuid(String),
    /// A slice as drivers before R470 called it: `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`.
    Instance {
        /// The UUID of the GPU.
        gpu: String,
        /// The GPU instance's id.
        gpu_instance: u32,
        /// The compute instance's id in it.
        compute_instance: u32,
    },
}

/// One of the parts in which a shared device is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// From 0.
    pub number: u32,
    /// A container gets this and no other replica.
    pub alone: bool,
}

/// What a label says of a shared resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) replicas: u32,
    /// Whether the shared ones have a name of their own.
    pub(crate) renamed: bool,
}

impl Terms {
    /// As without any configuration file.
    pub fn plain(strategy: Strategy, domain: ResourceDomain) -> Self {
        Self { strategy, domain, gpu_names: Vec::new(), mig_names: Vec::new(), time_slicing: TimeSlicing::default() }
    }

    /// What a pattern says the thing is called.
    pub(crate) fn named(patterns: &[NamePattern], thing: &str) -> Option<ResourceName> {
        patterns.iter().find(|pattern| pattern.matches(thing)).map(|pattern| pattern.name.clone())
    }

    /// How the devices of a resource are shared; the first that is said of it.
    pub(crate) fn shares(&self, resource: &ResourceName) -> Option<Shares> {
        let shared = self.time_slicing.resources.iter().find(|shared| shared.name == *resource)?;
        let renamed = self.time_slicing.shared_name(shared) != *resource;
        Some(Shares { replicas: shared.replicas, renamed })
    }

    /// Names under `time_slicing` that nothing on this node has, and those in lists that none of the resource's devices has.
    pub fn unmatched(&self, offered: &BTreeMap<ResourceName, Vec<Device>>) -> Vec<String> {
        let mut unmatched = Vec::new();
        for shared in &self.time_slicing.resources {
            let own = [&shared.name, &self.time_slicing.shared_name(shared)].map(|name| offered.get(name));
            if own.iter().all(Option::is_none) {
                unmatched.push(shared.name.to_string());
                continue;
            }
            let SharedDevices::List(list) = &shared.devices else { continue };
            let is_there =
                |named: &&DeviceReference| own.iter().flatten().any(|of| of.iter().any(|it| named.names(it)));
            unmatched.extend(
                list.iter().filter(|named| !is_there(named)).map(|named| format!("{named} of {}", shared.name)),
            );
        }
        unmatched
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::plain(Strategy::default(), ResourceDomain::default())
    }
}

impl NamePattern {
    /// Whether the whole text fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl TimeSlicing {
    /// What the shared ones are called.
    pub fn shared_name(&self, shared: &SharedResource) -> ResourceName {
        match &shared.rename {
            Some(name) => name.clone(),
            None if self.rename_by_default => shared.name.shared(),
            None => shared.name.clone(),
        }
    }

    /// Offers what is shared in parts, under its new name.
    pub(crate) fn share(&self, resources: BTreeMap<ResourceName, Vec<Device>>) -> BTreeMap<ResourceName, Vec<Device>> {
        let mut offered: BTreeMap<ResourceName, Vec<Device>> = BTreeMap::new();
        for (name, devices) in resources {
            for (place, device) in devices.into_iter().enumerate() {
                let shared = self.resources.iter().find(|shared| shared.name == name && shared.has(place, &device));
                match shared {
                    None => offered.entry(name.clone()).or_default().push(device),
                    Some(shared) => {
                        let parts = offered.entry(self.shared_name(shared)).or_default();
                        let alone = self.fail_requests_greater_than_one;
                        parts.extend((0..shared.replicas).map(|number| Device {
                            id: format!("{}::{number}", device.uuid),
                            replica: Some(Replica { number, alone }),
                            ..device.clone()
                        }));
                    }
                }
            }
        }
        offered
    }
}

impl SharedResource {
    fn has(&self, place: usize, device: &Device) -> bool {
        match &self.devices {
            SharedDevices::All => true,
            SharedDevices::Count(count) => place < *count,
            SharedDevices::List(list) => list.iter().any(|reference| reference.names(device)),
        }
    }
}

impl DeviceReference {
    fn names(&self, device: &Device) -> bool {
        let address = &device.address;
        match self {
            Self::Gpu(index) => address.gpu_index == *index,
            Self::Slice(gpu, slice) => {
                address.gpu_index == *gpu && address.mig.is_some_and(|mig| mig.index == Some(*slice))
            }
            Self::Uuid(uuid) => device.uuid == *uuid || device.gpu == *uuid,
            Self::Instance { gpu, gpu_instance, compute_instance } => {
                let ids = address.mig.map(|mig| (mig.gpu_instance, mig.compute_instance));
                device.gpu == *gpu && ids == Some((*gpu_instance, *compute_instance))
            }
        }
    }
}

impl fmt::Display for DeviceReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(index) => write!(f, "{index}"),
            Self::Slice(gpu, slice) => write!(f, "{gpu}:{slice}"),
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Instance { gpu, gpu_instance, compute_instance } => {
                write!(f, "MIG-{gpu}/{gpu_instance}/{compute_instance}")
            }
        }
    }
}

impl std::str::FromStr for DeviceReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = if let Some((gpu, ids)) = text.strip_prefix("MIG-").and_then(|text| text.split_once('/')) {
            let ids = ids.split_once('/').and_then(|(one, two)| one.parse().ok().zip(two.parse().ok()));
            ids.filter(|_| gpu.starts_with("GPU-")).map(|(gpu_instance, compute_instance)| Self::Instance {
                gpu: gpu.to_owned(),
                gpu_instance,
                compute_instance,
            })
        } else if text.starts_with("GPU-") || text.starts_with("MIG-") {
            Some(Self::Uuid(text.to_owned()))
        } else if let Some((gpu, slice)) = text.split_once(':') {
            gpu.parse().ok().zip(slice.parse().ok()).map(|(gpu, slice)| Self::Slice(gpu, slice))
        } else {
            text.parse().ok().map(Self::Gpu)
        };
        let shown: String = text.chars().take(80).collect();
        read.ok_or_else(|| format!("{shown:?} names no device, expected an index (0), a slice's (0:1) or a UUID"))
    }
}

/// The UUID in a kubelet's device id, which for a replica is `<uuid>::<n>`.
pub fn uuid_of(id: &str) -> &str {
    id.split_once("::").map_or(id, |(uuid, _)| uuid)
}

#[cfg(test)]
mod tests;
