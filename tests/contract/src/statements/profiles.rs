//! What a GPU with MIG offers, whether its mode is on or off.

use super::{Statement, statements};
use crate::{
    call::{Verdict, equal, holds},
    code::Code,
    gpu::Gpu,
    nvml::GPU_PROFILE_V2,
};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    the_mode_is_off_or_on,
    indices_have_an_end_and_holes_before_it,
    all_versions_of_a_profile_agree,
    a_profile_is_found_by_its_id,
    nothing_is_left_of_the_version_in_the_answer,
    a_structure_of_no_version_is_refused,
    names_say_how_many_slices,
    ids_differ_and_no_profile_is_empty,
    larger_profiles_have_more_of_everything,
    placements_are_counted_without_a_list,
    placements_are_of_one_size_and_differ,
    there_is_a_place_for_every_instance,
    no_more_remain_than_there_may_be,
    an_unknown_id_is_an_invalid_argument,
    an_unknown_instance_is_not_found,
    null_for_a_result_is_an_invalid_argument,
];

fn the_mode_is_off_or_on(gpu: &Gpu) -> Verdict {
    let (current, pending) = gpu.nvml.mig_mode(gpu.device).value()?;
    holds(format!("nvmlDeviceGetMigMode: {current} and {pending} are 0 or 1"), current <= 1 && pending <= 1)
}

/// **[M]** on driver 580: INVALID_ARGUMENT from 17 on, although its header has one more; newer drivers may know more.
fn indices_have_an_end_and_holes_before_it(gpu: &Gpu) -> Verdict {
    let mut end = None;
    for index in 0..256 {
        let call = gpu.nvml.gpu_profile(gpu.device, index);
        match end {
            Some(_) => call.returns(Code::INVALID_ARGUMENT)?,
            None if call.code()? == Code::INVALID_ARGUMENT => end = Some(index),
            None => call.returns_one_of(&[Code::SUCCESS, Code::NOT_SUPPORTED])?,
        }
    }
    gpu.nvml.gpu_profile(gpu.device, u32::MAX).returns(Code::INVALID_ARGUMENT)?;
    let end = end.unwrap_or(u32::MAX);
    match gpu.driver_major()? {
        580 => equal("the first profile index that is INVALID_ARGUMENT", end, 17),
        581.. => holds(format!("the first profile index that is INVALID_ARGUMENT: {end} is 17 or more"), end >= 17),
        _ => holds(format!("the first profile index that is INVALID_ARGUMENT: {end} is 5 or more"), end >= 5),
    }
}

/// **[M]** for the first and the second version.
fn all_versions_of_a_profile_agree(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let (first, peers) = gpu.nvml.gpu_profile(gpu.device, offer.index).value()?;
        let (second, same) = gpu.nvml.gpu_profile_v2(gpu.device, offer.index, GPU_PROFILE_V2).value()?;
        equal(format!("version 2 of profile {}", offer.index), &second.profile, &first)?;
        equal(format!("isP2pSupported in version 2 of profile {}", offer.index), same, peers)?;
        let third = gpu.nvml.gpu_profile_v3(gpu.device, offer.index).value()?;
        equal(format!("version 3 of profile {}", offer.index), third.profile, first)?;
        // **[M]**: driver 580.159.04 leaves it empty. Others may not.
        let name = third.name;
        let known = name.is_empty() || name == second.name;
        holds(
            format!("the name in version 3 of profile {}: {name:?} is empty or {:?}", offer.index, second.name),
            known,
        )?;
    }
    Ok(())
}

fn a_profile_is_found_by_its_id(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let (by_index, _) = gpu.nvml.gpu_profile_v2(gpu.device, offer.index, GPU_PROFILE_V2).value()?;
        gpu.nvml.gpu_profile_by_id(gpu.device, offer.profile.id).gives(by_index)?;
    }
    Ok(())
}

/// **[M]** for the second version.
fn nothing_is_left_of_the_version_in_the_answer(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let (found, _) = gpu.nvml.gpu_profile_v2(gpu.device, offer.index, GPU_PROFILE_V2).value()?;
        equal(format!("version of profile {} after the call", offer.index), found.version, 0)?;
    }
    Ok(())
}

/// **[M]**
fn a_structure_of_no_version_is_refused(gpu: &Gpu) -> Verdict {
    let offer = gpu.whole()?;
    for version in [0, GPU_PROFILE_V2 + (7 << 24)] {
        gpu.nvml.gpu_profile_v2(gpu.device, offer.index, version).returns(Code::INVALID_ARGUMENT)?;
    }
    Ok(())
}

/// **[M]**: `MIG 3g.71gb` has three, `MIG 1g.18gb+me` one.
fn names_say_how_many_slices(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let slices = offer.name.split_once("g.").and_then(|(slices, _)| slices.parse().ok());
        equal(format!("slices in the name {:?}", offer.name), slices, Some(offer.profile.slices))?;
        let rest = offer.name.split_once("g.").map_or("", |(_, rest)| rest);
        let memory = rest.split_once("gb").and_then(|(gigabytes, _)| gigabytes.parse::<u32>().ok());
        holds(format!("the name {:?} says how much memory", offer.name), memory.is_some_and(|memory| memory > 0))?;
    }
    Ok(())
}

fn ids_differ_and_no_profile_is_empty(gpu: &Gpu) -> Verdict {
    let offers = gpu.offers()?;
    holds("the GPU offers profiles", !offers.is_empty())?;
    for (position, offer) in offers.iter().enumerate() {
        let (name, known) = (&offer.name, &offer.profile);
        let same = offers.iter().position(|other| other.profile.id == known.id || other.name == *name);
        equal(format!("the first profile with the id or name of {name}"), same, Some(position))?;
        let some = [known.slices, known.instances, known.multiprocessors, known.copy];
        holds(format!("{name} has slices, instances, multiprocessors, copy engines: {some:?}"), !some.contains(&0))?;
        holds(format!("{name} has memory"), known.memory_mb > 0)?;
    }
    Ok(())
}

/// Of profiles without extras, sorted by slices and memory.
fn larger_profiles_have_more_of_everything(gpu: &Gpu) -> Verdict {
    let mut offers = gpu.offers()?;
    offers.retain(|offer| offer.name.ends_with("gb"));
    offers.sort_by_key(|offer| (offer.profile.slices, offer.profile.memory_mb));
    for pair in offers.windows(2) {
        let [small, large] = pair else { continue };
        let (few, many) = (&small.profile, &large.profile);
        let more = many.multiprocessors >= few.multiprocessors
            && many.memory_mb >= few.memory_mb
            && many.copy >= few.copy
            && many.instances <= few.instances;
        holds(format!("{} has no less of anything than {}", large.name, small.name), more)?;
    }
    Ok(())
}

/// **[M]**
fn placements_are_counted_without_a_list(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let listed = gpu.nvml.placements(gpu.device, offer.profile.id).value()?.len();
        gpu.nvml.placement_count(gpu.device, offer.profile.id).gives(u32::try_from(listed).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// **[M]**, in ascending order there.
fn placements_are_of_one_size_and_differ(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let places = gpu.nvml.placements(gpu.device, offer.profile.id).value()?;
        for pair in places.windows(2) {
            let [first, second] = pair else { continue };
            equal(format!("sizes of {}'s placements", offer.name), second.size, first.size)?;
            holds(format!("starts of {}'s placements ascend: {places:?}", offer.name), first.start < second.start)?;
        }
        holds(
            format!("{}'s placements have a size: {places:?}", offer.name),
            places.iter().all(|place| place.size > 0),
        )?;
    }
    Ok(())
}

/// **[M]**: as many instances as fit side by side, but for `+me`, of which there is one.
fn there_is_a_place_for_every_instance(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let mut end = 0;
        let mut fit = 0;
        for place in gpu.nvml.placements(gpu.device, offer.profile.id).value()? {
            if place.start >= end {
                end = place.start + place.size;
                fit += 1;
            }
        }
        let most = offer.profile.instances;
        if offer.name.ends_with("gb") {
            equal(format!("instances of {} that fit side by side", offer.name), fit, most)?;
        } else {
            holds(format!("{most} of {} fit side by side", offer.name), most <= fit)?;
        }
    }
    Ok(())
}

fn no_more_remain_than_there_may_be(gpu: &Gpu) -> Verdict {
    for offer in gpu.offers()? {
        let (id, most) = (offer.profile.id, offer.profile.instances);
        let left = gpu.nvml.remaining(gpu.device, id).value()?;
        let there = gpu.nvml.gpu_instances(gpu.device, id).value()?.len();
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        holds(
            format!("{left} more of {} beside {there} are at most {most}", offer.name),
            left.saturating_add(there) <= most,
        )?;
    }
    Ok(())
}

fn an_unknown_id_is_an_invalid_argument(gpu: &Gpu) -> Verdict {
    for id in [999, u32::MAX] {
        // The header has both for an id that the GPU does not offer.
        let refused = [Code::INVALID_ARGUMENT, Code::NOT_SUPPORTED];
        gpu.nvml.gpu_profile_by_id(gpu.device, id).returns_one_of(&refused)?;
        gpu.nvml.placement_count(gpu.device, id).returns_one_of(&refused)?;
        gpu.nvml.placements(gpu.device, id).returns_one_of(&refused)?;
        gpu.nvml.remaining(gpu.device, id).returns_one_of(&refused)?;
        gpu.nvml.gpu_instances(gpu.device, id).returns_one_of(&refused)?;
    }
    Ok(())
}

/// **[M]** for id 0 with MIG off.
fn an_unknown_instance_is_not_found(gpu: &Gpu) -> Verdict {
    // No driver has so many; the header has both for it.
    gpu.nvml.gpu_instance(gpu.device, 77).returns_one_of(&[Code::NOT_FOUND, Code::INVALID_ARGUMENT])
}

fn null_for_a_result_is_an_invalid_argument(gpu: &Gpu) -> Verdict {
    let offer = gpu.whole()?;
    let calls = gpu.nvml.nulls_of_profile(gpu.device, offer.index, offer.profile.id);
    calls.into_iter().try_for_each(|call| call.on("NULL").returns(Code::INVALID_ARGUMENT))
}
