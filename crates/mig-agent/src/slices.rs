//! What there is on the GPUs, joined with what is offered of it: one line for each thing that a container could be given.

use std::collections::{BTreeMap, BTreeSet};

use mig_device_plugin::{Listed, ResourceStatus};
use mig_model::{Device, Gpu, NodeInventory, Pods, ResourceName, Use};
use serde::Serialize;

/// A MIG device, or a GPU that is offered whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Slice {
    /// The MIG device's UUID, or the GPU's.
    #[serde(rename = "uuid")]
    pub(crate) id: String,
    /// NVML's index of the GPU; nothing if it is not known any more.
    pub(crate) gpu: Option<u32>,
    /// Empty if it is not known any more.
    pub(crate) gpu_uuid: String,
    /// NVML's id of the GPU instance; nothing for a whole GPU, and for what has vanished.
    pub(crate) instance: Option<u32>,
    /// Empty for a whole GPU, and for what vanished before the agent started.
    pub(crate) profile: String,
    /// The GPU instance's profile: another than the slice's own if that is only a part of it.
    pub(crate) instance_profile: String,
    /// Under which name it is offered, if it is.
    #[serde(serialize_with = "in_words")]
    pub(crate) resource: Option<ResourceName>,
    pub(crate) state: State,
    /// Who uses it, whatever its state.
    #[serde(rename = "use")]
    pub(crate) usage: Use,
}

/// Exactly one of these at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Nobody uses it.
    Free,
    /// A pod holds it, or will in a moment.
    Allocated,
    /// Processes use it that belong to no pod.
    Outside,
    /// It has a fault; somebody may use it all the same.
    Unhealthy,
    /// It no longer exists, or goes by another name; a pod may still hold this one.
    Vanished,
    /// It exists and is well. Who uses it is not known.
    Unknown,
    /// It exists, and no resource offers it.
    LeftOut,
}

impl State {
    pub(crate) const ALL: [Self; 7] =
        [Self::Free, Self::Allocated, Self::Outside, Self::Unhealthy, Self::Vanished, Self::Unknown, Self::LeftOut];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Allocated => "allocated",
            Self::Outside => "outside",
            Self::Unhealthy => "unhealthy",
            Self::Vanished => "vanished",
            Self::Unknown => "unknown",
            Self::LeftOut => "left_out",
        }
    }

    /// Of one line of the kubelet's list.
    pub(crate) fn of(listed: &Listed, usage: &Use) -> Self {
        match usage {
            _ if listed.vanished => Self::Vanished,
            _ if listed.device.fault.is_some() => Self::Unhealthy,
            Use::Free => Self::Free,
            Use::Allocated { .. } => Self::Allocated,
            Use::Outside { .. } => Self::Outside,
            Use::Unknown { .. } => Self::Unknown,
        }
    }
}

/// What the kubelet is told of one slice by one resource.
type Lines<'a> = BTreeMap<&'a str, Vec<(&'a ResourceName, &'a Listed)>>;

/// By GPU and placement; what has vanished comes last. An id that two resources list, as after a change of strategy, has
/// a line for each. `pods` says who holds the slice of a UUID.
pub(crate) fn of(
    inventory: Option<&NodeInventory>,
    resources: &[ResourceStatus],
    pods: &dyn Fn(&str) -> Pods,
) -> Vec<Slice> {
    let mut listed: Lines<'_> = BTreeMap::new();
    for resource in resources {
        for line in &resource.devices {
            let lines = listed.entry(&line.device.uuid).or_default();
            // The shares of a slice are one slice.
            if !lines.iter().any(|known| known.0 == &resource.resource && known.1.device.replica.is_some()) {
                lines.push((&resource.resource, line));
            }
        }
    }
    let mut slices = Vec::new();
    for gpu in inventory.into_iter().flat_map(|inventory| &inventory.gpus) {
        let of_gpu = pods(gpu.uuid.as_str());
        let whole = Slice {
            id: gpu.uuid.to_string(),
            gpu: Some(gpu.index),
            gpu_uuid: gpu.uuid.to_string(),
            instance: None,
            profile: String::new(),
            instance_profile: String::new(),
            resource: None,
            state: State::LeftOut,
            usage: used_whole(gpu, &listed, pods),
        };
        let lines = listed.remove(gpu.uuid.as_str()).unwrap_or_default();
        slices.extend(lines.into_iter().map(|line| offered(&whole, line)));
        for (instance, compute) in gpu.instances.iter().flat_map(|i| i.compute_instances.iter().map(move |c| (i, c))) {
            let held = pods(compute.uuid.as_str()).and(of_gpu.clone());
            let slice = Slice {
                id: compute.uuid.to_string(),
                instance: Some(instance.id),
                profile: compute.profile.to_string(),
                instance_profile: instance.profile.to_string(),
                usage: Use::of(held, gpu.running(Some((instance.id, compute.id)))),
                ..whole.clone()
            };
            match listed.remove(compute.uuid.as_str()) {
                Some(lines) => slices.extend(lines.into_iter().map(|line| offered(&slice, line))),
                None => slices.push(slice),
            }
        }
    }
    for (id, lines) in listed {
        let running = |device| inventory.and_then(|inventory| inventory.running_on(device));
        let usage = Use::of(pods(id), lines.first().and_then(|(_, listed)| running(&listed.device)));
        slices.extend(lines.into_iter().map(|(resource, listed)| Slice {
            id: id.to_owned(),
            gpu: index(inventory, &listed.device.gpu),
            gpu_uuid: listed.device.gpu.clone(),
            instance: None,
            profile: listed.device.profile.as_ref().map(ToString::to_string).unwrap_or_default(),
            instance_profile: listed.device.profile.as_ref().map(|p| p.gpu_instance().to_string()).unwrap_or_default(),
            resource: Some(resource.clone()),
            state: State::of(listed, &usage),
            usage: usage.clone(),
        }));
    }
    // A driver that names one UUID twice must not make one series twice.
    let mut seen = BTreeSet::new();
    slices.retain(|slice| seen.insert((slice.id.clone(), slice.resource.clone())));
    slices
}

fn offered(slice: &Slice, (resource, listed): (&ResourceName, &Listed)) -> Slice {
    let state = State::of(listed, &slice.usage);
    Slice { resource: Some(resource.clone()), state, ..slice.clone() }
}

/// Whoever has a part of a GPU uses it, and be it one that is no more.
fn used_whole(gpu: &Gpu, listed: &Lines<'_>, pods: &dyn Fn(&str) -> Pods) -> Use {
    let parts = gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
    let is_of_it =
        |lines: &[(&ResourceName, &Listed)]| lines.iter().any(|(_, line)| line.device.gpu == gpu.uuid.as_str());
    let others = listed.iter().filter(|(_, lines)| is_of_it(lines)).map(|(uuid, _)| *uuid);
    let all = parts.map(|part| part.uuid.as_str()).chain(others);
    let held = all.map(pods).fold(pods(gpu.uuid.as_str()), Pods::and);
    Use::of(held, gpu.running(None))
}

/// The state of each device of a resource, shares one by one.
pub(crate) fn states(resource: &ResourceStatus, slices: &[Slice]) -> Vec<State> {
    let of_slice = |device: &Device| slices.iter().find(|slice| slice.id == device.uuid).map(|slice| &slice.usage);
    let state = |listed: &Listed| {
        // What a pod has of a shared slice, it has not of the other shares.
        let usage = match (&listed.pods, of_slice(&listed.device)) {
            (Pods::None, Some(Use::Allocated { .. })) => Use::Free,
            (_, Some(usage)) => usage.clone(),
            (pods, None) => Use::of(pods.clone(), None),
        };
        State::of(listed, &usage)
    };
    resource.devices.iter().map(state).collect()
}

fn in_words<S: serde::Serializer>(name: &Option<ResourceName>, to: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(ToString::to_string).serialize(to)
}

fn index(inventory: Option<&NodeInventory>, uuid: &str) -> Option<u32> {
    inventory?.gpus.iter().find(|gpu| gpu.uuid.as_str() == uuid).map(|gpu| gpu.index)
}

#[cfg(test)]
mod tests;
