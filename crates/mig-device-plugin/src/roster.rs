//! The list of one resource's devices as the kubelet sees it.

use std::collections::HashMap;
use std::sync::Arc;

use kubelet::deviceplugin::{Device as WireDevice, ListAndWatchResponse, NumaNode, TopologyInfo};
use mig_model::{Device, Unhealthy};

use crate::container::ContainerSettings;
use crate::container::gift::Offered;

/// The kubelet refuses longer ids.
const LONGEST_ID: usize = 63;

/// Devices that are, and devices that were and may still be held. A value: a change makes a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    entries: Vec<Entry>,
    /// With what settings these were made ready: an Allocate sees one list and its settings, never half of two.
    pub(crate) container: Arc<ContainerSettings>,
    /// Where each id is in `entries`.
    places: HashMap<String, usize>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offered: Offered,
    /// The device no longer exists, or not under this id. It stays, Unhealthy, for as long as a pod may hold it: a kubelet that misses
    /// an id it has given away can panic.
    pub(crate) gone: bool,
}

impl Entry {
    pub(crate) fn is_healthy(&self) -> bool {
        !self.gone && self.device().fault.is_none()
    }

    pub(crate) fn device(&self) -> &Device {
        &self.offered.device
    }
}

impl Roster {
    /// The next list: what is offered now, then what was listed before, or is held by a pod, and is offered no more,
    /// less what `may_drop` lets go.
    pub(crate) fn next(
        &self,
        container: &Arc<ContainerSettings>,
        offered: &[Offered],
        held: impl Iterator<Item = Device>,
        may_drop: impl Fn(&Device) -> bool,
    ) -> Self {
        let mut next = Self { container: Arc::clone(container), ..Self::default() };
        for offered in offered {
            next.add(Entry { offered: offered.clone(), gone: false });
        }
        for entry in &self.entries {
            // At least one list has it as Unhealthy before it goes: the kubelet may have just picked it.
            let drops = entry.gone && may_drop(entry.device());
            if !next.places.contains_key(&entry.device().id) && !drops {
                next.add(Entry { offered: entry.offered.clone(), gone: true });
            }
        }
        // Given out before this agent started, and vanished since.
        for device in held {
            next.add(Entry { offered: Offered { device, ..Offered::default() }, gone: true });
        }
        next
    }

    /// Ids are unique: the first stays.
    fn add(&mut self, entry: Entry) {
        let id = &entry.device().id;
        if !id.is_empty() && id.len() <= LONGEST_ID && !self.places.contains_key(id) {
            self.places.insert(id.clone(), self.entries.len());
            self.entries.push(entry);
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of an id and its place in the list.
    pub(crate) fn find(&self, id: &str) -> Option<(usize, &Entry)> {
        let place = *self.places.get(id)?;
        Some((place, self.entries.get(place)?))
    }

    /// Whether some ids are kept only because a pod may hold them.
    pub(crate) fn has_gone(&self) -> bool {
        self.entries.iter().any(|entry| entry.gone)
    }

    /// What is not to be given to a pod, and why.
    pub(crate) fn unhealthy(&self) -> impl Iterator<Item = Unhealthy> {
        self.entries.iter().filter(|entry| !entry.is_healthy()).map(|entry| {
            let Device { uuid, gpu, fault, .. } = entry.device();
            let (reason, message) = match fault {
                Some(fault) if !entry.gone => (fault.kind, fault.message.clone()),
                _ => ("Vanished", "it is not offered any more, and a pod may hold it".to_owned()),
            };
            Unhealthy { uuid: uuid.clone(), gpu: gpu.clone(), reason: reason.to_owned(), message }
        })
    }

    /// As the kubelet reads it.
    pub(crate) fn to_wire(&self) -> ListAndWatchResponse {
        let devices = self.entries.iter().map(|entry| WireDevice {
            id: entry.device().id.clone(),
            health: if entry.is_healthy() { "Healthy" } else { "Unhealthy" }.to_owned(),
            topology: entry
                .device()
                .numa_node
                .map(|node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] }),
        });
        ListAndWatchResponse { devices: devices.collect() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mig_model::uuid_of;

    use super::*;
    use crate::container::gift::Gift;
    use crate::container::strategy::DeviceIdStrategy;

    pub(crate) fn device(id: &str, gpu: &str) -> Offered {
        let profile = Some("1g.5gb".parse().unwrap());
        let uuid = uuid_of(id).to_owned();
        let device = Device { id: id.to_owned(), uuid, gpu: gpu.to_owned(), profile, ..Device::default() };
        Offered { gift: Gift::new(&device, DeviceIdStrategy::Uuid, vec![]), device }
    }

    pub(crate) fn faulty(id: &str, gpu: &str, message: &str) -> Offered {
        let fault = mig_model::Fault { kind: "GpuIsLost", message: message.to_owned() };
        let offered = device(id, gpu);
        Offered { device: Device { fault: Some(fault), ..offered.device }, ..offered }
    }

    pub(crate) fn roster(devices: &[Offered]) -> Roster {
        Roster::default().next(&Arc::default(), devices, std::iter::empty(), |_| false)
    }

    fn listed(roster: &Roster) -> Vec<(String, String)> {
        roster.to_wire().devices.into_iter().map(|device| (device.id, device.health)).collect()
    }

    fn line(id: &str, health: &str) -> (String, String) {
        (id.to_owned(), health.to_owned())
    }

    #[test]
    fn an_id_that_vanishes_is_unhealthy_until_it_may_be_dropped() {
        let before = roster(&[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0")]);
        let kept = before.next(&Arc::default(), &[device("MIG-b", "GPU-0")], std::iter::empty(), |_| false);
        assert_eq!(listed(&kept), [line("MIG-b", "Healthy"), line("MIG-a", "Unhealthy")]);
        let dropped =
            kept.next(&Arc::default(), &[device("MIG-b", "GPU-0")], std::iter::empty(), |device| device.id == "MIG-a");
        assert_eq!(listed(&dropped), [line("MIG-b", "Healthy")]);
    }

    /// The kubelet may have picked it from the list before.
    #[test]
    fn an_id_that_nobody_holds_is_unhealthy_once_before_it_goes() {
        let before = roster(&[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0")]);
        let next =
            |roster: &Roster| roster.next(&Arc::default(), &[device("MIG-b", "GPU-0")], std::iter::empty(), |_| true);
        let once = next(&before);
        assert_eq!(listed(&once), [line("MIG-b", "Healthy"), line("MIG-a", "Unhealthy")]);
        assert_eq!(listed(&next(&once)), [line("MIG-b", "Healthy")]);
    }

    #[test]
    fn an_id_that_returns_is_healthy_again() {
        let gone = roster(&[device("MIG-a", "GPU-0")]).next(&Arc::default(), &[], std::iter::empty(), |_| false);
        assert!(gone.has_gone());
        let back = gone.next(&Arc::default(), &[device("MIG-a", "GPU-0")], std::iter::empty(), |_| false);
        assert_eq!(listed(&back), [line("MIG-a", "Healthy")]);
        assert!(!back.has_gone());
    }

    #[test]
    fn what_a_pod_held_before_this_agent_started_is_listed() {
        let held = ["MIG-old", "MIG-a"].map(|id| device(id, "GPU-0").device);
        let first = Roster::default().next(&Arc::default(), &[device("MIG-a", "GPU-0")], held.into_iter(), |_| true);
        assert_eq!(listed(&first), [line("MIG-a", "Healthy"), line("MIG-old", "Unhealthy")]);
    }

    #[test]
    fn a_fault_is_unhealthy_and_numa_is_told_only_where_known() {
        let mut bad = faulty("MIG-a", "GPU-0", "lost");
        bad.device.numa_node = Some(1);
        let wire = roster(&[bad, device("MIG-b", "GPU-1")]).to_wire().devices;
        assert_eq!((wire[0].health.as_str(), wire[0].topology.clone().unwrap().nodes[0].id), ("Unhealthy", 1));
        assert_eq!((wire[1].health.as_str(), &wire[1].topology), ("Healthy", &None));
    }

    #[test]
    fn the_kubelet_never_sees_an_id_twice_nor_one_that_it_refuses() {
        let devices =
            [device("MIG-a", "GPU-0"), device("MIG-a", "GPU-1"), device("", "GPU-0"), device(&"m".repeat(64), "GPU-0")];
        assert_eq!(listed(&roster(&devices)), [line("MIG-a", "Healthy")]);
    }
}
