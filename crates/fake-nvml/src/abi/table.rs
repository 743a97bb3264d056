//! The table of functions without names that `nvidia-smi` asks its library for.
//!
//! No header describes it. NVIDIA's own mock of NVML (k8s-test-infra) has published what it found: a size, then functions
//! told apart by their place alone. Few are known; of the others it is only known that they have to succeed, and that a
//! zero in the second argument, where it is one to be filled, means that there is nothing to be told.

use core::ffi::c_void;

use crate::{
    abi::process,
    arguments::{InBytes, InHandles, Out},
    code::{Answer, Code},
    function::Function,
    handle::Handle,
    outside::Refused,
    session::{on_device, on_lookup, on_node, to_change},
    world::{Permission, World},
};

/// The only table that there is: 6c3efec4-8fc9-4e6c-a327-ee696e12f7c4 as Windows lays a GUID out.
const TABLE_ID: [u8; 16] =
    [0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e, 0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4];
/// Twice as many as anyone was seen to use.
const ENTRIES: usize = 512;
const DEVICE_BY_INDEX: usize = 81;
/// Found by watching what `nvidia-smi --gpu-reset` calls, and which answer makes it say that it cannot.
const RESET: usize = 168;
const PROCESSES: [usize; 3] = [213, 214, 215];
const HOST_PCIE_GENERATION: usize = 230;
const GENERATION: u32 = 5;

/// All take their arguments as they come in registers; what each means its place says.
type Entry = extern "C" fn(u64, u64, u64) -> Code;

#[repr(C)]
struct Table {
    /// In bytes, where the first function would be.
    size: usize,
    functions: [Entry; ENTRIES - 1],
}

static TABLE: Table = Table { size: size_of::<Table>(), functions: functions() };

const fn functions() -> [Entry; ENTRIES - 1] {
    let mut functions: [Entry; ENTRIES - 1] = [unknown; ENTRIES - 1];
    functions[DEVICE_BY_INDEX - 1] = device_by_index;
    functions[RESET - 1] = reset;
    functions[PROCESSES[0] - 1] = processes;
    functions[PROCESSES[1] - 1] = processes;
    functions[PROCESSES[2] - 1] = processes;
    functions[HOST_PCIE_GENERATION - 1] = host_pcie_generation;
    functions
}

entry_points! {
    fn nvmlInternalGetExportTable(table: Out<*const c_void>, id: InBytes) => on_node(|_| {
        if id.get()? == TABLE_ID { table.set((&raw const TABLE).cast()) } else { Err(Code::NOT_SUPPORTED) }
    });
}

/// They are counted, and fail, as the call that gave the table out.
const CALLED: Function = Function::nvmlInternalGetExportTable;

extern "C" fn device_by_index(index: u64, device: u64, _: u64) -> Code {
    let by_index = |world: &World| {
        let index = usize::try_from(index & 0xffff_ffff).map_err(|_| Code::INVALID_ARGUMENT)?;
        world.gpus.get(index).map(|gpu| Handle::of_gpu(index, gpu)).ok_or(Code::INVALID_ARGUMENT)
    };
    on_lookup(CALLED, by_index, |found| Out::at(device).ok_or(Code::INVALID_ARGUMENT)?.set(found))
}

/// Resets all of them or, when one cannot be, none.
extern "C" fn reset(count: u64, devices: u64, _: u64) -> Code {
    let Some(devices) = InHandles::at(devices, count & 0xffff_ffff) else { return Code::INVALID_ARGUMENT };
    let indices = |world: &World| -> Answer<Vec<usize>> {
        let found = devices.iter().map(|device| device.device(world));
        found.map(|device| device.and_then(|device| device.whole())).collect()
    };
    let reset = |world: &mut World| {
        world.permit(Permission::Config)?;
        for index in indices(world)? {
            world.reset_gpu(index).map_err(|refused| match refused {
                Refused::InUse { .. } => Code::IN_USE,
                Refused::Lost { .. } => Code::GPU_IS_LOST,
                _ => Code::INVALID_ARGUMENT,
            })?;
        }
        Ok(())
    };
    to_change(CALLED, |world| indices(world)?.first().copied().ok_or(Code::INVALID_ARGUMENT), reset, Ok)
}

/// The entries' layout is unknown, so there are none, whatever runs.
extern "C" fn processes(device: u64, count: u64, _: u64) -> Code {
    on_device(CALLED, Handle::from_word(device), |device| {
        drop(process::using(device)?);
        Out::at(count).map_or(Ok(()), |count| count.set(0_u32))
    })
}

extern "C" fn host_pcie_generation(device: u64, generation: u64, _: u64) -> Code {
    on_device(CALLED, Handle::from_word(device), |_| Out::at(generation).ok_or(Code::INVALID_ARGUMENT)?.set(GENERATION))
}

extern "C" fn unknown(first: u64, second: u64, _: u64) -> Code {
    on_node(CALLED, |world| -> Answer {
        // Only where the first is surely a device can the second be taken for a place to write to.
        match Handle::from_word(first).device(world) {
            Ok(_) => Out::at(second).map_or(Ok(()), |place| place.set(0_u32)),
            Err(_) => Ok(()),
        }
    })
}
