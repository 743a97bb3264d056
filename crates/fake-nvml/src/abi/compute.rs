//! Compute instances and their profiles.

use crate::{
    abi::device::length,
    arguments::{Out, OutArray, field},
    code::{Answer, Code},
    handle::{Handle, Instance},
    lifecycle::Place,
    model::ComputeProfile,
    placing,
    session::{on_compute, on_instance, to_change},
    structs::{
        ComputeInstanceInfo, ComputeInstanceProfileInfo, ComputeInstanceProfileInfoV2, ComputeInstanceProfileInfoV3,
        Placement, version_of,
    },
    world::World,
};

/// How many compute profile indices there are.
const PROFILE_INDICES: u32 = 9;
/// The only engine profile: all engines but the multiprocessors are shared.
const ENGINES_SHARED: u32 = 0;
/// `NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX`.
const GRAPHICS: u32 = 1;

entry_points! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: Handle, profile: u32, engines: u32, info: Out<ComputeInstanceProfileInfo>,
    ) => on_instance(instance, |instance| info.set(first_version(instance, by_index(instance, profile, engines)?)?));
    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        instance: Handle, profile: u32, engines: u32, info: Out<ComputeInstanceProfileInfoV2>,
    ) => on_instance(instance, |instance| versioned(instance, by_index(instance, profile, engines)?, info));
    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance: Handle, profile: u32, count: Out<u32>) =>
        on_instance(instance, |instance| {
            let profile = by_id(instance, profile)?;
            count.set(placing::remaining_compute(instance.instance, instance.profile()?, profile))
        });
    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        instance: Handle, profile: u32, list: OutArray<Placement>, count: Out<u32>,
    ) => on_instance(instance, |instance| {
        let places = &by_id(instance, profile)?.placements;
        count.set(length(places.starts.len()))?;
        if list.is_null() {
            return Ok(());
        }
        list.set(places.starts.iter().map(|start| Placement { start: *start, size: places.size }))
    });
    fn nvmlGpuInstanceGetComputeInstances(instance: Handle, profile: u32, list: OutArray<Handle>, count: Out<u32>) =>
        on_instance(instance, |instance| of_profile(instance, by_id(instance, profile)?, list, count));
    fn nvmlGpuInstanceGetComputeInstanceById(instance: Handle, id: u32, compute: Out<Handle>) =>
        on_instance(instance, |within| {
            let found = within.instance.compute.iter().find(|known| known.id == id).ok_or(Code::NOT_FOUND)?;
            compute.set(Handle::of_compute(within.index, within.instance, found))
        });
    fn nvmlGpuInstanceCreateComputeInstance(instance: Handle, profile: u32, compute: Out<Handle>) => to_change(
        |world| instance_for(world, instance, compute),
        |world| create(world, instance, profile, None),
        |made| compute.set(made),
    );
    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: Handle, profile: u32, placement: Out<Placement>, compute: Out<Handle>,
    ) => to_change(
        |world| instance_for(world, instance, compute),
        |world| create(world, instance, profile, Some(placement.get()?)),
        |made| compute.set(made),
    );
    fn nvmlComputeInstanceDestroy(compute: Handle) => to_change(
        |world| Ok(compute.compute_instance(world)?.index),
        |world| {
            let device = compute.compute_instance(world)?;
            let slice = device.slice.ok_or(Code::INVALID_ARGUMENT)?;
            let (index, instance, compute) = (device.index, slice.instance.id, slice.compute.id);
            world.destroy_compute(index, instance, compute)
        },
        Ok,
    );
    fn nvmlComputeInstanceGetInfo(compute: Handle, info: Out<ComputeInstanceInfo>) =>
        on_compute(compute, |compute| info.set(info_of(compute)?));
    fn nvmlComputeInstanceGetInfo_v2(compute: Handle, info: Out<ComputeInstanceInfo>) =>
        on_compute(compute, |compute| info.set(info_of(compute)?));
}

/// The GPU of a GPU instance that is to get a compute instance, when there is a place for its handle.
fn instance_for(world: &World, instance: Handle, compute: Out<Handle>) -> Answer<usize> {
    let instance = instance.instance(world)?;
    if compute.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(instance.index) }
}

fn create(world: &mut World, instance: Handle, profile: u32, placement: Option<Placement>) -> Answer<Handle> {
    let (index, id) = instance.instance(world).map(|found| (found.index, found.instance.id))?;
    let place = placement.map(|place| Place { start: place.start, size: place.size });
    let made = world.create_compute(index, id, profile, place)?;
    let within = instance.instance(world)?;
    let compute = within.instance.compute.iter().find(|known| known.id == made).ok_or(Code::UNKNOWN)?;
    Ok(Handle::of_compute(index, within.instance, compute))
}

fn by_index(instance: Instance<'_>, index: u32, engines: u32) -> Answer<&ComputeProfile> {
    if index >= PROFILE_INDICES || engines != ENGINES_SHARED {
        return Err(Code::INVALID_ARGUMENT);
    }
    instance.profile()?.compute_profiles.iter().find(|profile| profile.index == index).ok_or(Code::NOT_SUPPORTED)
}

fn by_id(instance: Instance<'_>, id: u32) -> Answer<&ComputeProfile> {
    instance.profile()?.compute_profiles.iter().find(|profile| profile.id == id).ok_or(Code::INVALID_ARGUMENT)
}

fn first_version(instance: Instance<'_>, profile: &ComputeProfile) -> Answer<ComputeInstanceProfileInfo> {
    let engines = &instance.profile()?.engines;
    Ok(ComputeInstanceProfileInfo {
        id: profile.id,
        sliceCount: profile.slices,
        instanceCount: profile.max_instances,
        multiprocessorCount: profile.multiprocessors,
        sharedCopyEngineCount: engines.copy,
        sharedDecoderCount: engines.decoder,
        sharedEncoderCount: engines.encoder,
        sharedJpegCount: engines.jpeg,
        sharedOfaCount: engines.ofa,
    })
}

fn versioned(instance: Instance<'_>, profile: &ComputeProfile, info: Out<ComputeInstanceProfileInfoV2>) -> Answer {
    let version = info.version()?;
    let name = field(&format!("MIG {}", profile.name));
    let v1 = first_version(instance, profile)?;
    // As for GPU instance profiles, nothing is left of the version in the answer.
    let v2 = ComputeInstanceProfileInfoV2 {
        version: 0,
        id: v1.id,
        sliceCount: v1.sliceCount,
        instanceCount: v1.instanceCount,
        multiprocessorCount: v1.multiprocessorCount,
        sharedCopyEngineCount: v1.sharedCopyEngineCount,
        sharedDecoderCount: v1.sharedDecoderCount,
        sharedEncoderCount: v1.sharedEncoderCount,
        sharedJpegCount: v1.sharedJpegCount,
        sharedOfaCount: v1.sharedOfaCount,
        name,
    };
    if version == version_of::<ComputeInstanceProfileInfoV2>(2) {
        return info.set(v2);
    }
    if version != version_of::<ComputeInstanceProfileInfoV3>(3) {
        // As measured for GPU instance profiles; for these it is assumed.
        return Err(Code::INVALID_ARGUMENT);
    }
    info.as_type().set(ComputeInstanceProfileInfoV3 {
        version: 0,
        id: v2.id,
        sliceCount: v2.sliceCount,
        instanceCount: v2.instanceCount,
        multiprocessorCount: v2.multiprocessorCount,
        sharedCopyEngineCount: v2.sharedCopyEngineCount,
        sharedDecoderCount: v2.sharedDecoderCount,
        sharedEncoderCount: v2.sharedEncoderCount,
        sharedJpegCount: v2.sharedJpegCount,
        sharedOfaCount: v2.sharedOfaCount,
        name,
        capabilities: if profile.name.ends_with("+gfx") { GRAPHICS } else { 0 },
    })
}

fn of_profile(within: Instance<'_>, profile: &ComputeProfile, list: OutArray<Handle>, count: Out<u32>) -> Answer {
    if list.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let known = &within.profile()?.compute_profiles;
    let is = |position: usize| known.get(position).is_some_and(|known| known.id == profile.id);
    let found = || within.instance.compute.iter().filter(|compute| is(compute.profile));
    count.set(length(found().count()))?;
    list.set(found().map(|compute| Handle::of_compute(within.index, within.instance, compute)))
}

fn info_of(device: crate::handle::Device<'_>) -> Answer<ComputeInstanceInfo> {
    let slice = device.slice.ok_or(Code::INVALID_ARGUMENT)?;
    let profile = device.compute_profile(slice)?;
    Ok(ComputeInstanceInfo {
        device: Handle::of_gpu(device.index, device.gpu),
        gpuInstance: Handle::of_instance(device.index, slice.instance),
        id: slice.compute.id,
        profileId: profile.id,
        placement: Placement { start: slice.compute.start, size: profile.placements.size },
    })
}
