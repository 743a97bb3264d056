//! Who uses a slice: what the kubelet says, what was given out, and what the driver sees, in one answer.

use serde::Serialize;

use crate::inventory::{Gpu, NodeInventory};
use crate::strategy::Device;
use crate::survey::Process;

/// A container that holds a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

/// What is known of the pods that hold a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pods {
    /// Not enough: nobody has said that none does.
    Unknown,
    /// These do. None is named while it was given out and no pod is listed with it yet.
    Hold(Vec<Holder>),
    /// None does.
    None,
}

impl Pods {
    /// What is known of two things that are one: a slice and its GPU, or the shares of a slice.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hold(mut holders), Self::Hold(others)) => {
                holders.extend(others);
                holders.sort();
                holders.dedup();
                Self::Hold(holders)
            }
            (held @ Self::Hold(_), _) | (_, held @ Self::Hold(_)) => held,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::None, Self::None) => Self::None,
        }
    }
}

/// Who uses a slice. Exactly one of these; what is unknown counts as in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Use {
    /// Nobody.
    Free,
    /// Pods. What runs on it is taken for theirs.
    Allocated {
        /// Their containers; several of a slice that is shared. None is named while it was given out and no pod is listed
        /// with it yet.
        containers: Vec<Holder>,
    },
    /// Processes, and no pod holds it.
    Outside {
        /// As the driver tells them.
        processes: Vec<Process>,
    },
    /// It cannot be said.
    Unknown {
        /// Why.
        reason: &'static str,
    },
}

impl Use {
    /// Joins what is known of pods with what the driver says of processes on the slice: nothing if it doesn't.
    pub fn of(pods: Pods, running: Option<Running>) -> Self {
        match (pods, running) {
            (Pods::Hold(containers), _) => Self::Allocated { containers },
            (Pods::Unknown, _) => Self::Unknown { reason: "the kubelet has not said yet which pods hold what" },
            (Pods::None, None) => Self::Unknown { reason: "the driver does not say what runs on it" },
            (Pods::None, Some(Running { on_it, .. })) if !on_it.is_empty() => Self::Outside { processes: on_it },
            (Pods::None, Some(Running { somewhere: true, .. })) => {
                Self::Unknown { reason: "something runs on the GPU, and the driver does not say on which slice" }
            }
            (Pods::None, Some(_)) => Self::Free,
        }
    }

    /// Whether it is known that nobody uses it.
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }
}

/// What runs on a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// For certain.
    pub on_it: Vec<Process>,
    /// There is something of which the driver does not say on which slice of the GPU it is.
    pub somewhere: bool,
}

impl Gpu {
    /// What runs on a part of it, which is named by its GPU instance's and its compute instance's id, or on the whole;
    /// nothing if the driver does not say.
    pub fn running(&self, part: Option<(u32, u32)>) -> Option<Running> {
        // What was told of a GPU that cannot be read any more is old.
        let processes = self.processes.as_ref().filter(|_| !self.outdated)?;
        let Some((instance, compute)) = part else {
            return Some(Running { on_it: processes.clone(), somewhere: false });
        };
        let whole = self.instances.iter().find(|own| own.id == instance);
        let is_only_part = whole.is_some_and(|own| matches!(&own.compute_instances[..], [only] if only.id == compute));
        let mut running = Running::default();
        for process in processes {
            match (process.gpu_instance, process.compute_instance) {
                (Some(i), Some(c)) if (i, c) == (instance, compute) => running.on_it.push(process.clone()),
                (Some(i), None) if i == instance && is_only_part => running.on_it.push(process.clone()),
                (Some(i), None) if i == instance => running.somewhere = true,
                (Some(_), _) => {}
                (None, _) => running.somewhere = true,
            }
        }
        Some(running)
    }
}

impl NodeInventory {
    /// What runs on a device, though it may be offered no more or be gone; nothing if the driver does not say.
    pub fn running_on(&self, device: &Device) -> Option<Running> {
        for gpu in &self.gpus {
            if gpu.uuid.as_str() == device.uuid {
                let mut running = gpu.running(None)?;
                if gpu.mig.is_enabled() {
                    // What runs on its slices is theirs.
                    running.on_it.retain(|process| process.gpu_instance.is_none());
                }
                return Some(running);
            }
            let mut parts = gpu.instances.iter().flat_map(|i| i.compute_instances.iter().map(move |c| (i.id, c)));
            if let Some((instance, compute)) = parts.find(|(_, compute)| compute.uuid.as_str() == device.uuid) {
                return gpu.running(Some((instance, compute.id)));
            }
        }
        let gpu = self.gpus.iter().find(|gpu| gpu.uuid.as_str() == device.gpu);
        match (gpu, device.address.mig) {
            (Some(gpu), Some(was)) => gpu.running_where_a_slice_was(was.gpu_instance, was.compute_instance),
            // Nothing runs on what is not there.
            _ => Some(Running::default()),
        }
    }
}

impl Gpu {
    /// The driver destroys nothing that is in use, so that it is gone says enough, unless the driver lists a process there
    /// all the same. If it lists none at all, ids of slices must not pile up for ever.
    fn running_where_a_slice_was(&self, instance: u32, compute: u32) -> Option<Running> {
        if self.outdated {
            return None;
        }
        let there = self.instances.iter().find(|own| own.id == instance);
        let is_taken = there.is_some_and(|own| own.compute_instances.iter().any(|own| own.id == compute));
        if is_taken {
            return Some(Running::default());
        }
        let there = || self.processes.iter().flatten().filter(|process| process.gpu_instance == Some(instance));
        Some(Running {
            on_it: there().filter(|process| process.compute_instance == Some(compute)).cloned().collect(),
            somewhere: there().any(|process| process.compute_instance.is_none()),
        })
    }
}

#[cfg(test)]
mod tests;
