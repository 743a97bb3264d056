//! What a container gets in the end: the answers for its resources, put together as the kubelet does it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kubelet::deviceplugin::{ContainerAllocateResponse, DeviceSpec, Mount};

use crate::allocations::OfContainer;

/// What all containers of a pod get.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAllocation {
    /// By container name, init containers too.
    pub containers: BTreeMap<String, ContainerAllocation>,
}

/// What one container gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerAllocation {
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
    /// Mounts, one for each path in the container.
    pub mounts: Vec<Mount>,
    /// Device nodes, one for each path in the container.
    pub devices: Vec<DeviceSpec>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// CDI names of all answers, each once.
    pub cdi_devices: Vec<String>,
    /// Which devices the kubelet chose, by resource.
    pub device_ids: BTreeMap<String, BTreeSet<String>>,
    /// The plugin's answer for each resource, as it was.
    pub answers: BTreeMap<String, ContainerAllocateResponse>,
    /// Where two answers disagree. Which one wins is left to chance, at each start of the container anew.
    pub conflicts: Vec<Conflict>,
}

/// Two answers for one container that cannot both hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `environment variable`, `mount`, `device` or `annotation`.
    pub kind: &'static str,
    /// The variable, path or annotation.
    pub key: String,
    /// The value that came first.
    pub kept: String,
    /// The value that is lost.
    pub dropped: String,
}

impl ContainerAllocation {
    pub(crate) fn new(held: &OfContainer) -> Self {
        let mut merged = Self::default();
        // Go's maps have no order; neither has this one. Whoever comes first wins.
        let in_any_order = held.iter().collect::<HashMap<_, _>>();
        for (resource, held) in in_any_order {
            merged.device_ids.insert(resource.clone(), held.ids());
            merged.answers.insert(resource.clone(), held.answer.clone());
            merged.add(&held.answer);
        }
        merged
    }

    fn add(&mut self, answer: &ContainerAllocateResponse) {
        for (name, value) in &answer.envs {
            let kept = self.envs.entry(name.clone()).or_insert_with(|| value.clone()).clone();
            self.settle("environment variable", name, &kept, value);
        }
        for (name, value) in &answer.annotations {
            let kept = self.annotations.entry(name.clone()).or_insert_with(|| value.clone()).clone();
            self.settle("annotation", name, &kept, value);
        }
        for mount in &answer.mounts {
            match self.mounts.iter().find(|known| known.container_path == mount.container_path) {
                None => self.mounts.push(mount.clone()),
                Some(known) => {
                    let kept = known.host_path.clone();
                    self.settle("mount", &mount.container_path, &kept, &mount.host_path);
                }
            }
        }
        for device in &answer.devices {
            match self.devices.iter().find(|known| known.container_path == device.container_path) {
                None => self.devices.push(device.clone()),
                Some(known) => {
                    let kept = known.host_path.clone();
                    self.settle("device", &device.container_path, &kept, &device.host_path);
                }
            }
        }
        for device in &answer.cdi_devices {
            if !self.cdi_devices.contains(&device.name) {
                self.cdi_devices.push(device.name.clone());
            }
        }
    }

    fn settle(&mut self, kind: &'static str, key: &str, kept: &str, other: &str) {
        if kept != other {
            let (key, kept, dropped) = (key.to_owned(), kept.to_owned(), other.to_owned());
            self.conflicts.push(Conflict { kind, key, kept, dropped });
        }
    }
}
