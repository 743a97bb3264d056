//! GPU instances and their profiles.

use crate::{
    abi::device::length,
    arguments::{Out, OutArray, field},
    code::{Answer, Code},
    handle::{Device, Handle},
    lifecycle::Place,
    model::Profile,
    placing,
    session::{on_gpu, on_instance, to_change},
    structs::{
        GpuInstanceInfo, GpuInstanceProfileInfo, GpuInstanceProfileInfoV2, GpuInstanceProfileInfoV3, Placement,
        version_of,
    },
    world::{Permission, World},
};

/// How many profile indices driver 580 knows: from here on an index is no argument, below it a model may lack it.
const PROFILE_INDICES: u32 = 17;
/// `NVML_GPU_INSTANCE_PROFILE_CAPS_GFX`.
const GRAPHICS: u32 = 2;

entry_points! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(device: Handle, profile: u32, info: Out<GpuInstanceProfileInfo>) =>
        on_gpu(device, |device| info.set(first_version(by_index(device, profile)?)));
    fn nvmlDeviceGetGpuInstanceProfileInfoV(device: Handle, profile: u32, info: Out<GpuInstanceProfileInfoV2>) =>
        on_gpu(device, |device| versioned(by_index(device, profile)?, info));
    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(device: Handle, profile: u32, info: Out<GpuInstanceProfileInfoV2>) =>
        on_gpu(device, |device| versioned(by_id(device, profile)?, info));
    fn nvmlDeviceGetGpuInstancePossiblePlacements(
        device: Handle, profile: u32, list: OutArray<Placement>, count: Out<u32>,
    ) => on_gpu(device, |device| placements(device, by_id(device, profile)?, list, count));
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: Handle, profile: u32, list: OutArray<Placement>, count: Out<u32>,
    ) => on_gpu(device, |device| placements(device, by_id(device, profile)?, list, count));
    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: Handle, profile: u32, count: Out<u32>) =>
        on_gpu(device, |device| {
            let (mig, profile) = (device.mig()?, by_id(device, profile)?);
            device.world.permit(Permission::Monitor)?;
            count.set(placing::remaining(device.gpu, mig, profile))
        });
    fn nvmlDeviceGetGpuInstances(device: Handle, profile: u32, list: OutArray<Handle>, count: Out<u32>) =>
        on_gpu(device, |device| of_profile(device, by_id(device, profile)?, list, count));
    fn nvmlDeviceGetGpuInstanceById(device: Handle, id: u32, instance: Out<Handle>) => on_gpu(device, |device| {
        device.mig()?;
        device.world.permit(Permission::Monitor)?;
        let found = device.gpu.instances.iter().find(|known| known.id == id).ok_or(Code::NOT_FOUND)?;
        instance.set(Handle::of_instance(device.index, found))
    });
    fn nvmlDeviceCreateGpuInstance(device: Handle, profile: u32, instance: Out<Handle>) =>
        to_change(|world| gpu_for(world, device, instance), |world| create(world, device, profile, None), |made| instance.set(made));
    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Handle, profile: u32, placement: Out<Placement>, instance: Out<Handle>,
    ) => to_change(
        |world| gpu_for(world, device, instance),
        |world| create(world, device, profile, Some(placement.get()?)),
        |made| instance.set(made),
    );
    fn nvmlGpuInstanceDestroy(instance: Handle) => to_change(
        |world| Ok(instance.instance(world)?.index),
        |world| {
            let (index, id) = instance.instance(world).map(|found| (found.index, found.instance.id))?;
            world.destroy_instance(index, id)
        },
        Ok,
    );
    fn nvmlGpuInstanceGetInfo(instance: Handle, info: Out<GpuInstanceInfo>) => on_instance(instance, |instance| {
        let profile = instance.profile()?;
        info.set(GpuInstanceInfo {
            device: Handle::of_gpu(instance.index, instance.gpu),
            id: instance.instance.id,
            profileId: profile.id,
            placement: Placement { start: instance.instance.start, size: profile.placements.size },
        })
    });
}

/// The GPU of a handle that is to get an instance, when there is a place for the instance's handle.
fn gpu_for(world: &World, device: Handle, instance: Out<Handle>) -> Answer<usize> {
    let index = device.device(world)?.whole()?;
    if instance.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(index) }
}

fn create(world: &mut World, device: Handle, profile: u32, placement: Option<Placement>) -> Answer<Handle> {
    let index = device.device(world)?.index;
    let made =
        world.create_instance(index, profile, placement.map(|place| Place { start: place.start, size: place.size }))?;
    let gpu = world.gpus.get(index).ok_or(Code::UNKNOWN)?;
    let instance = gpu.instances.iter().find(|known| known.id == made).ok_or(Code::UNKNOWN)?;
    Ok(Handle::of_instance(index, instance))
}

fn by_index(device: Device<'_>, index: u32) -> Answer<&Profile> {
    let mig = device.mig()?;
    if index >= PROFILE_INDICES {
        return Err(Code::INVALID_ARGUMENT);
    }
    mig.profiles.iter().find(|profile| profile.index == index).ok_or(Code::NOT_SUPPORTED)
}

fn by_id(device: Device<'_>, id: u32) -> Answer<&Profile> {
    device.mig()?.profiles.iter().find(|profile| profile.id == id).ok_or(Code::INVALID_ARGUMENT)
}

fn first_version(profile: &Profile) -> GpuInstanceProfileInfo {
    GpuInstanceProfileInfo {
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.slices,
        instanceCount: profile.max_instances,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.engines.copy,
        decoderCount: profile.engines.decoder,
        encoderCount: profile.engines.encoder,
        jpegCount: profile.engines.jpeg,
        ofaCount: profile.engines.ofa,
        memorySizeMB: profile.memory_mb,
    }
}

/// A real driver leaves 0 in `version` when it answers (measured on 580.159.04), and so does this one.
fn versioned(profile: &Profile, info: Out<GpuInstanceProfileInfoV2>) -> Answer {
    let version = info.version()?;
    let name = field(&format!("MIG {}", profile.name));
    let v1 = first_version(profile);
    if version == version_of::<GpuInstanceProfileInfoV2>(2) {
        return info.set(GpuInstanceProfileInfoV2 {
            version: 0,
            id: v1.id,
            isP2pSupported: v1.isP2pSupported,
            sliceCount: v1.sliceCount,
            instanceCount: v1.instanceCount,
            multiprocessorCount: v1.multiprocessorCount,
            copyEngineCount: v1.copyEngineCount,
            decoderCount: v1.decoderCount,
            encoderCount: v1.encoderCount,
            jpegCount: v1.jpegCount,
            ofaCount: v1.ofaCount,
            memorySizeMB: v1.memorySizeMB,
            name,
        });
    }
    if version != version_of::<GpuInstanceProfileInfoV3>(3) {
        // Measured on 580.159.04, as is the next: other structures' unknown versions have a code of their own.
        return Err(Code::INVALID_ARGUMENT);
    }
    info.as_type().set(GpuInstanceProfileInfoV3 {
        version: 0,
        id: v1.id,
        sliceCount: v1.sliceCount,
        instanceCount: v1.instanceCount,
        multiprocessorCount: v1.multiprocessorCount,
        copyEngineCount: v1.copyEngineCount,
        decoderCount: v1.decoderCount,
        encoderCount: v1.encoderCount,
        jpegCount: v1.jpegCount,
        ofaCount: v1.ofaCount,
        memorySizeMB: v1.memorySizeMB,
        // That driver leaves the name of version 3 empty (and writes `MIG 7g.0gb` behind its beginning).
        name: field(""),
        capabilities: if profile.name.ends_with("+gfx") { GRAPHICS } else { 0 },
    })
}

/// Every placement the profile may have, free or not; only their number when there is no list.
fn placements(device: Device<'_>, profile: &Profile, list: OutArray<Placement>, count: Out<u32>) -> Answer {
    device.world.permit(Permission::Monitor)?;
    let places = &profile.placements;
    count.set(length(places.starts.len()))?;
    if list.is_null() {
        return Ok(());
    }
    list.set(places.starts.iter().map(|start| Placement { start: *start, size: places.size }))
}

fn of_profile(device: Device<'_>, profile: &Profile, list: OutArray<Handle>, count: Out<u32>) -> Answer {
    if list.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let mig = device.mig()?;
    device.world.permit(Permission::Monitor)?;
    let is = |position: usize| mig.profiles.get(position).is_some_and(|known| known.id == profile.id);
    let found = || device.gpu.instances.iter().filter(|instance| is(instance.profile));
    count.set(length(found().count()))?;
    list.set(found().map(|instance| Handle::of_instance(device.index, instance)))
}
