//! The life of GPU and compute instances and of the MIG mode: what a driver does to a GPU when it is asked through NVML.
//!
//! Each of these either does the whole of it or refuses and leaves the world as it was.

use crate::{
    code::{Answer, Code},
    events::MIG_CONFIG_CHANGE,
    model::{ComputeProfile, Profile},
    placing, uuid,
    world::{ComputeInstance, Gpu, GpuInstance, Permission, World},
};

/// Where an instance is to lie, when the caller says so.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) start: u32,
    pub(crate) size: u32,
}

impl World {
    /// NO_PERMISSION for those who may do less.
    pub(crate) fn permit(&self, needed: Permission) -> Answer {
        if self.permission >= needed { Ok(()) } else { Err(Code::NO_PERMISSION) }
    }

    /// `nvmlDeviceCreateGpuInstance`, and the same with a placement; the answer is its id.
    pub(crate) fn create_instance(&mut self, index: usize, profile: u32, place: Option<Place>) -> Answer<u32> {
        self.permit(Permission::Config)?;
        let gpu = self.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        let mig = self.mig(gpu).filter(|_| gpu.mig_current).ok_or(Code::NOT_SUPPORTED)?;
        let mut all = mig.profiles.iter().enumerate();
        let (position, profile) = all.find(|(_, known)| known.id == profile).ok_or(Code::INVALID_ARGUMENT)?;
        legal(place, &profile.placements)?;
        if placing::refused(gpu, mig, profile).is_some() {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let start = match place {
            Some(place) => Some(place.start).filter(|at| placing::in_the_way(gpu, mig, profile, *at).is_none()),
            None => placing::start(gpu, mig, profile),
        };
        let start = start.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let architecture = self.model(gpu).map_or(0, |model| model.architecture);
        let id = placing::instance_id(gpu, mig, architecture, profile, start);
        let made = GpuInstance { serial: self.serial(), id, profile: position, start, compute: Vec::new() };
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        let after = gpu.instances.partition_point(|other| other.id < id);
        gpu.instances.insert(after, made);
        self.cut_anew(index);
        Ok(id)
    }

    /// `nvmlGpuInstanceDestroy`.
    pub(crate) fn destroy_instance(&mut self, index: usize, id: u32) -> Answer {
        self.permit(Permission::Config)?;
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        let at = gpu.instances.iter().position(|instance| instance.id == id).ok_or(Code::INVALID_ARGUMENT)?;
        let shared = gpu.instances.get(at).is_some_and(|instance| !instance.compute.is_empty());
        if shared || gpu.processes.iter().any(|process| process.instance == Some(id)) {
            return Err(Code::IN_USE);
        }
        gpu.instances.remove(at);
        self.cut_anew(index);
        Ok(())
    }

    /// `nvmlGpuInstanceCreateComputeInstance`, and the same with a placement; the answer is its id.
    pub(crate) fn create_compute(&mut self, index: usize, id: u32, profile: u32, place: Option<Place>) -> Answer<u32> {
        self.permit(Permission::Config)?;
        let gpu = self.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        let instance = gpu.instances.iter().find(|instance| instance.id == id).ok_or(Code::INVALID_ARGUMENT)?;
        let within = self.profile(gpu, instance).ok_or(Code::UNKNOWN)?;
        let mut all = within.compute_profiles.iter().enumerate();
        let (position, profile) = all.find(|(_, known)| known.id == profile).ok_or(Code::INVALID_ARGUMENT)?;
        legal(place, &profile.placements)?;
        let start = free_compute_start(instance, within, profile, place).ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let max = self.mig(gpu).map_or(0, |mig| mig.max_devices);
        let mig_index = lowest(gpu.mig_devices().map(|(_, other)| other.mig_index));
        if mig_index >= max {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let compute = lowest(instance.compute.iter().map(|other| other.id));
        let seed = gpu.uuid.clone();
        let serial = self.serial();
        // Whether a real slice that is cut as one before gets that one's UUID is not known; here it never does, so that
        // whoever keeps UUIDs learns that the slice is another.
        let uuid = uuid::derived("MIG-", &format!("{seed} made {serial}"));
        let made = ComputeInstance { serial, id: compute, profile: position, start, uuid, mig_index };
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        let instance = gpu.instances.iter_mut().find(|instance| instance.id == id).ok_or(Code::INVALID_ARGUMENT)?;
        let after = instance.compute.partition_point(|other| other.id < compute);
        instance.compute.insert(after, made);
        self.cut_anew(index);
        Ok(compute)
    }

    /// `nvmlComputeInstanceDestroy`.
    pub(crate) fn destroy_compute(&mut self, index: usize, id: u32, compute: u32) -> Answer {
        self.permit(Permission::Config)?;
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        let instance = gpu.instances.iter_mut().find(|instance| instance.id == id).ok_or(Code::INVALID_ARGUMENT)?;
        let at = instance.compute.iter().position(|other| other.id == compute).ok_or(Code::INVALID_ARGUMENT)?;
        if gpu.processes.iter().any(|process| (process.instance, process.compute) == (Some(id), Some(compute))) {
            return Err(Code::IN_USE);
        }
        instance.compute.remove(at);
        self.cut_anew(index);
        Ok(())
    }

    /// `nvmlDeviceSetMigMode`; the answer is the activation status.
    pub(crate) fn set_mig_mode(&mut self, index: usize, mode: u32) -> Answer<Code> {
        let gpu = self.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        let needs_reset = self.mig(gpu).ok_or(Code::NOT_SUPPORTED)?.mode_change_needs_reset;
        let on = match mode {
            0 => false,
            1 => true,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        self.permit(Permission::Config)?;
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        gpu.mig_pending = on;
        if gpu.mig_current == on {
            return Ok(Code::SUCCESS);
        }
        if !gpu.processes.is_empty() {
            return Ok(Code::IN_USE);
        }
        if needs_reset {
            return Ok(Code::RESET_REQUIRED);
        }
        // What a driver does when asked to switch MIG off over instances is not known: everyone destroys them first.
        if !gpu.instances.is_empty() {
            return Ok(Code::IN_USE);
        }
        self.activate(index);
        Ok(Code::SUCCESS)
    }

    /// The pending mode becomes the present one.
    pub(crate) fn activate(&mut self, index: usize) {
        let taken: Vec<u32> = self.gpus.iter().map(|gpu| gpu.minor).collect();
        let (moves, serial) = (self.minors_move, self.serial());
        let Some(gpu) = self.gpus.get_mut(index) else { return };
        if gpu.mig_current == gpu.mig_pending {
            return;
        }
        gpu.mig_current = gpu.mig_pending;
        if moves {
            gpu.minor = lowest(taken.into_iter());
            gpu.serial = serial;
        }
        self.cut_anew(index);
    }

    /// Tells those who wait for it that a GPU is cut otherwise than before.
    pub(crate) fn cut_anew(&mut self, index: usize) {
        self.raise(index, MIG_CONFIG_CHANGE, 0, None, None);
    }
}

impl Gpu {
    /// Whether one of its instances is called so.
    pub(crate) fn has(&self, instance: u32, compute: Option<u32>) -> bool {
        self.instances.iter().any(|known| {
            known.id == instance && compute.is_none_or(|compute| known.compute.iter().any(|own| own.id == compute))
        })
    }
}

/// A place that the profile does not have is no argument, whatever lies there.
fn legal(place: Option<Place>, places: &crate::model::Placements) -> Answer {
    match place {
        Some(place) if place.size != places.size || !places.starts.contains(&place.start) => {
            Err(Code::INVALID_ARGUMENT)
        }
        _ => Ok(()),
    }
}

fn free_compute_start(
    instance: &GpuInstance,
    within: &Profile,
    profile: &ComputeProfile,
    place: Option<Place>,
) -> Option<u32> {
    if placing::remaining_compute(instance, within, profile) == 0 {
        return None;
    }
    match place {
        Some(place) => Some(place.start).filter(|start| placing::compute_free(instance, within, profile, *start)),
        None => placing::compute_start(instance, within, profile),
    }
}

/// The lowest number that is not among these.
fn lowest(taken: impl Iterator<Item = u32>) -> u32 {
    let taken: Vec<u32> = taken.collect();
    (0..).find(|number| !taken.contains(number)).unwrap_or_default()
}
