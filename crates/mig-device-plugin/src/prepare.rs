//! Between what the node has and what is offered: whatever a container needs of a device is made ready first.
//!
//! ```text
//!   watch<Offers> --> Follow --(a thread that may touch the disk)--> Prepare --> watch<Prepared> --> Fleet
//! ```
//! A device that cannot be given is offered with a fault, which makes it Unhealthy. Allocate finds everything in memory.

pub(crate) mod leftover;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use driver_files::{Driver, Majors, MigMinors, Node, NodeError, Provided, Root, provide};
use kubelet::causes;
use kubelet::deviceplugin::DeviceSpec;
use mig_model::{Device, Fault, Offers, ResourceName};

use crate::cdi::{self, Spec, store};
use crate::container::gift::{Gift, Offered};
use crate::container::{ContainerSettings, Files};
use crate::fleet::Wanted;

/// As the driver has its capabilities of instances: everybody may use them whom the container runtime lets.
const CAPABILITY_MODE: u32 = 0o444;

/// What can be offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// With what settings.
    pub(crate) container: Arc<ContainerSettings>,
    pub(crate) resources: BTreeMap<ResourceName, Vec<Offered>>,
    /// What keeps all devices of the node from being given.
    pub(crate) problem: Option<String>,
    /// What keeps some from being given, and then what they may lack; one line each.
    pub(crate) complaints: Vec<String>,
    /// How many of them keep a device from being given.
    pub(crate) blocking: usize,
    /// Whether something is kept only because a pod may still hold it.
    pub(crate) keeps: bool,
}

/// Makes devices ready, by reading and writing files: it may take its time, or hang with the disk.
#[derive(Debug)]
pub(crate) struct Prepare {
    /// The devices of the CDI spec, once the one of an earlier agent was read.
    written: Mutex<Option<Members>>,
}

/// The devices of a CDI spec, by name.
type Members = BTreeMap<String, cdi::Device>;

/// A device's own nodes, and whether each may be made.
struct OwnNodes {
    gpu: Node,
    capabilities: Vec<Node>,
}

/// What goes with the GPUs, as far as it is there.
#[derive(Debug, Default)]
struct Extras {
    nodes: Vec<Node>,
    files: Vec<Provided>,
    /// What is not there, in words.
    missing: Vec<&'static str>,
}

impl Extras {
    fn of(settings: &ContainerSettings, dev: Option<&Root>) -> Self {
        let mut extras = Self::default();
        for extra in &settings.extras {
            let nodes = dev.map(|dev| extra.nodes(dev)).unwrap_or_default();
            if nodes.is_empty() {
                extras.missing.push(extra.lacks());
            }
            extras.nodes.extend(nodes);
            extras.files.extend(dev.map(|dev| extra.files(dev)).unwrap_or_default());
        }
        extras
    }
}

impl Prepare {
    pub(crate) fn new() -> Self {
        Self { written: Mutex::new(None) }
    }

    /// Makes everything ready, as far as it goes. `may_drop` knows which devices no pod holds any more.
    pub(crate) fn run(&self, wanted: &Wanted, may_drop: impl Fn(&str) -> bool) -> Prepared {
        let Wanted { offers, container: settings } = wanted;
        let mut prepared = Prepared { container: Arc::clone(settings), ..Prepared::default() };
        let mut devices: Vec<(&ResourceName, Device, Vec<DeviceSpec>)> = Vec::new();
        for (resource, offered) in &offers.resources {
            devices.extend(offered.iter().map(|device| (resource, device.clone(), Vec::new())));
        }
        if settings.touches_files() {
            let usable = devices.iter().any(|(_, device, _)| device.fault.is_none());
            let version = &offers.driver_version;
            if let Err(problem) = self.make_ready(settings, &mut devices, version, may_drop, &mut prepared) {
                for (_, device, _) in &mut devices {
                    mark(device, "NotPrepared", &problem);
                }
                prepared.problem = Some(problem);
            } else if usable && devices.iter().all(|(_, device, _)| device.fault.is_some()) {
                let first = prepared.complaints.first().cloned().unwrap_or_default();
                prepared.problem = Some(format!("no device can be given to a container; {first}"));
            }
        }
        for (resource, device, nodes) in devices {
            let gift = Gift::new(&device, settings.id_strategy, nodes);
            prepared.resources.entry(resource.clone()).or_default().push(Offered { device, gift });
        }
        prepared
    }

    /// What can be said of new offers without touching a file: what was ready stays so, what is gone is gone, and what
    /// is new has to wait.
    pub(crate) fn meanwhile(ready: &Prepared, offers: &Offers, why: &str) -> Prepared {
        let resources = offers.resources.iter().map(|(resource, devices)| {
            let known = ready.resources.get(resource).map_or(&[][..], Vec::as_slice);
            let offered = devices.iter().cloned().map(|mut device| {
                let same = |known: &&Offered| known.device.id == device.id && known.device.address == device.address;
                if let Some(known) = known.iter().find(same) {
                    // Whether the last one is gone is not known before it is looked for.
                    device.fault = device.fault.or_else(|| known.device.fault.clone());
                    return Offered { device, gift: known.gift.clone() };
                }
                mark(&mut device, "NotPrepared", why);
                let gift = Gift::new(&device, ready.container.id_strategy, Vec::new());
                Offered { device, gift }
            });
            (resource.clone(), offered.collect())
        });
        Prepared { resources: resources.collect(), ..ready.clone() }
    }

    fn make_ready(
        &self,
        settings: &ContainerSettings,
        devices: &mut [(&ResourceName, Device, Vec<DeviceSpec>)],
        version: &str,
        may_drop: impl Fn(&str) -> bool,
        prepared: &mut Prepared,
    ) -> Result<(), String> {
        let files = &settings.files;
        let (majors, minors) = numbers(files, devices.iter().map(|(_, device, _)| device))?;
        if majors.uvm.is_none() {
            let proc = files.proc_root.display();
            prepared.complaints.push(format!(
                "{proc}/devices has no nvidia-uvm: CUDA does not start in containers until that module is loaded (nvidia-modprobe -u)"
            ));
        }
        let dev = dev_root(files);
        let mut own = Vec::new();
        for (_, device, _) in devices.iter_mut() {
            own.push(match own_nodes(device, &majors, &minors) {
                Ok(nodes) => Some(nodes),
                Err(why) => {
                    mark(device, "NoDeviceNumbers", &why);
                    prepared.block(device, "NoDeviceNumbers", &why);
                    None
                }
            });
        }
        let common = common_nodes(&majors, dev.as_ref().ok());
        let extras = Extras::of(settings, dev.as_ref().ok());
        prepared.complaints.extend(extras.missing.iter().map(|lacks| (*lacks).to_owned()));
        if settings.passes_nodes() {
            let dev = dev.as_ref().map_err(Clone::clone)?;
            let control = common.first().map_or(Ok(()), |control| provide(dev, control, None));
            control.map_err(|error| causes(&error))?;
            for ((_, device, nodes), own) in devices.iter_mut().zip(&own) {
                let Some(own) = own else { continue };
                match pass(dev, &common, own, &extras.nodes) {
                    Ok(specs) => *nodes = specs,
                    Err(error) => {
                        let why = causes(&error);
                        mark(device, "NoDeviceNode", &why);
                        prepared.block(device, "NoDeviceNode", &why);
                    }
                }
            }
        }
        if settings.writes_cdi() {
            let all: Vec<_> = devices.iter().zip(&own).map(|((_, device, _), own)| (device, own.as_ref())).collect();
            self.write_spec(files, &all, (&common, extras), version, may_drop, prepared)?;
        }
        Ok(())
    }

    /// The spec has every device that is there, and those that are not but may still be in a pod: the kubelet gives a
    /// container that starts again the name that it was given first.
    fn write_spec(
        &self,
        files: &Files,
        devices: &[(&Device, Option<&OwnNodes>)],
        (common, extras): (&[Node], Extras),
        version: &str,
        may_drop: impl Fn(&str) -> bool,
        prepared: &mut Prepared,
    ) -> Result<(), String> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match written.take() {
            Some(before) => before,
            None => read_spec(files, |complaint| prepared.complaints.push(complaint))?,
        };
        let mut next = Members::new();
        for (device, own) in devices {
            next.extend(member(device, *own, &before));
        }
        let gone = gone(&before, devices, may_drop);
        prepared.keeps |= !gone.is_empty();
        next.extend(gone);
        // A file that could not be written is still what containers are given by.
        let outcome = put_spec(files, &next, (common, extras), version);
        *written = Some(if outcome.is_ok() { next } else { before });
        outcome
    }
}

/// The devices of the spec that an earlier agent wrote.
fn read_spec(files: &Files, complain: impl FnOnce(String)) -> Result<Members, String> {
    let folder = files.cdi_dir.display();
    let spec = match store::read(&files.cdi_dir) {
        Ok(spec) => spec,
        Err(store::ReadError::NoSpec(why)) => {
            complain(format!("the CDI spec in {folder} cannot be read and is written anew: {why}"));
            None
        }
        // What it has may be of use to containers, and is not to be lost.
        Err(store::ReadError::Io(why)) => return Err(format!("unable to read the CDI spec in {folder}: {why}")),
    };
    Ok(spec.map_or_else(Vec::new, |spec| spec.devices).into_iter().map(named).collect())
}

/// A device that is there, as the spec has it: as it was when it was last known, where its numbers are not known now.
fn member(device: &Device, own: Option<&OwnNodes>, before: &Members) -> Option<(String, cdi::Device)> {
    match own {
        Some(own) => Some(named(cdi::Device::new(&device.uuid, &own.all()))),
        None => before.get(&cdi::name(&device.uuid)).cloned().map(named),
    }
}

/// Those of the spec that are not there any more, and that a pod may hold; without what is another's by now.
fn gone(before: &Members, devices: &[(&Device, Option<&OwnNodes>)], may_drop: impl Fn(&str) -> bool) -> Members {
    let present: BTreeSet<String> = devices.iter().map(|(device, _)| cdi::name(&device.uuid)).collect();
    let known = devices.iter().filter_map(|(device, own)| member(device, *own, before));
    let taken: BTreeSet<String> =
        known.flat_map(|(_, device)| device.capabilities().map(str::to_owned).collect::<Vec<_>>()).collect();
    // The ids of old drivers are not names, so nobody can be asked about them.
    let stays = |name: &String| !present.contains(name) && (name.contains('_') || !may_drop(name));
    let gone = before.iter().filter(|(name, _)| stays(name));
    gone.map(|(name, device)| (name.clone(), device.clone().without(&taken))).collect()
}

fn put_spec(
    files: &Files,
    members: &Members,
    (common, extras): (&[Node], Extras),
    version: &str,
) -> Result<(), String> {
    let driver = Driver::find(&files.driver_root_here, &files.driver_root, version);
    let mut driver = driver.map_err(|error| causes(&error))?;
    driver.files.extend(extras.files);
    let common = [common, &extras.nodes].concat();
    let spec = Spec::new(members.clone(), &common, &driver);
    let changed = store::write(&files.cdi_dir, &spec).map_err(|error| causes(&error))?;
    if changed {
        tracing::info!(directory = %files.cdi_dir.display(), devices = members.len(), files = driver.files.len(), "the CDI spec has changed");
    }
    Ok(())
}

impl Prepared {
    /// Of all replicas of a device once.
    fn block(&mut self, device: &Device, reason: &str, why: &str) {
        let line = format!("{} is Unhealthy ({reason}): {why}", device.uuid);
        if !self.complaints[..self.blocking].contains(&line) {
            self.complaints.insert(self.blocking, line);
            self.blocking += 1;
        }
    }
}

impl OwnNodes {
    fn all(&self) -> Vec<Node> {
        [std::slice::from_ref(&self.gpu), &self.capabilities].concat()
    }
}

fn named(device: cdi::Device) -> (String, cdi::Device) {
    (device.name.clone(), device)
}

/// The driver's own word on what is wrong with a device comes first.
fn mark(device: &mut Device, kind: &'static str, why: &str) {
    if device.fault.is_none() {
        device.fault = Some(Fault { kind, message: why.to_owned() });
    }
}

/// Where the device nodes are: if nobody says, in the driver root, or here.
fn dev_root(files: &Files) -> Result<Root, String> {
    let open = |here: &Path, node: &Path| {
        Root::open(here, node).map_err(|error| format!("unable to open the root of /dev {}: {error}", here.display()))
    };
    match (&files.dev_root, &files.dev_root_here) {
        (Some(node), Some(here)) => open(here, node),
        (Some(node), None) if *node == files.driver_root => open(&files.driver_root_here, node),
        (Some(node), None) => open(node, node),
        (None, Some(here)) => open(here, Path::new("/")),
        (None, None) => {
            let drivers = open(&files.driver_root_here, &files.driver_root);
            let has_nodes = |root: &Root| root.find(Path::new("dev/nvidiactl")).is_ok();
            drivers.ok().filter(has_nodes).map_or_else(|| open(Path::new("/"), Path::new("/")), Ok)
        }
    }
}

/// By which numbers the driver's files are known.
fn numbers<'d>(
    files: &Files,
    mut devices: impl Iterator<Item = &'d Device>,
) -> Result<(Majors, Result<MigMinors, String>), String> {
    let majors = Majors::read(&files.proc_root).map_err(|error| causes(&error))?;
    let minors = match devices.any(|device| device.address.mig.is_some()) {
        true => MigMinors::read(&files.proc_root).map_err(|error| causes(&error)),
        false => Ok(MigMinors::default()),
    };
    Ok((majors, minors))
}

fn own_nodes(device: &Device, majors: &Majors, minors: &Result<MigMinors, String>) -> Result<OwnNodes, String> {
    let gpu_minor = device.address.gpu_minor.ok_or("the driver does not say the GPU's minor number")?;
    let gpu = Node { name: format!("nvidia{gpu_minor}"), major: majors.gpu, minor: gpu_minor };
    let Some(mig) = device.address.mig else { return Ok(OwnNodes { gpu, capabilities: Vec::new() }) };
    let major = majors.capabilities.ok_or("/proc/devices has no nvidia-caps: MIG needs a driver that has it")?;
    let (instance, compute) = (mig.gpu_instance, mig.compute_instance);
    let minors = minors.as_ref()?.of(gpu_minor, instance, compute).ok_or_else(|| {
        format!("driver/nvidia-caps/mig-minors in /proc lacks gpu{gpu_minor}/gi{instance}/ci{compute}")
    })?;
    let capability = |minor| Node { name: format!("nvidia-caps/nvidia-cap{minor}"), major, minor };
    Ok(OwnNodes { gpu, capabilities: minors.map(capability).to_vec() })
}

/// What every container with a GPU needs: the first of all, the others where the driver has them.
fn common_nodes(majors: &Majors, dev: Option<&Root>) -> Vec<Node> {
    let node = |name: &str, major, minor| Node { name: name.to_owned(), major, minor };
    let mut nodes = vec![node("nvidiactl", majors.gpu, 255)];
    if let Some(uvm) = majors.uvm {
        nodes.extend([node("nvidia-uvm", uvm, 0), node("nvidia-uvm-tools", uvm, 1)]);
    }
    // No use for computing, and on many nodes not loaded.
    let modeset = node("nvidia-modeset", majors.gpu, 254);
    nodes.extend(dev.is_some_and(|dev| provide(dev, &modeset, None).is_ok()).then_some(modeset));
    nodes
}

/// The nodes as the kubelet passes them on: all have to be there, or the container does not start.
fn pass(dev: &Root, common: &[Node], own: &OwnNodes, extras: &[Node]) -> Result<Vec<DeviceSpec>, NodeError> {
    provide(dev, &own.gpu, None)?;
    own.capabilities.iter().try_for_each(|node| provide(dev, node, Some(CAPABILITY_MODE)))?;
    let (control, optional) = common.split_at(common.len().min(1));
    let present = optional.iter().filter(|node| provide(dev, node, None).is_ok());
    let nodes = control.iter().chain(present).chain([&own.gpu]).chain(&own.capabilities).chain(extras);
    let spec = |node: &Node| DeviceSpec {
        container_path: node.path(),
        host_path: dev.node().join("dev").join(&node.name).display().to_string(),
        permissions: "rw".to_owned(),
    };
    Ok(nodes.map(spec).collect())
}

#[cfg(test)]
mod tests;
