//! The programs that use GPUs.

use crate::{
    abi::device::length,
    arguments::{Out, OutArray, OutText},
    code::{Answer, Code},
    handle::{Device, Handle},
    session::{on_device, on_node},
    structs::{ProcessInfo, ProcessInfoV1},
    world::{Permission, Process, World},
};

/// Where a program uses no instance.
const NO_INSTANCE: u32 = u32::MAX;

entry_points! {
    fn nvmlDeviceGetComputeRunningProcesses(device: Handle, count: Out<u32>, list: OutArray<ProcessInfoV1>) =>
        on_device(device, |device| give(device, computing, count, list, first_version));
    fn nvmlDeviceGetComputeRunningProcesses_v2(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, computing, count, list, second_version));
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, computing, count, list, second_version));
    fn nvmlDeviceGetGraphicsRunningProcesses(device: Handle, count: Out<u32>, list: OutArray<ProcessInfoV1>) =>
        on_device(device, |device| give(device, drawing, count, list, first_version));
    fn nvmlDeviceGetGraphicsRunningProcesses_v2(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, drawing, count, list, second_version));
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, drawing, count, list, second_version));
    // Nothing here goes through MPS.
    fn nvmlDeviceGetMPSComputeRunningProcesses(device: Handle, count: Out<u32>, list: OutArray<ProcessInfoV1>) =>
        on_device(device, |device| give(device, |_| false, count, list, first_version));
    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, |_| false, count, list, second_version));
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Handle, count: Out<u32>, list: OutArray<ProcessInfo>) =>
        on_device(device, |device| give(device, |_| false, count, list, second_version));

    fn nvmlSystemGetProcessName(pid: u32, name: OutText, size: u32) => on_node(|world| {
        if name.is_null() || size == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        name.set_cropped(name_of(world, pid).ok_or(Code::NOT_FOUND)?, size)
    });
}

fn computing(process: &Process) -> bool {
    !process.graphics
}

fn drawing(process: &Process) -> bool {
    process.graphics
}

/// Those that use the device: all of the GPU's, or the MIG device's own.
pub(super) fn using<'world>(device: Device<'world>) -> Answer<impl Iterator<Item = &'world Process> + Clone> {
    if device.slice.is_none() && device.gpu.mig_current {
        device.world.permit(Permission::Monitor)?;
    }
    let place = device.slice.map(|slice| (Some(slice.instance.id), Some(slice.compute.id)));
    let all = device.gpu.processes.iter();
    Ok(all.filter(move |process| place.is_none_or(|place| place == (process.instance, process.compute))))
}

fn give<T>(
    device: Device<'_>,
    kind: fn(&Process) -> bool,
    count: Out<u32>,
    list: OutArray<T>,
    form: fn(&Process) -> T,
) -> Answer {
    let room = count.get()?;
    let found = using(device)?.filter(|process| kind(process));
    let number = length(found.clone().count());
    count.set(number)?;
    match number {
        0 => Ok(()),
        number if number > room => Err(Code::INSUFFICIENT_SIZE),
        _ => list.set(found.map(form)),
    }
}

fn first_version(process: &Process) -> ProcessInfoV1 {
    ProcessInfoV1 { pid: process.pid, usedGpuMemory: process.memory }
}

fn second_version(process: &Process) -> ProcessInfo {
    ProcessInfo {
        pid: process.pid,
        usedGpuMemory: process.memory,
        gpuInstanceId: process.instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: process.compute.unwrap_or(NO_INSTANCE),
    }
}

fn name_of(world: &World, pid: u32) -> Option<&str> {
    let mut all = world.gpus.iter().flat_map(|gpu| &gpu.processes);
    all.find(|process| process.pid == pid).map(|process| process.name.as_str())
}
