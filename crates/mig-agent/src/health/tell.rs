//! Health in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use mig_health::{Change, Moment, Policy};
use mig_model::{Fault, GpuUuid, NodeInventory, XidEvent};
use mig_nvml::DriverState;

/// Between two lines on the same.
const OFTEN: Duration = Duration::from_secs(60);
/// Of what was told of errors that are ignored.
const MOST: usize = 1024;

/// Tells what is new.
#[derive(Debug, Default)]
pub(super) struct Teller {
    ignored: BTreeMap<(GpuUuid, u64), Moment>,
    /// The driver has failed as a whole: that has a line of its own, and so has its return.
    failed: bool,
}

impl Teller {
    pub(super) fn tell(&mut self, changes: &[Change], inventory: &NodeInventory, driver: &DriverState) {
        self.failed |= matches!(driver, DriverState::Failed(_));
        let mut well = 0;
        for change in changes {
            match (&change.was, &change.now) {
                (Some(was), Some(now)) if is_same(was, now) => {}
                (_, Some(now)) => {
                    if !matches!(driver, DriverState::Failed(fault) if fault == now) {
                        self.bad(change, now, inventory);
                    }
                }
                (Some(was), None) if change.slice.is_none() && self.failed => {
                    tracing::debug!(gpu = change.gpu, reason = was.kind, "well again");
                    well += 1;
                }
                (Some(was), None) => self.well(change, was, inventory),
                (None, None) => {}
            }
        }
        if self.failed && well > 0 {
            tracing::info!(gpus = well, "GPUs are well again, now that the driver is");
        }
        if !matches!(driver, DriverState::Failed(_)) && inventory.gpus.iter().all(|gpu| gpu.fault.is_none()) {
            self.failed = false;
        }
    }

    fn bad(&self, change: &Change, fault: &Fault, inventory: &NodeInventory) {
        let (gpu, reason, xid) = (change.gpu, fault.kind, xid(fault));
        match &change.slice {
            Some((slice, profile)) => {
                tracing::warn!(gpu, %slice, reason, xid, "{slice} ({profile} of GPU {gpu}) is Unhealthy: {}", fault.message);
            }
            None => {
                let name = name(change, inventory);
                tracing::warn!(gpu, reason, xid, "{name} is unusable, its devices are Unhealthy: {}", fault.message);
            }
        }
    }

    fn well(&self, change: &Change, was: &Fault, inventory: &NodeInventory) {
        let (gpu, reason, xid) = (change.gpu, was.kind, xid(was));
        match &change.slice {
            Some((slice, profile)) => {
                tracing::info!(gpu, %slice, reason, xid, "{slice} ({profile} of GPU {gpu}) is well again");
            }
            None => tracing::info!(gpu, reason, xid, "{} is well again", name(change, inventory)),
        }
    }

    /// An error that makes nothing unhealthy: one line in a while, however many there are.
    pub(super) fn ignored(&mut self, event: &XidEvent, policy: &Policy, now: Moment) {
        if self.ignored.len() >= MOST {
            self.ignored.clear();
        }
        let last = self.ignored.insert((event.gpu.clone(), event.xid), now);
        if last.is_some_and(|last| now.saturating_sub(last) < OFTEN) {
            self.ignored.extend(last.map(|last| ((event.gpu.clone(), event.xid), last)));
            return;
        }
        let XidEvent { gpu, xid, gpu_instance, compute_instance } = event;
        let name = &policy.of(*xid).name;
        tracing::info!(uuid = %gpu, xid, gpu_instance, compute_instance, "XID {xid} makes nothing Unhealthy: {name}");
    }
}

fn name<'a>(change: &Change, inventory: &'a NodeInventory) -> &'a str {
    inventory.gpus.iter().find(|gpu| gpu.uuid == change.uuid).map_or("a GPU", |gpu| gpu.name.as_str())
}

/// The same thing in another phase.
fn is_same(was: &Fault, now: &Fault) -> bool {
    was.kind == now.kind && xid(was) == xid(now)
}

fn xid(fault: &Fault) -> Option<u64> {
    fault.message.strip_prefix("XID ")?.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_messages() {
        let fault = |message: &str| Fault { kind: "Xid", message: message.to_owned() };
        assert_eq!(xid(&fault("XID 79: the GPU has fallen off the bus")), Some(79));
        assert_eq!(xid(&fault("the GPU is lost")), None);
        assert!(is_same(&fault("XID 79: a"), &fault("XID 79: a; b")));
        assert!(!is_same(&fault("XID 79: a"), &fault("XID 7: a")));
    }
}
