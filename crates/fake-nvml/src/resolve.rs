//! From a scene to a world: defaults filled in, everything checked. What is wrong is said with its line.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde_saphyr::Spanned;

use crate::{
    faults::{FaultPart, MAX_FAULTS, fault},
    model::{Mig, Model, Profile},
    placing,
    scene::{ComputeScene, FaultScene, GpuScene, InstanceScene, MigModes, MigScene, Scene, describe},
    uuid,
    world::{ComputeInstance, Gpu, GpuInstance, PciAddress, Permission, Process, World},
};

const DRIVER: &str = "580.159.04";
const CUDA: i32 = 13000;
/// More than any machine has, few enough for handles.
pub(crate) const MAX_GPUS: usize = 256;

/// Why a scene is refused.
#[derive(Debug, thiserror::Error)]
#[error("scene {}: {reason}", path.display())]
pub struct SceneError {
    path: PathBuf,
    reason: String,
}

type Refused<T> = Result<T, String>;

/// The world that a scene file describes. Its objects get serial numbers from `first_serial` on.
pub fn load(path: &Path, first_serial: u32) -> Result<World, SceneError> {
    let refuse = |reason| SceneError { path: path.to_owned(), reason };
    let text = read(path).map_err(|error| refuse(error.to_string()))?;
    let scene: Scene = serde_saphyr::from_str(&text).map_err(|error| refuse(describe(&error)))?;
    let beside = path.parent().unwrap_or_else(|| Path::new("."));
    Resolver::new(first_serial).scene(&scene, beside).map_err(refuse)
}

/// A scene is some kilobytes long; what never ends is none.
fn read(path: &Path) -> io::Result<String> {
    const LONGEST: u64 = 4 << 20;
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("longer than 4 MiB: this is no scene"));
    }
    Ok(text)
}

struct Resolver {
    world: World,
    /// By the name in the scene.
    models: BTreeMap<String, usize>,
    uuids: BTreeSet<String>,
}

impl Resolver {
    fn new(first_serial: u32) -> Self {
        let world = World {
            driver: DRIVER.to_owned(),
            nvml: String::new(),
            cuda: CUDA,
            models: Vec::new(),
            gpus: Vec::new(),
            faults: Vec::new(),
            permission: Permission::default(),
            minors_move: false,
            events: VecDeque::new(),
            next_serial: first_serial,
        };
        Self { world, models: BTreeMap::new(), uuids: BTreeSet::new() }
    }

    fn scene(mut self, scene: &Scene, beside: &Path) -> Refused<World> {
        if let Some(driver) = &scene.driver {
            self.world.driver.clone_from(driver);
        }
        self.world.cuda = scene.cuda.unwrap_or(CUDA);
        self.world.permission = scene.permission;
        self.world.minors_move = scene.minors_move;
        let major = self.world.cuda / 1000;
        self.world.nvml = scene.nvml.clone().unwrap_or_else(|| format!("{major}.{}", self.world.driver));
        for gpu in &scene.gpus {
            self.gpus(gpu, beside)?;
        }
        for fault in &scene.faults {
            self.fault(fault, None)?;
        }
        Ok(self.world)
    }

    fn gpus(&mut self, scene: &GpuScene, beside: &Path) -> Refused<()> {
        let count = scene.count.as_ref().map_or(1, |count| count.value);
        if let Some(stated) = &scene.count {
            if stated.value == 0 {
                return at(stated, "count must be at least 1");
            }
            let uuids = scene.uuid.iter().chain(scene.instances.iter().flat_map(InstanceScene::uuids));
            let single = uuids.map(line).chain(scene.minor.iter().map(line)).chain(scene.pci.iter().map(line)).next();
            if let (Some(line), true) = (single, stated.value > 1) {
                return Err(format!(
                    "line {line}: a uuid, minor or pci address belongs to one GPU, and count is {count}"
                ));
            }
        }
        for _ in 0..count {
            if self.world.gpus.len() >= MAX_GPUS {
                return at(&scene.model, format!("more than {MAX_GPUS} GPUs"));
            }
            self.gpu(scene, beside)?;
        }
        Ok(())
    }

    fn gpu(&mut self, scene: &GpuScene, beside: &Path) -> Refused<()> {
        let index = self.world.gpus.len();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let model = self.model(&scene.model, beside)?;
        let stated = scene.mig.as_ref().map(|mig| (mig, mig.value));
        let modes = match stated {
            Some((_, MigScene::Both(on))) => MigModes { current: on, pending: on },
            Some((_, MigScene::Each(modes))) => modes,
            None => MigModes { current: !scene.instances.is_empty(), pending: !scene.instances.is_empty() },
        };
        let mig = self.world.models.get(model).and_then(|model| model.mig.clone());
        if mig.is_none() && (modes.current || modes.pending) {
            let reason = format!("{} has no MIG", scene.model.value);
            return stated.map_or_else(|| at(&scene.model, &reason), |(mig, _)| at(mig, &reason));
        }
        if let (false, Some(instance)) = (modes.current, scene.instances.first()) {
            return at(&instance.profile, "the GPU has MIG off and can have no instances");
        }
        let mut gpu = Gpu {
            serial: self.world.serial(),
            model,
            uuid: self.uuid(scene.uuid.as_ref(), "GPU-", || uuid::derived("GPU-", &format!("gpu {index}")))?,
            minor: self.minor(scene.minor.as_ref(), number)?,
            pci: self.pci(scene.pci.as_ref(), number)?,
            numa: scene.numa.unwrap_or(number / 4 % 2),
            board_serial: scene
                .serial
                .clone()
                .unwrap_or_else(|| format!("{:013}", 1_650_000_000_000_u64 + u64::from(number))),
            mig_current: modes.current,
            mig_pending: modes.pending,
            lost: scene.lost,
            vitals: scene.vitals,
            instances: Vec::new(),
            processes: Vec::new(),
        };
        if let Some(mig) = mig {
            let architecture = self.world.models.get(model).map_or(0, |model| model.architecture);
            for instance in &scene.instances {
                let made = self.instance(&gpu, &mig, architecture, instance)?;
                gpu.instances.push(made);
            }
            gpu.instances.sort_by_key(|instance| instance.id);
            number_mig_devices(&mut gpu, &mig, scene)?;
        }
        self.world.gpus.push(gpu);
        for process in &scene.processes {
            let memory = u64::from(process.memory) << 20;
            let name = process.name.clone().unwrap_or_else(|| Process::nameless(process.pid.value));
            let (graphics, instance, compute) = (process.graphics, process.instance, process.compute);
            let made = Process { pid: process.pid.value, name, memory, graphics, instance, compute };
            self.world.add_process(index, made).or_else(|refused| at(&process.pid, refused.to_string()))?;
        }
        scene.faults.iter().try_for_each(|fault| self.fault(fault, Some(index)))
    }

    fn model(&mut self, name: &Spanned<String>, beside: &Path) -> Refused<usize> {
        if let Some(known) = self.models.get(&name.value) {
            return Ok(*known);
        }
        let model = Model::load(&name.value, beside).or_else(|reason| at(name, reason))?;
        self.world.models.push(model);
        let index = self.world.models.len() - 1;
        self.models.insert(name.value.clone(), index);
        Ok(index)
    }

    fn minor(&self, stated: Option<&Spanned<u32>>, default: u32) -> Refused<u32> {
        let minor = stated.map_or(default, |minor| minor.value);
        match stated {
            Some(stated) if self.world.gpus.iter().any(|gpu| gpu.minor == minor) => {
                at(stated, format!("two GPUs have the minor number {minor}"))
            }
            // A GPU before may have been given this one's.
            None => {
                Ok((default..).find(|minor| !self.world.gpus.iter().any(|gpu| gpu.minor == *minor)).unwrap_or(default))
            }
            Some(_) => Ok(minor),
        }
    }

    fn pci(&self, stated: Option<&Spanned<String>>, number: u32) -> Refused<PciAddress> {
        let Some(stated) = stated else {
            let bus = 7 + number;
            let low = u8::try_from(bus % 256).unwrap_or_default();
            return Ok(PciAddress { domain: bus / 256, bus: low, device: 0, function: 0 });
        };
        let Some(address) = PciAddress::parse(&stated.value) else {
            return at(
                stated,
                format!("unable to read {:?} as a PCI address, expected e.g. \"0000:07:00.0\"", stated.value),
            );
        };
        if self.world.gpus.iter().any(|gpu| gpu.pci == address) {
            return at(stated, format!("two GPUs have the PCI address {}", stated.value));
        }
        Ok(address)
    }

    fn uuid(
        &mut self,
        stated: Option<&Spanned<String>>,
        prefix: &str,
        derive: impl FnOnce() -> String,
    ) -> Refused<String> {
        let Some(stated) = stated else {
            let derived = derive();
            self.uuids.insert(derived.clone());
            return Ok(derived);
        };
        if !uuid::is_valid(&stated.value, prefix) {
            return at(
                stated,
                format!("{:?} is no UUID, expected {prefix}xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", stated.value),
            );
        }
        if !self.uuids.insert(stated.value.clone()) {
            return at(stated, format!("the UUID {} is there twice", stated.value));
        }
        Ok(stated.value.clone())
    }

    fn instance(&mut self, gpu: &Gpu, mig: &Mig, architecture: u32, scene: &InstanceScene) -> Refused<GpuInstance> {
        let wanted = &scene.profile;
        let Some((position, profile)) = mig.profiles.iter().enumerate().find(|(_, known)| known.name == wanted.value)
        else {
            let known: Vec<&str> = mig.profiles.iter().map(|profile| profile.name.as_str()).collect();
            return at(wanted, format!("unknown profile {:?}; this model has {}", wanted.value, known.join(", ")));
        };
        if let Some(reason) = placing::refused(gpu, mig, profile) {
            return at(wanted, reason);
        }
        let places = &profile.placements;
        let free = |start: u32| placing::in_the_way(gpu, mig, profile, start).is_none();
        let start = match &scene.placement {
            Some(stated) if !places.starts.contains(&stated.value) => {
                let reason = format!("{} cannot be placed at {}; it can at {places}", profile.name, stated.value);
                return at(stated, reason);
            }
            Some(stated) => match placing::in_the_way(gpu, mig, profile, stated.value) {
                Some(other) => {
                    let held = mig.profiles.get(other.profile).map_or("", |held| &held.name);
                    let reason = format!("{} at {} overlaps {held} at {}", profile.name, stated.value, other.start);
                    return at(stated, reason);
                }
                None => stated.value,
            },
            None => match places.starts.iter().copied().find(|start| free(*start)) {
                Some(start) => start,
                None => return at(wanted, format!("no room for {} at any of {places}", profile.name)),
            },
        };
        let id = match &scene.id {
            Some(stated) if stated.value > 14 => return at(stated, "a GPU instance id is 0 to 14"),
            Some(stated) if gpu.instances.iter().any(|other| other.id == stated.value) => {
                return at(stated, format!("two GPU instances have the id {}", stated.value));
            }
            Some(stated) => stated.value,
            None => placing::instance_id(gpu, mig, architecture, profile, start),
        };
        let serial = self.world.serial();
        let mut made = GpuInstance { serial, id, profile: position, start, compute: Vec::new() };
        self.compute(gpu, profile, &mut made, scene)?;
        made.compute.sort_by_key(|compute| compute.id);
        Ok(made)
    }

    fn compute(&mut self, gpu: &Gpu, within: &Profile, made: &mut GpuInstance, scene: &InstanceScene) -> Refused<()> {
        let Some(stated) = &scene.compute else {
            let whole = ComputeScene {
                profile: scene.profile.clone(),
                placement: None,
                id: None,
                uuid: scene.uuid.clone(),
                index: scene.index.clone(),
            };
            return self.compute_instance(gpu, within, made, &whole);
        };
        if let Some(stray) = scene.uuid.as_ref().map(line).or(scene.index.as_ref().map(line)) {
            return Err(format!("line {stray}: with compute: given, uuid and index belong to its entries"));
        }
        stated.iter().try_for_each(|compute| self.compute_instance(gpu, within, made, compute))
    }

    fn compute_instance(
        &mut self,
        gpu: &Gpu,
        within: &Profile,
        made: &mut GpuInstance,
        scene: &ComputeScene,
    ) -> Refused<()> {
        let wanted = &scene.profile;
        let all = &within.compute_profiles;
        let Some((position, profile)) = all.iter().enumerate().find(|(_, known)| known.name == wanted.value) else {
            let known: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
            let reason =
                format!("unknown compute profile {:?}; {} has {}", wanted.value, within.name, known.join(", "));
            return at(wanted, reason);
        };
        let free = |start: u32| placing::compute_free(made, within, profile, start);
        let starts = &profile.placements.starts;
        let start = match &scene.placement {
            Some(stated) if !starts.contains(&stated.value) => {
                return at(stated, format!("{} can be placed at {}", profile.name, profile.placements));
            }
            Some(stated) if !free(stated.value) => {
                return at(stated, format!("{} at {} overlaps another compute instance", profile.name, stated.value));
            }
            Some(stated) => stated.value,
            None => match starts.iter().copied().find(|start| free(*start)) {
                Some(start) => start,
                None => {
                    return at(wanted, format!("too many instances: no room for {} in {}", profile.name, within.name));
                }
            },
        };
        let id = match &scene.id {
            Some(stated) if stated.value > 7 => return at(stated, "a compute instance id is 0 to 7"),
            Some(stated) if made.compute.iter().any(|other| other.id == stated.value) => {
                return at(stated, format!("two compute instances have the id {}", stated.value));
            }
            Some(stated) => stated.value,
            None => (0..).find(|id| !made.compute.iter().any(|other| other.id == *id)).unwrap_or_default(),
        };
        // Another slice is another device: what lies elsewhere or is cut otherwise gets another UUID.
        let seed = || format!("{} {} {} {} {start}", gpu.uuid, within.name, made.start, profile.name);
        let uuid = self.uuid(scene.uuid.as_ref(), "MIG-", || uuid::derived("MIG-", &seed()))?;
        let mig_index = scene.index.as_ref().map_or(u32::MAX, |index| index.value);
        made.compute.push(ComputeInstance {
            serial: self.world.serial(),
            id,
            profile: position,
            start,
            uuid,
            mig_index,
        });
        Ok(())
    }

    fn fault(&mut self, scene: &FaultScene, gpu: Option<usize>) -> Refused<()> {
        let fault = fault(
            &scene.call.value,
            gpu,
            scene.nth.as_ref().map(|nth| nth.value),
            scene.returns.as_ref().map(|returns| returns.value.as_str()),
            scene.delay.as_ref().map(|delay| delay.value.as_str()),
        );
        let fault = fault.or_else(|(part, reason)| match part {
            FaultPart::Call => at(&scene.call, reason),
            FaultPart::Returns => Err(format!("line {}: {reason}", scene.returns.as_ref().map_or(0, line))),
            FaultPart::Delay => Err(format!("line {}: {reason}", scene.delay.as_ref().map_or(0, line))),
            FaultPart::Nth => Err(format!("line {}: {reason}", scene.nth.as_ref().map_or(0, line))),
        })?;
        if self.world.faults.len() >= MAX_FAULTS {
            return at(&scene.call, format!("more than {MAX_FAULTS} faults"));
        }
        self.world.faults.push(fault);
        Ok(())
    }
}

impl InstanceScene {
    fn uuids(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.uuid.iter().chain(self.compute.iter().flatten().filter_map(|compute| compute.uuid.as_ref()))
    }
}

/// MIG devices are numbered in the order of instance ids, around the numbers that the scene states.
fn number_mig_devices(gpu: &mut Gpu, mig: &Mig, scene: &GpuScene) -> Refused<()> {
    let computes = scene.instances.iter().flat_map(|gi| gi.compute.iter().flatten());
    let stated: Vec<&Spanned<u32>> = scene
        .instances
        .iter()
        .filter_map(|gi| gi.index.as_ref())
        .chain(computes.filter_map(|ci| ci.index.as_ref()))
        .collect();
    let mut taken = BTreeSet::new();
    for index in stated {
        if index.value >= mig.max_devices {
            return at(index, format!("a MIG device's index is 0 to {}", mig.max_devices - 1));
        }
        if !taken.insert(index.value) {
            return at(index, format!("two MIG devices have the index {}", index.value));
        }
    }
    for compute in gpu.instances.iter_mut().flat_map(|instance| &mut instance.compute) {
        if compute.mig_index == u32::MAX {
            compute.mig_index = (0..).find(|index| !taken.contains(index)).unwrap_or_default();
            taken.insert(compute.mig_index);
        }
    }
    Ok(())
}

fn line<T>(stated: &Spanned<T>) -> u64 {
    stated.referenced.line()
}

fn at<T, U>(stated: &Spanned<T>, reason: impl AsRef<str>) -> Refused<U> {
    Err(format!("line {}: {}", line(stated), reason.as_ref()))
}
