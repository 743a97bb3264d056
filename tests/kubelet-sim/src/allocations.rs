//! Which container holds which devices, and what the plugin answered for them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kubelet::deviceplugin::ContainerAllocateResponse;

/// The devices of one resource that one container holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Device ids by NUMA node; -1 for those without one.
    pub(crate) by_numa: BTreeMap<i64, Vec<String>>,
    /// Cached for the pod's whole life: a restart of the container gets this again.
    pub(crate) answer: ContainerAllocateResponse,
}

impl Held {
    /// A device of two NUMA nodes is listed at both.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.by_numa.values().flatten().cloned().collect()
    }
}

/// Resource to what is held of it.
pub(crate) type OfContainer = BTreeMap<String, Held>;

/// Pod, container, resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocations {
    pub(crate) pods: BTreeMap<String, BTreeMap<String, OfContainer>>,
}

impl Allocations {
    pub(crate) fn insert(&mut self, pod: &str, container: &str, resource: &str, held: Held) {
        let containers = self.pods.entry(pod.to_owned()).or_default();
        containers.entry(container.to_owned()).or_default().insert(resource.to_owned(), held);
    }

    pub(crate) fn remove(&mut self, pod: &str) {
        self.pods.remove(pod);
    }

    pub(crate) fn of(&self, pod: &str, container: &str) -> Option<&OfContainer> {
        self.pods.get(pod)?.get(container)
    }

    pub(crate) fn ids(&self, pod: &str, container: &str, resource: &str) -> Option<BTreeSet<String>> {
        Some(self.of(pod, container)?.get(resource)?.ids())
    }

    /// Who holds the device.
    pub(crate) fn holder(&self, resource: &str, id: &str) -> Option<&str> {
        let holds = |containers: &BTreeMap<String, OfContainer>| {
            containers.values().any(|held| held.get(resource).is_some_and(|held| held.ids().contains(id)))
        };
        self.pods.iter().find(|(_, containers)| holds(containers)).map(|(pod, _)| pod.as_str())
    }

    /// Everything that is held, by resource.
    pub(crate) fn by_resource(&self) -> HashMap<String, HashSet<String>> {
        let mut all = HashMap::<String, HashSet<String>>::new();
        for (resource, held) in self.pods.values().flat_map(BTreeMap::values).flatten() {
            all.entry(resource.clone()).or_default().extend(held.ids());
        }
        all
    }
}
