//! One pass over the node's GPUs: NVML's answers become a `NodeInventory`.
//!
//! A real driver takes some 7 us for an answer, so each question is asked once: ten for a GPU, four for a MIG device,
//! two for a GPU instance, one for the name of a profile that was not met before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use mig_model::{
    ComputeInstance, Driver, Fault, Gpu, GpuInstance, GpuUuid, MigMode, MigUuid, NodeInventory, Process, Profile,
    UnreadableGpu, Vitals,
};

use crate::error::DriverError;
use crate::names::ProfileNames;
use crate::session::{Handle, Seen, Session};

/// Far more than any machine has.
pub(crate) const MOST_GPUS: u32 = 1024;
/// Seven on the GPUs that there are.
const MOST_MIG_DEVICES: u32 = 128;

/// What outlives a pass.
pub(crate) struct Reader<'s> {
    session: &'s Session,
    sys_root: &'s Path,
    pub(crate) driver: Driver,
    names: ProfileNames,
    warned_of_age: bool,
    warned_of_permission: bool,
}

/// A GPU of which no more is known than who it is.
pub(crate) struct Identified<'s> {
    pub(crate) handle: Handle<'s>,
    pub(crate) gpu: Gpu,
    /// What GPUs have in common that name their profiles alike.
    pub(crate) model: String,
    /// PCI device and vendor, and the subsystem's.
    pub(crate) pci_ids: Option<(u32, u32)>,
}

/// GPUs that were there and that the driver counts no more: it would not say a word of them.
fn gone(before: &NodeInventory, now: &NodeInventory) -> Vec<UnreadableGpu> {
    let is_there = |uuid: &GpuUuid| now.gpus.iter().any(|gpu| gpu.uuid == *uuid);
    let known = before.unreadable.iter().filter(|gpu| gpu.uuid.as_ref().is_some_and(|uuid| !is_there(uuid))).cloned();
    let new = before.gpus.iter().filter(|gpu| !is_there(&gpu.uuid)).map(|gpu| UnreadableGpu {
        index: gpu.index,
        uuid: Some(gpu.uuid.clone()),
        fault: Fault {
            kind: "GpuIsGone",
            message: format!(
                "{} ({}) is not among the driver's GPUs any more: if it was not taken out on purpose, reset it or restart the node, else restart the agent",
                gpu.uuid, gpu.name
            ),
        },
    });
    known.chain(new).collect()
}

/// A MIG device, and which compute instance it stands for.
pub(crate) struct MigDevice<'s> {
    pub(crate) device: Handle<'s>,
    pub(crate) index: u32,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
    pub(crate) uuid: MigUuid,
}

impl<'s> Reader<'s> {
    pub(crate) fn new(session: &'s Session, sys_root: &'s Path) -> Result<Self, DriverError> {
        let version = said(session.driver_version())?.unwrap_or_default();
        let driver = Driver { version, nvml: said(session.nvml_version())?.unwrap_or_default() };
        Ok(Self {
            session,
            sys_root,
            driver,
            names: ProfileNames::default(),
            warned_of_age: false,
            warned_of_permission: false,
        })
    }

    /// Reads everything. A GPU that fails keeps what `before` knew of it, marked with the fault; only a driver that
    /// can't even count its GPUs fails the pass.
    pub(crate) fn pass(&mut self, before: Option<&NodeInventory>) -> Result<NodeInventory, DriverError> {
        let mut inventory = NodeInventory { driver: self.driver.clone(), ..NodeInventory::default() };
        for index in 0..plausible("GPUs", self.session.gpu_count()?, MOST_GPUS)? {
            match self.gpu(index, before) {
                Ok(gpu) => inventory.gpus.push(gpu),
                Err(error) => {
                    let fault = error.fault();
                    match before.and_then(|before| before.gpus.iter().find(|gpu| gpu.index == index)) {
                        Some(known) => inventory.gpus.push(Gpu { fault: Some(fault), outdated: true, ..known.clone() }),
                        None => inventory.unreadable.push(UnreadableGpu { index, uuid: None, fault }),
                    }
                }
            }
        }
        // Indices may have moved: what was read now is the truth about a GPU, not what was known at another's index.
        let read: HashSet<GpuUuid> =
            inventory.gpus.iter().filter(|gpu| gpu.fault.is_none()).map(|gpu| gpu.uuid.clone()).collect();
        inventory.gpus.retain(|gpu| gpu.fault.is_none() || !read.contains(&gpu.uuid));
        let gone = before.map(|before| gone(before, &inventory)).unwrap_or_default();
        inventory.unreadable.extend(gone);
        Ok(inventory)
    }

    fn gpu(&mut self, index: u32, before: Option<&NodeInventory>) -> Result<Gpu, DriverError> {
        let Identified { handle, mut gpu, model, .. } = self.identify(index, before)?;
        gpu.mig = self.mig_mode(&handle)?;
        let computing = handle.computing();
        // Who may not see all that runs on a GPU may see what runs on its parts.
        let mut on_parts = matches!(&computing, Err(error) if error.is_denied()).then(Vec::new);
        if gpu.mig.is_enabled() {
            gpu.instances = self.instances(index, &handle, &model, |part| look_at(&mut on_parts, part))?;
            gpu.processes = computing.ok().or(on_parts).map(users);
        } else {
            gpu.processes = computing.ok().map(users);
        }
        gpu.vitals = handle.vitals();
        Ok(gpu)
    }

    /// Who a GPU is, and nothing of how it is cut.
    pub(crate) fn identify(&self, index: u32, before: Option<&NodeInventory>) -> Result<Identified<'s>, DriverError> {
        let handle = self.session.gpu(index)?;
        let uuid = GpuUuid::new(handle.uuid()?)?;
        let name = said(handle.name())?.unwrap_or_else(|| "GPU without a name".to_owned());
        let pci = said(handle.pci())?;
        let pci_address = pci.as_ref().map(|pci| kernel_pci_address(&pci.bus));
        let pci_ids = pci.map(|pci| (pci.device, pci.subsystem));
        let known =
            before.and_then(|before| before.gpus.iter().find(|gpu| gpu.uuid == uuid && gpu.pci_address == pci_address));
        let numa_node = match known {
            Some(gpu) => gpu.numa_node,
            None => pci_address.as_deref().and_then(|address| numa_node(self.sys_root, address)),
        };
        let minor = said(handle.minor())?;
        let model = format!("{:08x} {name}", pci_ids.map_or(0, |(device, _)| device));
        let (mig, instances) = (MigMode::Unsupported, Vec::new());
        let gpu = Gpu {
            index,
            uuid,
            name,
            minor,
            pci_address,
            numa_node,
            mig,
            instances,
            vitals: Vitals::default(),
            processes: None,
            unwatched: None,
            outdated: false,
            fault: None,
        };
        Ok(Identified { handle, gpu, model, pci_ids })
    }

    pub(crate) fn mig_mode(&mut self, gpu: &Handle<'_>) -> Result<MigMode, DriverError> {
        match gpu.mig_mode() {
            Ok((enabled, pending)) => Ok(MigMode::Known { enabled, pending }),
            Err(error) if error.is_unsaid() => {
                if error.is_absent() && !self.warned_of_age {
                    self.warned_of_age = true;
                    tracing::warn!(
                        driver = self.driver.version,
                        "this driver has no MIG functions: MIG needs R450 or later, GPUs are offered whole"
                    );
                }
                Ok(MigMode::Unsupported)
            }
            Err(error) => Err(error),
        }
    }

    /// The GPU instances that have compute instances, as MIG devices tell of them.
    pub(crate) fn instances(
        &mut self,
        index: u32,
        gpu: &Handle<'_>,
        model: &str,
        mut each: impl FnMut(&MigDevice<'_>),
    ) -> Result<Vec<GpuInstance>, DriverError> {
        let mut instances: BTreeMap<u32, GpuInstance> = BTreeMap::new();
        for part in mig_devices(gpu)? {
            each(&part);
            let MigDevice { device, index: position, gpu_instance, compute_instance, uuid } = part;
            let instance = match instances.entry(gpu_instance) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let Some(instance) = unless_gone(self.instance(index, gpu, &device, gpu_instance, model))? else {
                        continue;
                    };
                    place.insert(instance)
                }
            };
            let Some(profile) = unless_gone(compute_profile(&device, &instance.profile))? else { continue };
            let (id, index) = (compute_instance, Some(position));
            instance.compute_instances.push(ComputeInstance { id, profile, uuid, index, placement: None, fault: None });
        }
        let mut instances: Vec<GpuInstance> =
            instances.into_values().filter(|i| !i.compute_instances.is_empty()).collect();
        sort(&mut instances);
        Ok(instances)
    }
}

impl Reader<'_> {
    /// A GPU instance, yet without its compute instances.
    ///
    /// Only those who hold the MIG monitor capability may ask for it by its id. Without it the name is worked out from
    /// what one of its MIG devices has, which everybody may see; its placement stays unknown.
    fn instance(
        &mut self,
        index: u32,
        gpu: &Handle<'_>,
        device: &Handle<'_>,
        id: u32,
        model: &str,
    ) -> Result<GpuInstance, DriverError> {
        let (profile, placement) = match gpu.instance(id).and_then(|instance| instance.info()) {
            Ok(info) => (self.names.by_id(model, gpu, index, info.profile_id)?, Some(info.placement)),
            Err(error) if error.is_denied() => {
                let Some(profile) = self.names.by_share(model, gpu, device.attributes()?.share)? else {
                    return Err(error);
                };
                if !self.warned_of_permission {
                    self.warned_of_permission = true;
                    tracing::warn!(
                        "placements stay unknown, profiles are told apart by their sizes, and the driver may not tell of errors (XIDs) in single slices: {error}"
                    );
                }
                (profile, None)
            }
            Err(error) => return Err(error),
        };
        Ok(GpuInstance { id, profile, placement, compute_instances: Vec::new() })
    }
}

/// The MIG devices of a GPU.
pub(crate) fn mig_devices<'s>(gpu: &Handle<'s>) -> Result<Vec<MigDevice<'s>>, DriverError> {
    let mut devices = Vec::new();
    for position in 0..plausible("MIG devices on one GPU", gpu.max_mig_devices()?, MOST_MIG_DEVICES)? {
        // The index has gaps, and an instance may be destroyed under our hands: neither is a fault of the GPU.
        let Some(device) = unless_gone(gpu.mig_device(position))? else { continue };
        let Some((uuid, gpu_instance, compute_instance)) = unless_gone(identify(&device))? else { continue };
        let uuid = MigUuid::new(uuid)?;
        devices.push(MigDevice { device, index: position, gpu_instance, compute_instance, uuid });
    }
    Ok(devices)
}

/// Adds what runs on a part; none is known any more once one part keeps it to itself.
fn look_at(seen: &mut Option<Vec<Seen>>, part: &MigDevice<'_>) {
    let Some(all) = seen else { return };
    let place =
        |own| Seen { gpu_instance: Some(part.gpu_instance), compute_instance: Some(part.compute_instance), ..own };
    match part.device.computing() {
        Ok(own) => all.extend(own.into_iter().map(place)),
        // It was destroyed meanwhile.
        Err(error) if error.is_gone() => {}
        Err(_) => *seen = None,
    }
}

/// Who they are and where, in order. What they use of memory would be another reading each time.
fn users(seen: Vec<Seen>) -> Vec<Process> {
    let user = |Seen { pid, gpu_instance, compute_instance, .. }| Process {
        pid,
        gpu_instance,
        compute_instance,
        memory_bytes: None,
        name: None,
    };
    let mut users: Vec<Process> = seen.into_iter().map(user).collect();
    users.sort();
    users.dedup();
    users
}

/// By placement, and compute instances by id.
pub(crate) fn sort(instances: &mut [GpuInstance]) {
    instances.sort_by_key(|instance| (instance.placement, instance.id));
    instances.iter_mut().for_each(|instance| instance.compute_instances.sort_by_key(|compute| compute.id));
}

/// What a driver may leave unsaid, and the agent can do without.
pub(crate) fn said<T>(answer: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsaid() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a driver may leave unsaid, or keep from us.
pub(crate) fn allowed<T>(answer: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A count from a driver that has lost its mind must not become a loop without end.
pub(crate) fn plausible(what: &'static str, count: u32, most: u32) -> Result<u32, DriverError> {
    if count > most { Err(DriverError::Implausible { what, count }) } else { Ok(count) }
}

fn identify(device: &Handle<'_>) -> Result<(String, u32, u32), DriverError> {
    Ok((device.uuid()?, device.gpu_instance_id()?, device.compute_instance_id()?))
}

/// A GPU instance of one slice has room for one compute instance only, so most devices need not be asked.
fn compute_profile(device: &Handle<'_>, gpu_instance: &Profile) -> Result<Profile, DriverError> {
    if gpu_instance.slices() == 1 {
        return Ok(gpu_instance.clone());
    }
    let slices = u8::try_from(device.attributes()?.compute_slices).unwrap_or_default();
    Ok(gpu_instance.with_compute_slices(slices)?)
}

fn unless_gone<T>(answer: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// NVML writes `00000000:07:00.0`, the kernel `0000:07:00.0`.
fn kernel_pci_address(bus: &str) -> String {
    let lower = bus.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) => match u32::from_str_radix(domain, 16) {
            Ok(domain) => format!("{domain:04x}:{rest}"),
            Err(_) => lower,
        },
        None => lower,
    }
}

/// The kernel writes -1 where it does not know.
fn numa_node(sys_root: &Path, pci_address: &str) -> Option<u32> {
    pci_file(sys_root, pci_address, "numa_node")?.trim().parse().ok()
}

/// What the kernel says of a PCI device.
pub(crate) fn pci_file(sys_root: &Path, pci_address: &str, name: &str) -> Option<String> {
    // The address is the driver's text: it must not lead out of the folder.
    let plain =
        pci_address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.') && !pci_address.contains("..");
    let file = sys_root.join("bus/pci/devices").join(pci_address).join(name);
    plain.then(|| fs::read_to_string(file).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_written_as_the_kernel_does() {
        assert_eq!(kernel_pci_address("00000000:07:00.0"), "0000:07:00.0");
        assert_eq!(kernel_pci_address("00010000:A7:00.0"), "10000:a7:00.0");
        assert_eq!(kernel_pci_address("nonsense"), "nonsense");
    }

    #[test]
    fn the_numa_node_is_the_kernels() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("bus/pci/devices/0000:07:00.0");
        fs::create_dir_all(&folder).unwrap();
        for (content, node) in [("1\n", Some(1)), ("0\n", Some(0)), ("-1\n", None), ("x", None)] {
            fs::write(folder.join("numa_node"), content).unwrap();
            assert_eq!(numa_node(sys.path(), "0000:07:00.0"), node);
        }
        assert_eq!(numa_node(sys.path(), "0000:08:00.0"), None);
        assert_eq!(numa_node(sys.path(), "../../../etc"), None);
    }
}
