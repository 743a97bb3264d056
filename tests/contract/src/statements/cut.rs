//! A GPU that is cut, however it is cut: its instances and its MIG devices, only looked at.

use super::{Statement, statements};
use crate::{
    call::{Verdict, broken, equal, holds, skip},
    code::Code,
    gpu::{Gpu, TEXT, is_uuid},
    nvml::MEMORY_V2,
};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    a_gpu_has_at_most_as_many_mig_devices_as_it_may_have,
    a_gap_among_the_mig_devices_is_not_found,
    mig_devices_are_found_by_their_uuids,
    mig_devices_know_their_gpu,
    mig_devices_are_of_instances_that_are_listed,
    every_compute_instance_is_a_mig_device,
    mig_devices_have_their_profiles_attributes,
    mig_devices_are_named_after_their_gpu_and_profile,
    the_memory_of_a_mig_device_is_a_part_of_the_gpus,
    gpu_instances_are_found_by_their_ids,
    gpu_instances_lie_where_they_may_and_do_not_overlap,
    compute_instances_are_found_by_their_ids,
    compute_instances_lie_where_they_may_and_do_not_overlap,
    an_unknown_compute_instance_is_not_found,
    compute_profile_indices_have_an_end,
    all_versions_of_a_compute_profile_agree,
    no_more_compute_instances_remain_than_there_may_be,
];

fn a_gpu_has_at_most_as_many_mig_devices_as_it_may_have(gpu: &Gpu) -> Verdict {
    let most = gpu.nvml.max_mig_devices(gpu.device).value()?;
    let smallest = gpu.smallest()?;
    equal(
        format!("nvmlDeviceGetMaxMigDeviceCount, of {} there may be that many", smallest.name),
        most,
        smallest.profile.instances,
    )
}

fn a_gap_among_the_mig_devices_is_not_found(gpu: &Gpu) -> Verdict {
    let slices = gpu.slices()?;
    let most = gpu.nvml.max_mig_devices(gpu.device).value()?;
    for index in (0..most).filter(|index| !slices.iter().any(|(known, _)| known == index)) {
        gpu.nvml.mig_device(gpu.device, index).returns(Code::NOT_FOUND)?;
    }
    // Beyond the last it may be either.
    gpu.nvml.mig_device(gpu.device, most).returns_one_of(&[Code::NOT_FOUND, Code::INVALID_ARGUMENT])
}

fn mig_devices_are_found_by_their_uuids(gpu: &Gpu) -> Verdict {
    let mut uuids = Vec::new();
    for (index, device) in gpu.slices()? {
        let uuid = gpu.nvml.uuid(device, TEXT).value()?;
        holds(format!("nvmlDeviceGetUUID: {uuid:?} is MIG- and a UUID"), is_uuid(&uuid, "MIG-"))?;
        holds(format!("the UUID of MIG device {index} is no other's"), !uuids.contains(&uuid))?;
        gpu.nvml.by_uuid(&uuid).gives(device)?;
        uuids.push(uuid);
    }
    Ok(())
}

fn mig_devices_know_their_gpu(gpu: &Gpu) -> Verdict {
    for (index, device) in gpu.slices()? {
        gpu.nvml.is_mig_device(device).gives(1)?;
        gpu.nvml.parent(device).gives(gpu.device)?;
        gpu.nvml.index(device).on(format_args!("MIG device {index}")).gives(index)?;
    }
    gpu.nvml.is_mig_device(gpu.device).gives(0)
}

fn mig_devices_are_of_instances_that_are_listed(gpu: &Gpu) -> Verdict {
    let mut listed = Vec::new();
    for (_, instance) in gpu.instances()? {
        let id = gpu.nvml.gpu_instance_info(instance).value()?.id;
        for (_, compute) in gpu.computes(instance)? {
            listed.push((id, gpu.nvml.compute_instance_info(compute).value()?.id));
        }
    }
    for (index, device) in gpu.slices()? {
        let ids = (gpu.nvml.gpu_instance_id(device).value()?, gpu.nvml.compute_instance_id(device).value()?);
        holds(
            format!("GPU and compute instance {ids:?} of MIG device {index} are among {listed:?}"),
            listed.contains(&ids),
        )?;
    }
    Ok(())
}

fn every_compute_instance_is_a_mig_device(gpu: &Gpu) -> Verdict {
    let mut count = 0;
    for (_, instance) in gpu.instances()? {
        count += gpu.computes(instance)?.len();
    }
    equal("MIG devices, as many as compute instances", gpu.slices()?.len(), count)
}

fn mig_devices_have_their_profiles_attributes(gpu: &Gpu) -> Verdict {
    for (index, device) in gpu.slices()? {
        let id = gpu.nvml.gpu_instance_id(device).value()?;
        let instance = gpu.nvml.gpu_instance(gpu.device, id).value()?;
        let found = gpu.nvml.gpu_instance_info(instance).value()?.profile;
        let profile = gpu.nvml.gpu_profile_by_id(gpu.device, found).value()?.profile;
        let id = gpu.nvml.compute_instance_id(device).value()?;
        let compute = gpu.nvml.compute_instance(instance, id).value()?;
        let found = gpu.nvml.compute_instance_info(compute).value()?.profile;
        let known = gpu.compute_offers(instance)?;
        let Some(compute) = known.iter().find(|offer| offer.profile.id == found) else {
            return broken(format!("compute instance {id} has the profile {found}, which is not offered"));
        };
        let attributes = gpu.nvml.attributes(device).value()?;
        let of = |what: &str| format!("{what} of MIG device {index} ({})", compute.name);
        equal(of("multiprocessorCount"), attributes.multiprocessors, compute.profile.multiprocessors)?;
        equal(of("computeInstanceSliceCount"), attributes.compute_slices, compute.profile.slices)?;
        equal(of("gpuInstanceSliceCount"), attributes.gpu_slices, profile.slices)?;
        equal(of("memorySizeMB"), attributes.memory_mb, profile.memory_mb)?;
        let engines = [attributes.copy, attributes.decoder, attributes.encoder, attributes.jpeg, attributes.ofa];
        let shared = [profile.copy, profile.decoder, profile.encoder, profile.jpeg, profile.ofa];
        equal(of("copy, decoder, encoder, JPEG and OFA engines"), engines, shared)?;
    }
    Ok(())
}

fn mig_devices_are_named_after_their_gpu_and_profile(gpu: &Gpu) -> Verdict {
    let own = gpu.nvml.name(gpu.device, TEXT).value()?;
    for (_, device) in gpu.slices()? {
        let attributes = gpu.nvml.attributes(device).value()?;
        let id = gpu.nvml.gpu_instance_id(device).value()?;
        let instance = gpu.nvml.gpu_instance(gpu.device, id).value()?;
        let profile = gpu.nvml.gpu_instance_info(instance).value()?.profile;
        let profile = gpu.nvml.gpu_profile_by_id(gpu.device, profile).value()?.name;
        let profile = profile.trim_start_matches("MIG ");
        let expected = if attributes.compute_slices == attributes.gpu_slices {
            format!("{own} MIG {profile}")
        } else {
            format!("{own} MIG {}c.{profile}", attributes.compute_slices)
        };
        gpu.nvml.name(device, TEXT).gives(expected)?;
    }
    Ok(())
}

/// A driver may report a little more or less than the profile has.
fn the_memory_of_a_mig_device_is_a_part_of_the_gpus(gpu: &Gpu) -> Verdict {
    let Some(all) = gpu.nvml.memory(gpu.device).value_or(Code::NO_PERMISSION)? else {
        return skip("this user may not see the memory of a GPU with MIG on");
    };
    for (index, device) in gpu.slices()? {
        let stated = gpu.nvml.attributes(device).value()?.memory_mb << 20;
        let memory = gpu.nvml.memory_v2(device, MEMORY_V2).value()?;
        let near = memory.total.abs_diff(stated) * 20 <= stated;
        holds(format!("total memory of MIG device {index}: {} is about {stated}", memory.total), near)?;
        holds(
            format!("total memory of MIG device {index}: {} is at most the GPU's {}", memory.total, all.total),
            memory.total <= all.total,
        )?;
        gpu.nvml.memory(device).value()?;
    }
    Ok(())
}

fn gpu_instances_are_found_by_their_ids(gpu: &Gpu) -> Verdict {
    let mut ids = Vec::new();
    for (offer, instance) in gpu.instances()? {
        let info = gpu.nvml.gpu_instance_info(instance).value()?;
        equal("the device of a GPU instance", info.device, gpu.device)?;
        equal("the profile of a GPU instance", info.profile, offer.profile.id)?;
        holds(format!("GPU instance id {} is no other's", info.id), !ids.contains(&info.id))?;
        let found = gpu.nvml.gpu_instance(gpu.device, info.id).value()?;
        gpu.nvml.gpu_instance_info(found).gives(info)?;
        ids.push(info.id);
    }
    Ok(())
}

fn gpu_instances_lie_where_they_may_and_do_not_overlap(gpu: &Gpu) -> Verdict {
    let mut taken: Vec<u32> = Vec::new();
    for (offer, instance) in gpu.instances()? {
        let place = gpu.nvml.gpu_instance_info(instance).value()?.placement;
        let places = gpu.nvml.placements(gpu.device, offer.profile.id).value()?;
        holds(format!("{} at {place:?} is at one of {places:?}", offer.name), places.contains(&place))?;
        for slice in place.start..place.start + place.size {
            holds(format!("memory slice {slice} has one owner"), !taken.contains(&slice))?;
            taken.push(slice);
        }
    }
    Ok(())
}

fn compute_instances_are_found_by_their_ids(gpu: &Gpu) -> Verdict {
    for (_, instance) in gpu.instances()? {
        let mut ids = Vec::new();
        for (offer, compute) in gpu.computes(instance)? {
            let info = gpu.nvml.compute_instance_info(compute).value()?;
            // "Parent device", says the header. NVIDIA's DRA driver took it for the MIG device until it was mended.
            let own = gpu.slice_of(gpu.nvml.gpu_instance_info(instance).value()?.id, info.id)?;
            holds(
                "the device of a compute instance is its GPU or its MIG device",
                [gpu.device, own].contains(&info.device),
            )?;
            equal(
                "the GPU instance of a compute instance",
                gpu.nvml.gpu_instance_info(info.gpu_instance).value()?,
                gpu.nvml.gpu_instance_info(instance).value()?,
            )?;
            equal("the profile of a compute instance", info.profile, offer.profile.id)?;
            holds(format!("compute instance id {} is no other's", info.id), !ids.contains(&info.id))?;
            let found = gpu.nvml.compute_instance(instance, info.id).value()?;
            equal("the compute instance found by its id", gpu.nvml.compute_instance_info(found).value()?.id, info.id)?;
            ids.push(info.id);
        }
    }
    Ok(())
}

fn compute_instances_lie_where_they_may_and_do_not_overlap(gpu: &Gpu) -> Verdict {
    for (_, instance) in gpu.instances()? {
        let mut taken: Vec<u32> = Vec::new();
        for (offer, compute) in gpu.computes(instance)? {
            let place = gpu.nvml.compute_instance_info(compute).value()?.placement;
            let places = gpu.nvml.compute_placements(instance, offer.profile.id).value()?;
            holds(format!("{} at {place:?} is at one of {places:?}", offer.name), places.contains(&place))?;
            for slice in place.start..place.start + place.size {
                holds(format!("compute slice {slice} has one owner"), !taken.contains(&slice))?;
                taken.push(slice);
            }
        }
    }
    Ok(())
}

fn an_unknown_compute_instance_is_not_found(gpu: &Gpu) -> Verdict {
    // No driver has so many; the header has both for it.
    let refused = [Code::NOT_FOUND, Code::INVALID_ARGUMENT];
    let instances = gpu.instances()?;
    instances.iter().try_for_each(|(_, instance)| gpu.nvml.compute_instance(*instance, 77).returns_one_of(&refused))
}

/// Some eight to ten are known; every GPU instance offers one of its own size.
fn compute_profile_indices_have_an_end(gpu: &Gpu) -> Verdict {
    for (offer, instance) in gpu.instances()? {
        gpu.nvml.compute_profile(instance, 64).returns(Code::INVALID_ARGUMENT)?;
        gpu.nvml.compute_profile(instance, u32::MAX).returns(Code::INVALID_ARGUMENT)?;
        let whole = gpu.whole_compute(instance)?;
        equal(
            format!("slices of {}'s largest compute profile", offer.name),
            whole.profile.slices,
            offer.profile.slices,
        )?;
        equal(
            format!("multiprocessors of {}'s largest compute profile", offer.name),
            whole.profile.multiprocessors,
            offer.profile.multiprocessors,
        )?;
    }
    Ok(())
}

fn all_versions_of_a_compute_profile_agree(gpu: &Gpu) -> Verdict {
    for (_, instance) in gpu.instances()? {
        for offer in gpu.compute_offers(instance)? {
            let first = gpu.nvml.compute_profile(instance, offer.index).value()?;
            equal(format!("version 2 of {}", offer.name), &offer.profile, &first)?;
            let third = gpu.nvml.compute_profile_v3(instance, offer.index).value()?;
            equal(format!("version 3 of {}", offer.name), third.profile, first)?;
            equal(format!("the name in version 3 of {}", offer.name), third.name, format!("MIG {}", offer.name))?;
        }
    }
    Ok(())
}

fn no_more_compute_instances_remain_than_there_may_be(gpu: &Gpu) -> Verdict {
    for (_, instance) in gpu.instances()? {
        for offer in gpu.compute_offers(instance)? {
            let left = gpu.nvml.compute_remaining(instance, offer.profile.id).value()?;
            let there = gpu.nvml.compute_instances(instance, offer.profile.id).value()?.len();
            let all = left.saturating_add(u32::try_from(there).unwrap_or(u32::MAX));
            holds(
                format!("{left} more of {} beside {there} are at most {}", offer.name, offer.profile.instances),
                all <= offer.profile.instances,
            )?;
        }
    }
    Ok(())
}
