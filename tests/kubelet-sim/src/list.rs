//! What may be wrong with a list.

use std::collections::HashSet;

use kubelet::deviceplugin::Device;

use crate::{
    node::State,
    violation::{Violation, ViolationKind},
};

/// Judges a list before it replaces the one that the kubelet has.
pub(crate) fn judge(state: &State, resource: &str, devices: &[Device]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |kind, detail| found.push(Violation { kind, resource: resource.to_owned(), detail });

    let mut seen = HashSet::new();
    for Device { id, health, .. } in devices {
        if !seen.insert(id.as_str()) {
            report(ViolationKind::DuplicateDevice, format!("the list names {id} twice"));
        }
        if id.is_empty() || id.len() > 63 {
            report(ViolationKind::BadDeviceId, format!("{id:?} has {} bytes, 1 to 63 are allowed", id.len()));
        }
        if health != "Healthy" && health != "Unhealthy" {
            report(ViolationKind::BadHealth, format!("the health of {id} is {health:?}"));
        }
    }

    for id in state.allocated.get(resource).into_iter().flatten().filter(|id| !seen.contains(id.as_str())) {
        let whose = match state.allocations.holder(resource, id) {
            Some(pod) => format!("which pod {pod} holds"),
            None => "which is being allocated".to_owned(),
        };
        report(ViolationKind::AllocatedDeviceDropped, format!("the list lacks {id}, {whose}"));
    }

    let in_flight = state.in_flight.iter().filter(|call| call.resource == resource).count();
    if let Some(before) = state.resources.get(resource).and_then(|known| known.lists.as_ref())
        && in_flight > 0
    {
        let gone = before.all.keys().filter(|id| !seen.contains(id.as_str())).cloned().collect::<Vec<_>>();
        if !gone.is_empty() {
            let detail = format!("the list lost {} while {in_flight} calls of Allocate were open", gone.join(", "));
            report(ViolationKind::ListShrankDuringAllocate, detail);
        }
    }
    found
}
