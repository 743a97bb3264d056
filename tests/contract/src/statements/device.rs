//! Any GPU, whether it has MIG or not.

use super::{Statement, statements};
use crate::{
    call::{Verdict, equal, holds, skip},
    code::Code,
    gpu::{Gpu, TEXT, is_uuid},
    nvml::{Device, MEMORY_V2, PCI_EXT_V1},
};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    a_gpu_is_found_by_its_index_uuid_and_pci_address,
    an_unknown_pci_address_is_not_found,
    uuids_are_of_the_usual_form_and_differ,
    minor_numbers_differ,
    pci_addresses_are_written_long_and_short,
    the_extended_pci_information_says_the_same,
    the_board_is_numbered_by_its_place_on_the_bus,
    both_versions_of_the_memory_information_agree,
    structures_of_another_version_are_refused,
    a_gpu_is_no_mig_device,
    instance_ids_of_a_gpu_are_an_invalid_argument,
    the_parent_of_a_gpu_is_an_invalid_argument,
    attributes_of_a_gpu_are_not_supported,
    names_and_uuids_need_room_for_their_end,
    null_for_a_result_is_an_invalid_argument,
    null_for_a_device_is_an_invalid_argument,
    as_many_processes_are_listed_as_room_was_asked_for,
    a_gpu_says_what_monitors_ask,
];

fn a_gpu_is_found_by_its_index_uuid_and_pci_address(gpu: &Gpu) -> Verdict {
    gpu.nvml.index(gpu.device).gives(gpu.index)?;
    gpu.nvml.by_uuid(&gpu.uuid()?).gives(gpu.device)?;
    let (pci, short) = gpu.nvml.pci(gpu.device).value()?;
    gpu.nvml.by_pci(&pci.bus_id).gives(gpu.device)?;
    gpu.nvml.by_pci(&short).gives(gpu.device)
}

fn an_unknown_pci_address_is_not_found(gpu: &Gpu) -> Verdict {
    gpu.nvml.by_pci("ffff:ff:1f.0").returns(Code::NOT_FOUND)
}

fn of_all<T: PartialEq>(gpu: &Gpu, what: &str, get: impl Fn(Device) -> Verdict<T>) -> Verdict<Vec<T>> {
    let mut all = Vec::new();
    for index in 0..gpu.nvml.count().value()? {
        let value = get(gpu.nvml.by_index(index).value()?)?;
        holds(format!("the {what} of GPU {index} is no other's"), !all.contains(&value))?;
        all.push(value);
    }
    Ok(all)
}

fn uuids_are_of_the_usual_form_and_differ(gpu: &Gpu) -> Verdict {
    for uuid in of_all(gpu, "UUID", |device| gpu.nvml.uuid(device, TEXT).value())? {
        holds(format!("nvmlDeviceGetUUID: {uuid:?} is GPU- and a UUID"), is_uuid(&uuid, "GPU-"))?;
    }
    Ok(())
}

fn minor_numbers_differ(gpu: &Gpu) -> Verdict {
    of_all(gpu, "minor number", |device| gpu.nvml.minor(device).value()).map(|_| ())
}

/// **[M]**: `00000000:00:06.0` and `0000:00:06.0`. Whether the short form has capital letters is not known.
fn pci_addresses_are_written_long_and_short(gpu: &Gpu) -> Verdict {
    let (pci, short) = gpu.nvml.pci(gpu.device).value()?;
    equal("busId", pci.bus_id, format!("{:08X}:{:02X}:{:02X}.0", pci.domain, pci.bus, pci.device))?;
    equal("busIdLegacy", short.to_uppercase(), format!("{:04X}:{:02X}:{:02X}.0", pci.domain, pci.bus, pci.device))?;
    equal("the vendor in pciDeviceId", pci.device_id & 0xffff, 0x10de)
}

fn the_extended_pci_information_says_the_same(gpu: &Gpu) -> Verdict {
    let (pci, _) = gpu.nvml.pci(gpu.device).value()?;
    gpu.nvml.pci_ext(gpu.device, PCI_EXT_V1).gives(pci)
}

/// **[M]**: board 6 at 00:06.
fn the_board_is_numbered_by_its_place_on_the_bus(gpu: &Gpu) -> Verdict {
    let (pci, _) = gpu.nvml.pci(gpu.device).value()?;
    if pci.domain != 0 {
        return skip("the GPU is in another PCI domain than the first, whose board numbers are not known");
    }
    gpu.nvml.board_id(gpu.device).gives(pci.bus << 8 | pci.device)
}

/// **[M]**: what the first version calls used is what the second calls used or reserved, and `version` stays.
fn both_versions_of_the_memory_information_agree(gpu: &Gpu) -> Verdict {
    let Some(first) = gpu.nvml.memory(gpu.device).value_or(Code::NO_PERMISSION)? else {
        return skip("this user may not see the memory of a GPU with MIG on");
    };
    let second = gpu.nvml.memory_v2(gpu.device, MEMORY_V2).value()?;
    equal("version of nvmlMemory_v2_t after the call", second.version, MEMORY_V2)?;
    equal("total", second.total, first.total)?;
    equal("used + free of the first version", first.used + first.free, first.total)?;
    equal("reserved + used + free of the second version", second.reserved + second.used + second.free, second.total)
}

/// **[M]**, each with a code of its own.
fn structures_of_another_version_are_refused(gpu: &Gpu) -> Verdict {
    gpu.nvml.memory_v2(gpu.device, 0).returns(Code::FUNCTION_NOT_FOUND)?;
    gpu.nvml.memory_v2(gpu.device, MEMORY_V2 + (5 << 24)).returns(Code::FUNCTION_NOT_FOUND)?;
    gpu.nvml.pci_ext(gpu.device, 0).returns(Code::ARGUMENT_VERSION_MISMATCH)
}

/// **[M]**
fn a_gpu_is_no_mig_device(gpu: &Gpu) -> Verdict {
    gpu.nvml.is_mig_device(gpu.device).gives(0)
}

/// **[M]**
fn instance_ids_of_a_gpu_are_an_invalid_argument(gpu: &Gpu) -> Verdict {
    gpu.nvml.gpu_instance_id(gpu.device).returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.compute_instance_id(gpu.device).returns(Code::INVALID_ARGUMENT)
}

/// **[M]**
fn the_parent_of_a_gpu_is_an_invalid_argument(gpu: &Gpu) -> Verdict {
    gpu.nvml.parent(gpu.device).returns(Code::INVALID_ARGUMENT)
}

/// **[M]**
fn attributes_of_a_gpu_are_not_supported(gpu: &Gpu) -> Verdict {
    gpu.nvml.attributes(gpu.device).returns(Code::NOT_SUPPORTED)
}

fn names_and_uuids_need_room_for_their_end(gpu: &Gpu) -> Verdict {
    let length = |text: String| u32::try_from(text.len()).unwrap_or(u32::MAX);
    let name = length(gpu.nvml.name(gpu.device, TEXT).value()?);
    gpu.nvml.name(gpu.device, name).returns(Code::INSUFFICIENT_SIZE)?;
    gpu.nvml.name(gpu.device, name + 1).value()?;
    let uuid = length(gpu.uuid()?);
    gpu.nvml.uuid(gpu.device, uuid).returns(Code::INSUFFICIENT_SIZE)?;
    gpu.nvml.uuid(gpu.device, uuid + 1).value()?;
    Ok(())
}

fn null_for_a_result_is_an_invalid_argument(gpu: &Gpu) -> Verdict {
    // Without MIG, which of both is looked at first is not known.
    let capable = gpu.mode()?.is_some();
    let otherwise = if capable { Code::INVALID_ARGUMENT } else { Code::NOT_SUPPORTED };
    let calls = gpu.nvml.nulls_of(gpu.device);
    calls.into_iter().try_for_each(|call| call.on("NULL").returns_one_of(&[Code::INVALID_ARGUMENT, otherwise]))
}

fn null_for_a_device_is_an_invalid_argument(gpu: &Gpu) -> Verdict {
    gpu.nvml.name(Device::NULL, TEXT).on("no device").returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.uuid(Device::NULL, TEXT).on("no device").returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.minor(Device::NULL).on("no device").returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.memory(Device::NULL).on("no device").returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.mig_mode(Device::NULL).on("no device").returns(Code::INVALID_ARGUMENT)?;
    gpu.nvml.supported_events(Device::NULL).on("no device").returns(Code::INVALID_ARGUMENT)
}

/// Without room the answer is how much it would take; processes may come in between.
fn as_many_processes_are_listed_as_room_was_asked_for(gpu: &Gpu) -> Verdict {
    let asked = gpu.nvml.processes_without_room(gpu.device);
    let listed = gpu.nvml.processes(gpu.device).value()?;
    if listed.is_empty() { asked.gives(0) } else { asked.returns(Code::INSUFFICIENT_SIZE) }
}

fn a_gpu_says_what_monitors_ask(gpu: &Gpu) -> Verdict {
    let persistence = gpu.nvml.persistence_mode(gpu.device).value()?;
    holds(format!("nvmlDeviceGetPersistenceMode: {persistence} is 0 or 1"), persistence <= 1)?;
    let compute = gpu.nvml.compute_mode(gpu.device).value()?;
    holds(format!("nvmlDeviceGetComputeMode: {compute} is 0 to 3"), compute <= 3)?;
    let milliwatts = gpu.nvml.power(gpu.device).value()?;
    holds(format!("nvmlDeviceGetPowerUsage: {milliwatts} mW is more than a watt"), milliwatts > 1000)
}
