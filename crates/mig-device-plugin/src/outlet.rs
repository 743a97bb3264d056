//! One resource: its list, and what goes on with it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mig_model::{Device, Fault, Pods, ResourceName, uuid_of};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::container::ContainerSettings;
use crate::container::gift::Offered;
use crate::metrics::Meter;
use crate::roster::{Entry, Roster};
use crate::usage::Usage;

const HELD: &str = "HeldElsewhere";
const HELD_ELSEWHERE: &str = "a pod holds it, the whole of it or a part of it under another name or as another share, from before the configuration or the MIG mode was changed";

pub(crate) struct Outlet {
    pub(crate) resource: ResourceName,
    pub(crate) usage: Arc<Usage>,
    pub(crate) meter: Meter,
    settle: Duration,
    roster: watch::Sender<Arc<Roster>>,
    activity: Mutex<Activity>,
}

/// The Allocate calls of this resource, and what it was last told to offer.
#[derive(Default)]
struct Activity {
    in_flight: usize,
    last_end: Option<Instant>,
    offered: Vec<Offered>,
    container: Arc<ContainerSettings>,
}

/// A device that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub device: Device,
    /// It no longer exists, or goes by another name; a pod may still hold this id.
    pub vanished: bool,
    /// The pods that hold this id.
    pub pods: Pods,
}

/// An Allocate call under way.
pub(crate) struct InFlight<'a>(&'a Outlet);

impl Outlet {
    pub(crate) fn new(resource: ResourceName, usage: Arc<Usage>, settle: Duration, meter: Meter) -> Self {
        let roster = watch::Sender::new(Arc::new(Roster::default()));
        Self { resource, usage, meter, settle, roster, activity: Mutex::new(Activity::default()) }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the time of an Allocate, during which the list does not shrink.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.activity().in_flight += 1;
        InFlight(self)
    }

    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.subscribe()
    }

    /// The devices of the list, as those who look at the agent see them.
    pub(crate) fn devices(&self) -> Vec<Listed> {
        let listed = |entry: &Entry| Listed {
            device: entry.device().clone(),
            vanished: entry.gone,
            pods: self.usage.pods_with(&entry.device().id),
        };
        self.roster().entries().iter().map(listed).collect()
    }

    /// Offers these from now on. Says whether the list waits for somebody to let go of something.
    pub(crate) fn update(&self, container: &Arc<ContainerSettings>, offered: &[Offered]) -> bool {
        let mut activity = self.activity();
        activity.offered = offered.to_vec();
        activity.container = Arc::clone(container);
        drop(activity);
        self.refresh()
    }

    /// Brings the list up to date with what is known of the devices' holders.
    pub(crate) fn refresh(&self) -> bool {
        let held = self.usage.held(&self.resource);
        // Held for the whole change, so that no Allocate begins between the look and the shrinking.
        let activity = self.activity();
        let mut offered = activity.offered.clone();
        let own: HashSet<String> = offered.iter().map(|offered| offered.device.id.clone()).collect();
        let elsewhere = self.usage.held_otherwise(&self.resource, &own);
        let mut waits = false;
        let before = self.roster();
        let was_held = |device: &Device| {
            let fault = before.find(&device.id).and_then(|(_, entry)| entry.device().fault.as_ref());
            let held = fault.is_some_and(|fault| fault.kind == HELD);
            held && !self.usage.is_let_go(&self.resource, &own, device)
        };
        // Nobody is given what a pod holds under this very id, and that pod may have to be admitted again.
        let held_here = self.usage.held_here(&self.resource);
        let devices = offered.iter_mut().map(|offered| &mut offered.device);
        let devices = devices.filter(|device| !held_here.contains(&device.id));
        for device in devices.filter(|device| elsewhere.has(device) || was_held(device)) {
            device.fault = Some(Fault { kind: HELD, message: HELD_ELSEWHERE.to_owned() });
            waits = true;
        }
        let quiet = activity.in_flight == 0 && activity.last_end.is_none_or(|end| end.elapsed() >= self.settle);
        let may_drop = |device: &Device| quiet && self.usage.is_abandoned(device);
        let held = held.into_iter().map(|id| {
            let (uuid, gpu) = (uuid_of(&id).to_owned(), self.usage.gpu_of(&id));
            Device { id, uuid, gpu, ..Device::default() }
        });
        let next = self.roster.borrow().next(&activity.container, &offered, held, may_drop);
        waits |= next.has_gone();
        let changed = self.roster.send_if_modified(|roster| {
            let changed = **roster != next;
            if changed {
                *roster = Arc::new(next);
            }
            changed
        });
        drop(activity);
        // What the kubelet is not told is no news of the list.
        if changed && self.roster().to_wire() != before.to_wire() {
            let roster = self.roster();
            let healthy = roster.entries().iter().filter(|entry| entry.is_healthy()).count();
            tracing::info!(resource = %self.resource, devices = roster.entries().len(), healthy, "the list has changed");
        }
        waits
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.in_flight -= 1;
        activity.last_end = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::tests::device;

    #[tokio::test(start_paused = true)]
    async fn the_list_does_not_shrink_while_an_allocate_is_in_flight_nor_soon_after() {
        let settle = Duration::from_secs(5);
        let usage = Arc::new(Usage::of_test(settle));
        let resource = ResourceName::gpu(&mig_model::ResourceDomain::default());
        let meter = crate::metrics::Metrics::default().of(&resource);
        let outlet = Outlet::new(resource, Arc::clone(&usage), settle, meter);
        outlet.update(&Arc::default(), &[device("MIG-a", "GPU-0"), device("MIG-b", "GPU-0")]);
        usage.certainly_free_now(settle).await;

        let call = outlet.begin();
        assert!(outlet.update(&Arc::default(), &[device("MIG-b", "GPU-0")]), "an Allocate is in flight");
        assert_eq!(outlet.roster().entries().len(), 2);
        drop(call);
        assert!(outlet.update(&Arc::default(), &[device("MIG-b", "GPU-0")]), "an Allocate has just ended");
        tokio::time::sleep(settle).await;
        assert!(!outlet.update(&Arc::default(), &[device("MIG-b", "GPU-0")]));
        assert_eq!(outlet.roster().entries().len(), 1);
    }
}
