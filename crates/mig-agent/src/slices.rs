//! What there is on the GPUs, joined with what is offered of it: one line for each thing that a container could be given.

use std::collections::{BTreeMap, BTreeSet};

use mig_device_plugin::{DeviceState, ResourceStatus};
use mig_model::{Device, NodeInventory, ResourceName};

/// A MIG device, or a GPU that is offered whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The MIG device's UUID, or the GPU's.
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
    pub(crate) resource: Option<ResourceName>,
    pub(crate) state: State,
}

/// Exactly one of these at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Listed(DeviceState),
    /// It exists, and no resource offers it.
    LeftOut,
}

impl State {
    pub(crate) const ALL: [Self; 6] = [
        Self::Listed(DeviceState::Free),
        Self::Listed(DeviceState::Allocated),
        Self::Listed(DeviceState::Unhealthy),
        Self::Listed(DeviceState::Vanished),
        Self::Listed(DeviceState::Unknown),
        Self::LeftOut,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Listed(DeviceState::Free) => "free",
            Self::Listed(DeviceState::Allocated) => "allocated",
            Self::Listed(DeviceState::Unhealthy) => "unhealthy",
            Self::Listed(DeviceState::Vanished) => "vanished",
            Self::Listed(DeviceState::Unknown) => "unknown",
            Self::LeftOut => "left_out",
        }
    }
}

type Lines<'a> = BTreeMap<&'a str, Vec<(&'a ResourceName, &'a Device, DeviceState)>>;

/// By GPU and placement; what has vanished comes last. An id that two resources list, as after a change of strategy, has
/// a line for each.
pub(crate) fn of(inventory: Option<&NodeInventory>, resources: &[ResourceStatus]) -> Vec<Slice> {
    let mut listed: Lines<'_> = BTreeMap::new();
    for resource in resources {
        for (device, state) in &resource.devices {
            let lines = listed.entry(&device.uuid).or_default();
            // The shares of a slice are one slice, which is in use if one of them is.
            match lines.iter_mut().find(|line| line.0 == &resource.resource && line.1.replica.is_some()) {
                Some(line) if *state == DeviceState::Allocated => line.2 = *state,
                Some(_) => {}
                None => lines.push((&resource.resource, device, *state)),
            }
        }
    }
    let mut slices = Vec::new();
    for gpu in inventory.into_iter().flat_map(|inventory| &inventory.gpus) {
        let whole = Slice {
            id: gpu.uuid.to_string(),
            gpu: Some(gpu.index),
            gpu_uuid: gpu.uuid.to_string(),
            instance: None,
            profile: String::new(),
            instance_profile: String::new(),
            resource: None,
            state: State::LeftOut,
        };
        let lines = listed.remove(gpu.uuid.as_str()).unwrap_or_default();
        slices.extend(lines.into_iter().map(|line| offered(&whole, line)));
        for (instance, compute) in gpu.instances.iter().flat_map(|i| i.compute_instances.iter().map(move |c| (i, c))) {
            let slice = Slice {
                id: compute.uuid.to_string(),
                instance: Some(instance.id),
                profile: compute.profile.to_string(),
                instance_profile: instance.profile.to_string(),
                ..whole.clone()
            };
            match listed.remove(compute.uuid.as_str()) {
                Some(lines) => slices.extend(lines.into_iter().map(|line| offered(&slice, line))),
                None => slices.push(slice),
            }
        }
    }
    for (id, lines) in listed {
        slices.extend(lines.into_iter().map(|(resource, device, state)| Slice {
            id: id.to_owned(),
            gpu: index(inventory, &device.gpu),
            gpu_uuid: device.gpu.clone(),
            instance: None,
            profile: device.profile.as_ref().map(ToString::to_string).unwrap_or_default(),
            instance_profile: device.profile.as_ref().map(|p| p.gpu_instance().to_string()).unwrap_or_default(),
            resource: Some(resource.clone()),
            state: State::Listed(state),
        }));
    }
    // A driver that names one UUID twice must not make one series twice.
    let mut seen = BTreeSet::new();
    slices.retain(|slice| seen.insert((slice.id.clone(), slice.resource.clone())));
    slices
}

fn offered(slice: &Slice, (resource, _, state): (&ResourceName, &Device, DeviceState)) -> Slice {
    Slice { resource: Some(resource.clone()), state: State::Listed(state), ..slice.clone() }
}

fn index(inventory: Option<&NodeInventory>, uuid: &str) -> Option<u32> {
    inventory?.gpus.iter().find(|gpu| gpu.uuid.as_str() == uuid).map(|gpu| gpu.index)
}

#[cfg(test)]
mod tests;
