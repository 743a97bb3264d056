//! MIG mode and MIG devices.

use crate::{
    abi::device::both,
    arguments::Out,
    code::{Answer, Code},
    handle::{Device, Handle},
    session::{on_device, on_gpu, to_change},
    structs::DeviceAttributes,
};

entry_points! {
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<u32>, pending: Out<u32>) => on_gpu(device, |device| {
        device.mig()?;
        both(current, pending, device.gpu.mig_current.into(), device.gpu.mig_pending.into())
    });
    fn nvmlDeviceSetMigMode(device: Handle, mode: u32, status: Out<Code>) => to_change(
        |world| {
            let index = device.device(world)?.whole()?;
            if status.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(index) }
        },
        |world| {
            let index = device.device(world)?.index;
            world.set_mig_mode(index, mode)
        },
        |activation| status.set(activation),
    );
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: Out<u32>) => on_gpu(device, |device| {
        // Zero, not an error, where there is no MIG or it is off.
        count.set(device.mig().map_or(0, |mig| if device.gpu.mig_current { mig.max_devices } else { 0 }))
    });
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: u32, found: Out<Handle>) =>
        on_gpu(device, |device| found.set(by_index(device, index)?));
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, answer: Out<u32>) =>
        on_device(device, |device| answer.set(device.slice.is_some().into()));
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Handle, parent: Out<Handle>) => on_device(device, |device| {
        device.slice.ok_or(Code::INVALID_ARGUMENT)?;
        parent.set(Handle::of_gpu(device.index, device.gpu))
    });
    fn nvmlDeviceGetGpuInstanceId(device: Handle, id: Out<u32>) =>
        on_device(device, |device| id.set(device.slice.ok_or(Code::INVALID_ARGUMENT)?.instance.id));
    fn nvmlDeviceGetComputeInstanceId(device: Handle, id: Out<u32>) =>
        on_device(device, |device| id.set(device.slice.ok_or(Code::INVALID_ARGUMENT)?.compute.id));
    fn nvmlDeviceGetAttributes(device: Handle, attributes: Out<DeviceAttributes>) =>
        on_device(device, |device| attributes.set(attributes_of(device)?));
    fn nvmlDeviceGetAttributes_v2(device: Handle, attributes: Out<DeviceAttributes>) =>
        on_device(device, |device| attributes.set(attributes_of(device)?));
}

fn by_index(device: Device<'_>, index: u32) -> Answer<Handle> {
    let mig = device.mig()?;
    if device.gpu.mig_current && index >= mig.max_devices {
        return Err(Code::INVALID_ARGUMENT);
    }
    let mut all = device.gpu.mig_devices();
    let (instance, compute) = all.find(|(_, compute)| compute.mig_index == index).ok_or(Code::NOT_FOUND)?;
    Ok(Handle::of_slice(device.index, instance, compute))
}

fn attributes_of(device: Device<'_>) -> Answer<DeviceAttributes> {
    let slice = device.slice.ok_or(Code::NOT_SUPPORTED)?;
    let (profile, compute) = (device.profile(slice.instance)?, device.compute_profile(slice)?);
    Ok(DeviceAttributes {
        multiprocessorCount: compute.multiprocessors,
        sharedCopyEngineCount: profile.engines.copy,
        sharedDecoderCount: profile.engines.decoder,
        sharedEncoderCount: profile.engines.encoder,
        sharedJpegCount: profile.engines.jpeg,
        sharedOfaCount: profile.engines.ofa,
        gpuInstanceSliceCount: profile.slices,
        computeInstanceSliceCount: compute.slices,
        memorySizeMB: profile.memory_mb,
    })
}
