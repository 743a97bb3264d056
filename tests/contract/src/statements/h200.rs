//! One H200's own numbers. All of it **[M]**.

use super::{Statement, statements};
use crate::{
    call::{Verdict, equal, holds, skip},
    code::Code,
    facts::{self, Facts},
    gpu::{Gpu, TEXT},
    nvml::{GPU_PROFILE_V2, MEMORY_V2, Nvml},
};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    it_is_the_gpu_that_was_measured,
    versions_are_those_that_were_measured,
    its_cores_are_counted,
    its_memory_is_as_measured,
    its_numa_node_is_not_supported,
    its_events_are_as_measured,
    its_firmware_is_the_drivers,
    its_vbios_has_five_bytes,
    its_errors_are_corrected,
    its_profiles_are_at_the_measured_indices,
    its_profiles_are_as_measured,
    its_profiles_memory_is_as_measured,
    its_placements_are_as_measured,
    its_remaining_capacity_is_as_measured,
];

/// Goes on on an H200.
pub(super) fn needs(gpu: &Gpu) -> Verdict {
    let name = gpu.nvml.name(gpu.device, TEXT).value()?;
    if name == facts::h200()?.name { Ok(()) } else { skip(format!("{name} is no H200")) }
}

/// Goes on on the driver that was measured: sizes of the same profiles differ between drivers.
fn same_driver(nvml: &Nvml, facts: &Facts) -> Verdict {
    let driver = nvml.driver_version(TEXT).value()?;
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(&driver) == major(&facts.driver) {
        Ok(())
    } else {
        skip(format!("measured with driver {}, this is {driver}", facts.driver))
    }
}

fn it_is_the_gpu_that_was_measured(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    gpu.nvml.architecture(gpu.device).gives(facts.architecture)?;
    gpu.nvml.brand(gpu.device).gives(facts.brand)?;
    gpu.nvml.compute_capability(gpu.device).gives(facts.compute_capability)?;
    let (pci, _) = gpu.nvml.pci(gpu.device).value()?;
    equal("pciDeviceId", pci.device_id, facts.pci_device_id)?;
    equal("pciSubSystemId", pci.subsystem_id, facts.pci_subsystem_id)
}

fn versions_are_those_that_were_measured(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    if gpu.nvml.driver_version(TEXT).value()? != facts.driver {
        return skip(format!("measured with driver {}", facts.driver));
    }
    gpu.nvml.nvml_version(TEXT).gives(facts.nvml)?;
    gpu.nvml.cuda_version().gives(facts.cuda)?;
    facts.error_strings.into_iter().try_for_each(|(code, text)| {
        equal(format!("nvmlErrorString on {code}"), gpu.nvml.error_string(Code(code)), Some(text))
    })
}

/// With MIG off.
fn its_cores_are_counted(gpu: &Gpu) -> Verdict {
    gpu.off()?;
    gpu.nvml.cores(gpu.device).gives(facts::h200()?.cores)
}

fn its_memory_is_as_measured(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    same_driver(&gpu.nvml, &facts)?;
    gpu.off()?;
    equal("the version of nvmlMemory_v2_t", MEMORY_V2, facts.memory_v2_version)?;
    let memory = gpu.nvml.memory_v2(gpu.device, MEMORY_V2).value()?;
    equal("total", memory.total, facts.memory_total)?;
    equal("reserved", memory.reserved, facts.memory_reserved)
}

fn its_numa_node_is_not_supported(gpu: &Gpu) -> Verdict {
    gpu.nvml.numa_node(gpu.device).returns(Code::NOT_SUPPORTED)
}

fn its_events_are_as_measured(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    same_driver(&gpu.nvml, &facts)?;
    gpu.nvml.supported_events(gpu.device).gives(facts.supported_events)
}

fn its_firmware_is_the_drivers(gpu: &Gpu) -> Verdict {
    gpu.nvml.gsp_version(gpu.device).gives(gpu.nvml.driver_version(TEXT).value()?)?;
    gpu.nvml.gsp_mode(gpu.device).gives(facts::h200()?.gsp_mode)
}

/// `96.00.A5.00.1A` there; boards differ.
fn its_vbios_has_five_bytes(gpu: &Gpu) -> Verdict {
    let version = gpu.nvml.vbios(gpu.device, TEXT).value()?;
    let byte = |part: &str| part.len() == 2 && part.chars().all(|c| matches!(c, '0'..='9' | 'A'..='F'));
    let parts: Vec<&str> = version.split('.').collect();
    holds(
        format!("nvmlDeviceGetVbiosVersion: {version:?} is five bytes"),
        parts.len() == 5 && parts.into_iter().all(byte),
    )?;
    holds(format!("nvmlDeviceGetVbiosVersion: {version:?} is a Hopper's"), version.starts_with("96."))
}

fn its_errors_are_corrected(gpu: &Gpu) -> Verdict {
    gpu.nvml.ecc_mode(gpu.device).gives(facts::h200()?.ecc)
}

fn its_profiles_are_at_the_measured_indices(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    same_driver(&gpu.nvml, &facts)?;
    for index in 0..facts.profile_indices + 3 {
        let expected = match facts.profiles.iter().any(|profile| profile.index == index) {
            true => Code::SUCCESS,
            false if index < facts.profile_indices => Code::NOT_SUPPORTED,
            false => Code::INVALID_ARGUMENT,
        };
        gpu.nvml.gpu_profile(gpu.device, index).returns(expected)?;
        gpu.nvml.gpu_profile_v2(gpu.device, index, GPU_PROFILE_V2).returns(expected)?;
    }
    Ok(())
}

/// But for the memory, which differs between drivers.
fn its_profiles_are_as_measured(gpu: &Gpu) -> Verdict {
    for known in facts::h200()?.profiles {
        let (mut found, peers) = gpu.nvml.gpu_profile(gpu.device, known.index).value()?;
        let expected = known.as_nvml();
        found.memory_mb = expected.memory_mb;
        equal(&known.name, found, expected)?;
        equal(format!("isP2pSupported of {}", known.name), peers, known.peer_to_peer)?;
    }
    Ok(())
}

fn its_profiles_memory_is_as_measured(gpu: &Gpu) -> Verdict {
    let facts = facts::h200()?;
    same_driver(&gpu.nvml, &facts)?;
    for known in facts.profiles {
        let (found, _) = gpu.nvml.gpu_profile_v2(gpu.device, known.index, GPU_PROFILE_V2).value()?;
        equal(format!("the name of profile {}", known.index), &found.name, &known.name)?;
        equal(format!("memorySizeMB of {}", known.name), found.profile.memory_mb, known.memory_mb)?;
    }
    Ok(())
}

fn its_placements_are_as_measured(gpu: &Gpu) -> Verdict {
    facts::h200()?.profiles.iter().try_for_each(|known| gpu.nvml.placements(gpu.device, known.id).gives(known.places()))
}

fn its_remaining_capacity_is_as_measured(gpu: &Gpu) -> Verdict {
    gpu.off()?;
    facts::h200()?.profiles.iter().try_for_each(|known| gpu.nvml.remaining(gpu.device, known.id).gives(known.remaining))
}
