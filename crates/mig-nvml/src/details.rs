//! What is asked of the driver only if somebody wants it, and only after everything else: what a node's labels say beyond
//! what offering its devices takes. Each GPU is asked once, and of each profile one MIG device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};

use mig_model::{ComputeInstance, Engines, Gpu, GpuDetails, NodeDetails, NodeInventory, PartDetails};
use tokio::sync::watch;

use crate::error::DriverError;
use crate::read::{allowed, pci_file};
use crate::session::{Handle, Session};

/// A reading of the node, and what the driver tells beyond it.
#[derive(Debug, PartialEq, Eq)]
pub struct Described {
    /// What was read.
    pub inventory: Arc<NodeInventory>,
    /// What else there is to know of it.
    pub details: NodeDetails,
}

/// By which the thread that owns NVML learns that somebody wants details.
#[derive(Debug, Clone)]
pub struct Details {
    described: watch::Sender<Option<Arc<Described>>>,
    wake: mpsc::Sender<()>,
}

impl Details {
    pub(crate) fn new() -> (Self, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::channel();
        (Self { described: watch::Sender::new(None), wake }, woken)
    }

    /// From now on details are read after each pass that showed something new; the first at once, if the driver answers.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Described>>> {
        let described = self.described.subscribe();
        // If the thread has ended, there will be no details.
        let _ = self.wake.send(());
        described
    }

    /// Reads and publishes what is new, if anybody listens.
    pub(crate) fn publish(&self, describer: &mut Describer<'_>, inventory: &Arc<NodeInventory>) {
        if self.described.receiver_count() > 0
            && let Some(details) = describer.describe(inventory)
        {
            self.described.send_replace(Some(Arc::new(Described { inventory: Arc::clone(inventory), details })));
        }
    }
}

/// What outlives a pass.
pub(crate) struct Describer<'s> {
    session: &'s Session,
    sys_root: &'s Path,
    known: NodeDetails,
    last: Option<Arc<NodeInventory>>,
}

impl<'s> Describer<'s> {
    pub(crate) fn new(session: &'s Session, sys_root: &'s Path) -> Self {
        Self { session, sys_root, known: NodeDetails::default(), last: None }
    }

    /// Nothing, if the inventory is the one that was described last, and nothing failed then. What a driver refuses
    /// for good is an answer, so only what may pass is asked again.
    fn describe(&mut self, inventory: &Arc<NodeInventory>) -> Option<NodeDetails> {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, inventory)) {
            return None;
        }
        let mut complete = true;
        if self.known.cuda.is_none() {
            self.known.cuda = self.session.cuda_version().ok();
        }
        for gpu in inventory.gpus.iter().filter(|gpu| gpu.fault.is_none()) {
            if let Err(error) = self.gpu(gpu) {
                tracing::debug!(gpu = gpu.index, "not all is known that labels would say: {error}");
                complete = false;
            }
        }
        self.last = complete.then(|| Arc::clone(inventory));
        Some(self.known.clone())
    }

    fn gpu(&mut self, gpu: &Gpu) -> Result<(), DriverError> {
        // Some drivers don't tell the memory of a GPU that is cut.
        let untold = |known: &GpuDetails| known.memory_mib.is_none() && !gpu.mig.is_enabled();
        let is_new = self.known.gpus.get(&gpu.uuid).is_none_or(untold);
        let parts = gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
        // One of each profile will do.
        let mut parts: BTreeMap<_, _> = parts.map(|compute| (part_key(gpu, compute), compute)).collect();
        parts.retain(|key, _| !self.known.parts.contains_key(key));
        if !is_new && parts.is_empty() {
            return Ok(());
        }
        let handle = self.session.gpu_by_uuid(&gpu.uuid)?;
        for (key, compute) in parts {
            if let Some(details) = part(&handle, compute)? {
                self.known.parts.insert(key, details);
            }
        }
        if is_new {
            let details = whole(&handle, gpu, self.sys_root)?;
            self.known.gpus.insert(gpu.uuid.clone(), details);
        }
        Ok(())
    }
}

fn part_key(gpu: &Gpu, compute: &ComputeInstance) -> (String, mig_model::Profile) {
    (gpu.name.clone(), compute.profile.clone())
}

fn whole(handle: &Handle<'_>, gpu: &Gpu, sys_root: &Path) -> Result<GpuDetails, DriverError> {
    let capability = allowed(handle.compute_capability())?;
    let class = gpu.pci_address.as_deref().and_then(|address| pci_file(sys_root, address, "class"));
    Ok(GpuDetails {
        memory_mib: allowed(handle.memory_bytes())?.map(|bytes| bytes >> 20),
        compute_capability: capability
            .and_then(|(major, minor)| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))),
        pci_class: class.and_then(|class| u32::from_str_radix(class.trim().strip_prefix("0x")?, 16).ok()),
    })
}

/// Nothing if the driver does not tell, or it is not there any more: the next pass will have noticed.
fn part(gpu: &Handle<'_>, compute: &ComputeInstance) -> Result<Option<PartDetails>, DriverError> {
    let Some(index) = compute.index else { return Ok(None) };
    let ask = || {
        let device = gpu.mig_device(index)?;
        // Indices move when others are destroyed.
        if device.uuid()? != compute.uuid.as_str() { Ok(None) } else { device.attributes().map(Some) }
    };
    let attributes = match ask() {
        Err(error) if error.is_gone() => None,
        answer => allowed(answer)?.flatten(),
    };
    Ok(attributes.map(|attributes| {
        let [copy, decoder, encoder, jpeg, ofa] = attributes.share.engines;
        PartDetails {
            memory_mib: attributes.share.memory_mib,
            multiprocessors: attributes.multiprocessors,
            gpu_slices: attributes.share.slices,
            compute_slices: attributes.compute_slices,
            engines: Engines { copy, decoder, encoder, jpeg, ofa },
        }
    }))
}
