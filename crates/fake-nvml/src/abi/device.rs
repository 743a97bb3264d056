//! GPUs: how many, which, what they are.

use crate::{
    arguments::{InText, Out, OutText, field},
    code::{Answer, Code},
    handle::{Device, Handle},
    session::{on_device, on_gpu, on_lookup, on_node},
    structs::{AddressingMode, Bar1Memory, MemoryInfo, MemoryInfoV2, PciInfo, PciInfoExt, version_of},
    world::{ComputeInstance, Gpu, GpuInstance, PciAddress, Permission, Process, World},
};

const MIB: u64 = 1 << 20;
/// PCI class "display controller, 3D".
const CLASS: (u32, u32) = (3, 2);

entry_points! {
    fn nvmlDeviceGetCount(count: Out<u32>) => on_node(|world| count.set(length(world.gpus.len())));
    fn nvmlDeviceGetCount_v2(count: Out<u32>) => on_node(|world| count.set(length(world.gpus.len())));
    fn nvmlDeviceGetHandleByIndex(index: u32, device: Out<Handle>) =>
        on_lookup(|world| by_index(world, index), |found| device.set(found));
    fn nvmlDeviceGetHandleByIndex_v2(index: u32, device: Out<Handle>) =>
        on_lookup(|world| by_index(world, index), |found| device.set(found));
    fn nvmlDeviceGetHandleByUUID(uuid: InText, device: Out<Handle>) =>
        on_lookup(|world| by_uuid(world, uuid.get()?), |found| device.set(found));
    fn nvmlDeviceGetHandleByPciBusId(bus: InText, device: Out<Handle>) =>
        on_lookup(|world| by_pci(world, bus.get()?), |found| device.set(found));
    fn nvmlDeviceGetHandleByPciBusId_v2(bus: InText, device: Out<Handle>) =>
        on_lookup(|world| by_pci(world, bus.get()?), |found| device.set(found));
    fn nvmlDeviceGetHandleBySerial(serial: InText, device: Out<Handle>) =>
        on_lookup(|world| by_serial(world, serial.get()?), |found| device.set(found));

    fn nvmlDeviceGetIndex(device: Handle, index: Out<u32>) =>
        on_device(device, |device| index.set(device.slice.map_or(length(device.index), |slice| slice.compute.mig_index)));
    fn nvmlDeviceGetUUID(device: Handle, uuid: OutText, size: u32) =>
        on_device(device, |device| uuid.set(device.slice.map_or(&device.gpu.uuid, |slice| &slice.compute.uuid), size));
    fn nvmlDeviceGetName(device: Handle, text: OutText, size: u32) =>
        on_device(device, |device| text.set(&name(device)?, size));
    fn nvmlDeviceGetSerial(device: Handle, serial: OutText, size: u32) =>
        on_device(device, |device| serial.set(&device.gpu.board_serial, size));
    fn nvmlDeviceGetMinorNumber(device: Handle, minor: Out<u32>) => on_device(device, |device| minor.set(device.gpu.minor));
    fn nvmlDeviceGetBrand(device: Handle, brand: Out<u32>) => on_device(device, |device| brand.set(device.model()?.brand));
    fn nvmlDeviceGetArchitecture(device: Handle, architecture: Out<u32>) =>
        on_device(device, |device| architecture.set(device.model()?.architecture));
    fn nvmlDeviceGetCudaComputeCapability(device: Handle, major: Out<i32>, minor: Out<i32>) =>
        on_device(device, |device| {
            let [capability, revision] = device.model()?.compute_capability;
            both(major, minor, capability, revision)
        });
    fn nvmlDeviceGetVbiosVersion(device: Handle, version: OutText, size: u32) =>
        on_device(device, |device| version.set(&device.model()?.vbios, size));
    fn nvmlDeviceGetBoardId(device: Handle, id: Out<u32>) =>
        on_device(device, |device| id.set(u32::from(device.gpu.pci.bus) << 8 | u32::from(device.gpu.pci.device)));
    fn nvmlDeviceGetMultiGpuBoard(device: Handle, multi: Out<u32>) => on_device(device, |_| multi.set(0));
    fn nvmlDeviceGetNumGpuCores(device: Handle, cores: Out<u32>) => on_gpu(device, |device| {
        if device.gpu.mig_current { Err(Code::NOT_SUPPORTED) } else { cores.set(device.model()?.cores) }
    });

    fn nvmlDeviceGetPciInfo(device: Handle, pci: Out<PciInfo>) => on_device(device, |device| legacy_pci(device, pci));
    fn nvmlDeviceGetPciInfo_v2(device: Handle, pci: Out<PciInfo>) => on_device(device, |device| legacy_pci(device, pci));
    fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: Out<PciInfo>) => on_device(device, |device| pci.set(pci_info(device)?));
    fn nvmlDeviceGetPciInfoExt(device: Handle, pci: Out<PciInfoExt>) => on_device(device, |device| pci_info_ext(device, pci));

    fn nvmlDeviceGetMemoryInfo(device: Handle, memory: Out<MemoryInfo>) => on_device(device, |device| {
        let (total, reserved, used) = bytes(device)?;
        let taken = reserved.saturating_add(used);
        memory.set(MemoryInfo { total, free: total.saturating_sub(taken), used: taken })
    });
    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: Out<MemoryInfoV2>) => on_device(device, |device| {
        let version = memory.version()?;
        if version != version_of::<MemoryInfoV2>(2) {
            // Measured on 580.159.04: it looks for the function of that version.
            return Err(Code::FUNCTION_NOT_FOUND);
        }
        let (total, reserved, used) = bytes(device)?;
        let free = total.saturating_sub(reserved.saturating_add(used));
        memory.set(MemoryInfoV2 { version, total, reserved, free, used })
    });
    fn nvmlDeviceGetBAR1MemoryInfo(device: Handle, memory: Out<Bar1Memory>) => on_device(device, |device| {
        let total = bytes(device)?.0.next_power_of_two();
        // Published tables of A100s have 8191 and 32767 MiB for 1g.5gb and 3g.20gb, and powers of two for whole GPUs.
        let total = if device.slice.is_some() { total - MIB } else { total };
        memory.set(Bar1Memory { bar1Total: total, bar1Free: total - MIB, bar1Used: MIB })
    });

    fn nvmlDeviceGetTopologyCommonAncestor(first: Handle, second: Handle, level: Out<u32>) =>
        on_gpu(first, |first| level.set(common_ancestor(first, second.device(first.world)?)));
    fn nvmlDeviceOnSameBoard(first: Handle, second: Handle, same: Out<i32>) =>
        on_device(first, |first| same.set(i32::from(first.index == second.device(first.world)?.index)));
    fn nvmlDeviceGetP2PStatus(first: Handle, second: Handle, _capability: u32, status: Out<u32>) => on_gpu(first, |first| {
        // GPUs that are cut have no peers.
        let cut = first.gpu.mig_current || second.device(first.world)?.gpu.mig_current;
        status.set(if cut { P2P_NOT_SUPPORTED } else { P2P_OK })
    });
    fn nvmlDeviceGetMemoryAffinity(device: Handle, size: u32, nodes: Out<u64>, _scope: u32) => on_device(device, |device| {
        if size == 0 { Err(Code::INVALID_ARGUMENT) } else { nodes.set(1_u64.checked_shl(device.gpu.numa).unwrap_or_default()) }
    });
    fn nvmlDeviceGetAddressingMode(device: Handle, mode: Out<AddressingMode>) => on_device(device, |_| {
        let version = mode.version()?;
        if version != version_of::<AddressingMode>(1) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        mode.set(AddressingMode { version, value: 0 })
    });
}

const P2P_OK: u32 = 0;
const P2P_NOT_SUPPORTED: u32 = 5;

pub(super) fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(super) fn both<T>(first: Out<T>, second: Out<T>, this: T, that: T) -> Answer {
    if first.is_null() || second.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    first.set(this)?;
    second.set(that)
}

fn by_index(world: &World, index: u32) -> Answer<Handle> {
    let index = usize::try_from(index).map_err(|_| Code::INVALID_ARGUMENT)?;
    world.gpus.get(index).map(|gpu| Handle::of_gpu(index, gpu)).ok_or(Code::INVALID_ARGUMENT)
}

/// Also in the form that MIG devices had before driver 470: `MIG-<GPU's UUID>/<GPU instance>/<compute instance>`.
fn by_uuid(world: &World, uuid: &str) -> Answer<Handle> {
    let old = |gpu: &Gpu, instance: &GpuInstance, compute: &ComputeInstance| {
        let ids = uuid.strip_prefix("MIG-").and_then(|rest| rest.strip_prefix(gpu.uuid.as_str()));
        ids.is_some_and(|ids| ids == format!("/{}/{}", instance.id, compute.id))
    };
    for (index, gpu) in world.gpus.iter().enumerate() {
        if gpu.uuid == uuid {
            return Ok(Handle::of_gpu(index, gpu));
        }
        if let Some((instance, compute)) = gpu.mig_devices().find(|(gi, ci)| ci.uuid == uuid || old(gpu, gi, ci)) {
            return Ok(Handle::of_slice(index, instance, compute));
        }
    }
    Err(Code::NOT_FOUND)
}

fn by_pci(world: &World, text: &str) -> Answer<Handle> {
    let address = PciAddress::parse(text).ok_or(Code::INVALID_ARGUMENT)?;
    let mut all = world.gpus.iter().enumerate();
    all.find(|(_, gpu)| gpu.pci == address).map(|(index, gpu)| Handle::of_gpu(index, gpu)).ok_or(Code::NOT_FOUND)
}

fn by_serial(world: &World, serial: &str) -> Answer<Handle> {
    let mut all = world.gpus.iter().enumerate();
    all.find(|(_, gpu)| gpu.board_serial == serial)
        .map(|(index, gpu)| Handle::of_gpu(index, gpu))
        .ok_or(Code::NOT_FOUND)
}

fn name(device: Device<'_>) -> Answer<String> {
    let gpu = &device.model()?.name;
    match device.slice {
        Some(slice) => Ok(format!("{gpu} MIG {}", device.compute_profile(slice)?.name)),
        None => Ok(gpu.clone()),
    }
}

/// Total, what the driver keeps of it, and what programs use.
fn bytes(device: Device<'_>) -> Answer<(u64, u64, u64)> {
    let in_use = |processes: &mut dyn Iterator<Item = &Process>| processes.map(|process| process.memory).sum();
    let mut all = device.gpu.processes.iter();
    let Some(slice) = device.slice else {
        if device.gpu.mig_current {
            device.world.permit(Permission::Monitor)?;
        }
        let memory = &device.model()?.memory;
        return Ok((memory.total, memory.reserved, in_use(&mut all)));
    };
    // Compute instances share the memory of their GPU instance.
    let total = device.profile(slice.instance)?.memory_mb.saturating_mul(MIB);
    Ok((total, 0, in_use(&mut all.filter(|process| process.instance == Some(slice.instance.id)))))
}

fn pci_info(device: Device<'_>) -> Answer<PciInfo> {
    let (model, pci) = (device.model()?, device.gpu.pci);
    Ok(PciInfo {
        busIdLegacy: field(&pci.short()),
        domain: pci.domain,
        bus: pci.bus.into(),
        device: pci.device.into(),
        pciDeviceId: model.pci_device_id,
        pciSubSystemId: model.pci_subsystem_id,
        busId: field(&pci.long()),
    })
}

/// The first versions' structure ends before `busId`: only what is before it may be written.
fn legacy_pci(device: Device<'_>, pci: Out<PciInfo>) -> Answer {
    #[repr(C)]
    struct Legacy(PciInfoHead);
    type PciInfoHead = ([u8; 16], [u32; 5]);
    let info = pci_info(device)?;
    let bus = info.busIdLegacy.map(|character| character.to_ne_bytes()[0]);
    let head = Legacy((bus, [info.domain, info.bus, info.device, info.pciDeviceId, info.pciSubSystemId]));
    pci.as_type().set(head)
}

fn pci_info_ext(device: Device<'_>, pci: Out<PciInfoExt>) -> Answer {
    let version = pci.version()?;
    if version != version_of::<PciInfoExt>(1) {
        return Err(Code::ARGUMENT_VERSION_MISMATCH);
    }
    let info = pci_info(device)?;
    pci.set(PciInfoExt {
        version,
        domain: info.domain,
        bus: info.bus,
        device: info.device,
        pciDeviceId: info.pciDeviceId,
        pciSubSystemId: info.pciSubSystemId,
        baseClass: CLASS.0,
        subClass: CLASS.1,
        busId: info.busId,
    })
}

/// `nvmlGpuTopologyLevel_t`: the same GPU, the same NUMA node, or across nodes.
fn common_ancestor(first: Device<'_>, second: Device<'_>) -> u32 {
    match (first.index == second.index, first.gpu.numa == second.gpu.numa) {
        (true, _) => 0,
        (false, true) => 40,
        (false, false) => 50,
    }
}
