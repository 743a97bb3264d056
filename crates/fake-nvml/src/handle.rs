//! Handles: numbers that name an object of the world, never addresses. The serial number in them tells an object from
//! what came after it in the same place.

use crate::{
    code::{Answer, Code},
    model::{ComputeProfile, Mig, Model, Profile},
    world::{ComputeInstance, Gpu, GpuInstance, World},
};

/// `nvmlDevice_t`, `nvmlGpuInstance_t`, `nvmlComputeInstance_t` and `nvmlEventSet_t` as a client holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Handle(u64);

/// The top byte: no address in user space has such a one, so no pointer is ever taken for a handle.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Gpu = 0xA1,
    MigDevice = 0xA2,
    GpuInstance = 0xA3,
    ComputeInstance = 0xA4,
    EventSet = 0xA5,
}

/// A device handle's object: a GPU, or a MIG device on it.
#[derive(Clone, Copy)]
pub(crate) struct Device<'world> {
    pub(crate) world: &'world World,
    pub(crate) index: usize,
    pub(crate) gpu: &'world Gpu,
    pub(crate) slice: Option<Slice<'world>>,
}

/// A compute instance and the GPU instance that it is in.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'world> {
    pub(crate) instance: &'world GpuInstance,
    pub(crate) compute: &'world ComputeInstance,
}

/// A GPU instance handle's object.
#[derive(Clone, Copy)]
pub(crate) struct Instance<'world> {
    pub(crate) world: &'world World,
    pub(crate) index: usize,
    pub(crate) gpu: &'world Gpu,
    pub(crate) instance: &'world GpuInstance,
}

impl<'world> Device<'world> {
    pub(crate) fn model(&self) -> Answer<&'world Model> {
        self.world.model(self.gpu).ok_or(Code::UNKNOWN)
    }

    /// Its index, when it is a whole GPU.
    pub(crate) fn whole(&self) -> Answer<usize> {
        if self.slice.is_none() { Ok(self.index) } else { Err(Code::INVALID_ARGUMENT) }
    }

    /// How the GPU is cut; NOT_SUPPORTED where it cannot be.
    pub(crate) fn mig(&self) -> Answer<&'world Mig> {
        self.world.mig(self.gpu).ok_or(Code::NOT_SUPPORTED)
    }

    pub(crate) fn profile(&self, instance: &GpuInstance) -> Answer<&'world Profile> {
        self.world.profile(self.gpu, instance).ok_or(Code::UNKNOWN)
    }

    pub(crate) fn compute_profile(&self, slice: Slice<'_>) -> Answer<&'world ComputeProfile> {
        self.world.compute_profile(self.gpu, slice.instance, slice.compute).ok_or(Code::UNKNOWN)
    }
}

impl<'world> Instance<'world> {
    pub(crate) fn profile(&self) -> Answer<&'world Profile> {
        self.world.profile(self.gpu, self.instance).ok_or(Code::UNKNOWN)
    }
}

impl Handle {
    fn new(kind: Kind, gpu: usize, instance: u32, compute: u32, serial: u32) -> Self {
        let place = u64::from(instance & 0xff) << 48 | (gpu as u64 & 0xff) << 40 | u64::from(compute & 0xff) << 32;
        Self((kind as u64) << 56 | place | u64::from(serial))
    }

    /// Whatever a caller passed in a handle's place.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    fn is(self, kind: Kind) -> bool {
        self.0 >> 56 == kind as u64
    }

    fn gpu_index(self) -> usize {
        usize::from((self.0 >> 40).to_le_bytes()[0])
    }

    fn instance_id(self) -> u32 {
        u32::from((self.0 >> 48).to_le_bytes()[0])
    }

    fn compute_id(self) -> u32 {
        u32::from((self.0 >> 32).to_le_bytes()[0])
    }

    fn serial(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).unwrap_or_default()
    }

    pub(crate) fn of_gpu(index: usize, gpu: &Gpu) -> Self {
        Self::new(Kind::Gpu, index, 0, 0, gpu.serial)
    }

    pub(crate) fn of_slice(index: usize, instance: &GpuInstance, compute: &ComputeInstance) -> Self {
        Self::new(Kind::MigDevice, index, instance.id, compute.id, compute.serial)
    }

    pub(crate) fn of_instance(index: usize, instance: &GpuInstance) -> Self {
        Self::new(Kind::GpuInstance, index, instance.id, 0, instance.serial)
    }

    pub(crate) fn of_compute(index: usize, instance: &GpuInstance, compute: &ComputeInstance) -> Self {
        Self::new(Kind::ComputeInstance, index, instance.id, compute.id, compute.serial)
    }

    pub(crate) fn of_event_set(number: u32) -> Self {
        Self::new(Kind::EventSet, 0, 0, 0, number)
    }

    pub(crate) fn event_set(self) -> Answer<u32> {
        if self.is(Kind::EventSet) { Ok(self.serial()) } else { Err(Code::INVALID_ARGUMENT) }
    }

    pub(crate) fn device(self, world: &World) -> Answer<Device<'_>> {
        let index = self.gpu_index();
        let gpu = world.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        if self.is(Kind::Gpu) && gpu.serial == self.serial() {
            return Ok(Device { world, index, gpu, slice: None });
        }
        let slice = self.slice(Kind::MigDevice, gpu)?;
        Ok(Device { world, index, gpu, slice: Some(slice) })
    }

    pub(crate) fn instance(self, world: &World) -> Answer<Instance<'_>> {
        let index = self.gpu_index();
        let gpu = world.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        let mut all = gpu.instances.iter();
        let instance = all.find(|instance| self.is(Kind::GpuInstance) && instance.serial == self.serial());
        Ok(Instance { world, index, gpu, instance: instance.ok_or(Code::INVALID_ARGUMENT)? })
    }

    pub(crate) fn compute_instance(self, world: &World) -> Answer<Device<'_>> {
        let index = self.gpu_index();
        let gpu = world.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)?;
        let slice = self.slice(Kind::ComputeInstance, gpu)?;
        Ok(Device { world, index, gpu, slice: Some(slice) })
    }

    fn slice(self, kind: Kind, gpu: &Gpu) -> Answer<Slice<'_>> {
        let found = gpu.instances.iter().find(|instance| instance.id == self.instance_id()).and_then(|instance| {
            let compute = instance.compute.iter().find(|compute| compute.id == self.compute_id())?;
            (self.is(kind) && compute.serial == self.serial()).then_some(Slice { instance, compute })
        });
        found.ok_or(Code::INVALID_ARGUMENT)
    }
}
