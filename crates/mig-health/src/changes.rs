//! What became of the faults between two looks.

use std::collections::BTreeMap;

use mig_model::{Fault, GpuUuid, MigUuid, NodeInventory, Profile};

/// A GPU or a slice whose fault came, went or became another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// NVML's index of the GPU.
    pub gpu: u32,
    /// The GPU.
    pub uuid: GpuUuid,
    /// The slice; nothing for the GPU as a whole.
    pub slice: Option<(MigUuid, Profile)>,
    /// What was wrong before.
    pub was: Option<Fault>,
    /// What is wrong now.
    pub now: Option<Fault>,
}

type Faults<'a> = BTreeMap<(&'a GpuUuid, Option<&'a MigUuid>), &'a Fault>;

/// By GPU, in the order of the inventory. What is not there any more has not changed.
pub fn changes(before: Option<&NodeInventory>, after: &NodeInventory) -> Vec<Change> {
    let known: Faults<'_> = before.map(faults).unwrap_or_default();
    let mut changes = Vec::new();
    for gpu in &after.gpus {
        let was = known.get(&(&gpu.uuid, None)).copied();
        if was != gpu.fault.as_ref() {
            let (was, now) = (was.cloned(), gpu.fault.clone());
            changes.push(Change { gpu: gpu.index, uuid: gpu.uuid.clone(), slice: None, was, now });
        }
        for compute in gpu.instances.iter().flat_map(|instance| &instance.compute_instances) {
            let was = known.get(&(&gpu.uuid, Some(&compute.uuid))).copied();
            if was != compute.fault.as_ref() {
                changes.push(Change {
                    gpu: gpu.index,
                    uuid: gpu.uuid.clone(),
                    slice: Some((compute.uuid.clone(), compute.profile.clone())),
                    was: was.cloned(),
                    now: compute.fault.clone(),
                });
            }
        }
    }
    changes
}

fn faults(inventory: &NodeInventory) -> Faults<'_> {
    let mut faults = Faults::new();
    for gpu in &inventory.gpus {
        faults.extend(gpu.fault.as_ref().map(|fault| ((&gpu.uuid, None), fault)));
        for compute in gpu.instances.iter().flat_map(|instance| &instance.compute_instances) {
            faults.extend(compute.fault.as_ref().map(|fault| ((&gpu.uuid, Some(&compute.uuid)), fault)));
        }
    }
    faults
}
