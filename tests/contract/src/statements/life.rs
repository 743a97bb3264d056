//! The life of GPU instances, on a GPU with MIG on and nothing cut.

use super::{Statement, Try, cut, events::MIG_CONFIG_CHANGE, statements};
use crate::{
    bench::{Bench, done},
    call::{Stop, Verdict, broken, equal, holds, skip},
    code::Code,
    gpu::TEXT,
    harness::uuids_elsewhere,
    nvml::{GpuInstance, Placement},
};

pub(super) const STATEMENTS: &[Statement] = statements![Life:
    an_instance_is_of_the_profile_that_was_asked_for,
    an_instance_lies_where_it_was_asked_to,
    a_place_that_a_profile_does_not_have_is_an_invalid_argument,
    a_place_that_is_taken_leaves_insufficient_resources,
    a_place_that_is_taken_in_part_leaves_insufficient_resources,
    a_full_gpu_leaves_insufficient_resources,
    as_many_more_can_be_made_as_remain,
    what_remains_drops_and_comes_back,
    a_refusal_changes_nothing,
    two_halves_fill_a_gpu,
    all_compute_slices_are_used_before_all_memory,
    of_profiles_with_media_extensions_there_is_one,
    an_unknown_profile_is_an_invalid_argument,
    null_is_an_invalid_argument_and_makes_nothing,
    ids_tell_the_size_of_the_instance,
    without_compute_instances_there_is_no_mig_device,
    an_instance_with_a_compute_instance_is_in_use,
    a_destroyed_instance_is_an_invalid_argument,
    destroying_one_leaves_the_others_as_they_are,
    what_is_made_in_a_gap_is_new,
    instances_outlive_the_session_that_made_them,
    another_process_sees_what_was_made,
    making_and_destroying_are_events,
    a_process_on_a_slice_is_in_the_way,
    what_was_made_is_as_in_any_gpu_that_is_cut,
];

fn place_of(bench: &Bench, instance: GpuInstance) -> Verdict<Placement> {
    Ok(bench.nvml.gpu_instance_info(instance).value()?.placement)
}

fn an_instance_is_of_the_profile_that_was_asked_for(bench: &Bench) -> Verdict {
    for offer in bench.offers()? {
        let instance = bench.make(&offer)?;
        let info = bench.nvml.gpu_instance_info(instance).value()?;
        equal(format!("the profile of {}", offer.name), info.profile, offer.profile.id)?;
        equal(format!("the device of {}", offer.name), info.device, bench.device)?;
        let places = bench.nvml.placements(bench.device, offer.profile.id).value()?;
        holds(
            format!("{} at {:?} is at one of {places:?}", offer.name, info.placement),
            places.contains(&info.placement),
        )?;
        equal(
            "GPU instances of that profile",
            bench.nvml.gpu_instances(bench.device, offer.profile.id).value()?.len(),
            1,
        )?;
        let found = bench.nvml.gpu_instance(bench.device, info.id).value()?;
        bench.nvml.gpu_instance_info(found).gives(info)?;
        bench.nvml.destroy_gpu_instance(instance).value()?;
        bench.nvml.gpu_instance(bench.device, info.id).returns(Code::NOT_FOUND)?;
        bench.nvml.gpu_instances(bench.device, offer.profile.id).gives(Vec::new())?;
    }
    Ok(())
}

fn an_instance_lies_where_it_was_asked_to(bench: &Bench) -> Verdict {
    for offer in bench.offers()? {
        for place in bench.nvml.placements(bench.device, offer.profile.id).value()? {
            let instance = bench.nvml.create_gpu_instance_at(bench.device, offer.profile.id, place).value()?;
            equal(format!("the placement of {}", offer.name), place_of(bench, instance)?, place)?;
            bench.nvml.destroy_gpu_instance(instance).value()?;
        }
    }
    Ok(())
}

fn a_place_that_a_profile_does_not_have_is_an_invalid_argument(bench: &Bench) -> Verdict {
    let end = bench.memory_slices()?;
    for offer in bench.offers()? {
        let places = bench.nvml.placements(bench.device, offer.profile.id).value()?;
        let Some(size) = places.first().map(|place| place.size) else { continue };
        for start in (0..=end).chain([1000, u32::MAX]).filter(|start| !places.iter().any(|place| place.start == *start))
        {
            let refused = bench.nvml.create_gpu_instance_at(bench.device, offer.profile.id, Placement { start, size });
            refused.returns(Code::INVALID_ARGUMENT)?;
        }
    }
    equal("GPU instances afterwards", bench.instances()?.len(), 0)
}

fn a_place_that_is_taken_leaves_insufficient_resources(bench: &Bench) -> Verdict {
    for offer in bench.offers()? {
        let instance = bench.make(&offer)?;
        let place = place_of(bench, instance)?;
        let again = bench.nvml.create_gpu_instance_at(bench.device, offer.profile.id, place);
        again.returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.destroy_gpu_instance(instance).value()?;
    }
    Ok(())
}

fn a_place_that_is_taken_in_part_leaves_insufficient_resources(bench: &Bench) -> Verdict {
    let (small, half, whole) = (bench.smallest()?, bench.half()?, bench.whole()?);
    for place in bench.nvml.placements(bench.device, small.profile.id).value()? {
        let instance = bench.nvml.create_gpu_instance_at(bench.device, small.profile.id, place).value()?;
        for larger in [&half, &whole] {
            for wish in bench.nvml.placements(bench.device, larger.profile.id).value()? {
                if wish.start < place.start + place.size && place.start < wish.start + wish.size {
                    let refused = bench.nvml.create_gpu_instance_at(bench.device, larger.profile.id, wish);
                    refused.returns(Code::INSUFFICIENT_RESOURCES)?;
                }
            }
        }
        bench.nvml.create_gpu_instance(bench.device, whole.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.destroy_gpu_instance(instance).value()?;
    }
    Ok(())
}

fn a_full_gpu_leaves_insufficient_resources(bench: &Bench) -> Verdict {
    for offer in bench.offers()? {
        let mut taken = Vec::new();
        for _ in 0..offer.profile.instances {
            let place = place_of(bench, bench.make(&offer)?)?;
            holds(format!("{} at {place:?} is beside {taken:?}", offer.name), !taken.contains(&place))?;
            taken.push(place);
        }
        bench.nvml.create_gpu_instance(bench.device, offer.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.remaining(bench.device, offer.profile.id).gives(0)?;
        bench.clear()?;
    }
    Ok(())
}

fn as_many_more_can_be_made_as_remain(bench: &Bench) -> Verdict {
    for first in bench.offers()? {
        for second in bench.offers()? {
            bench.make(&first)?;
            for _ in 0..bench.nvml.remaining(bench.device, second.profile.id).value()? {
                bench.make(&second)?;
            }
            let more = bench.nvml.create_gpu_instance(bench.device, second.profile.id);
            more.on(format_args!("a GPU that has {} and all {} that remained", first.name, second.name))
                .returns(Code::INSUFFICIENT_RESOURCES)?;
            bench.clear()?;
        }
    }
    Ok(())
}

fn what_remains_drops_and_comes_back(bench: &Bench) -> Verdict {
    let before = bench.all_remaining()?;
    for offer in bench.offers()? {
        let instance = bench.make(&offer)?;
        for ((name, was), (_, is)) in before.iter().zip(bench.all_remaining()?) {
            let fine = if *name == offer.name { is < *was } else { is <= *was };
            holds(format!("remaining {name} beside a {}: {is} of {was}", offer.name), fine)?;
        }
        bench.nvml.destroy_gpu_instance(instance).value()?;
        equal(format!("what remains after a {}", offer.name), bench.all_remaining()?, before.clone())?;
    }
    Ok(())
}

fn a_refusal_changes_nothing(bench: &Bench) -> Verdict {
    let (small, whole) = (bench.smallest()?, bench.whole()?);
    let instance = bench.make(&small)?;
    let before = (bench.all_remaining()?, bench.instances()?.len(), place_of(bench, instance)?);
    bench.nvml.create_gpu_instance(bench.device, whole.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
    bench.nvml.create_gpu_instance(bench.device, 999).returns(Code::INVALID_ARGUMENT)?;
    equal("the GPU afterwards", (bench.all_remaining()?, bench.instances()?.len(), place_of(bench, instance)?), before)
}

fn two_halves_fill_a_gpu(bench: &Bench) -> Verdict {
    let half = bench.half()?;
    for _ in 0..half.profile.instances {
        bench.make(&half)?;
    }
    cut_statement("gpu_instances_lie_where_they_may_and_do_not_overlap", bench)?;
    bench.nvml.remaining(bench.device, bench.whole()?.profile.id).gives(0)
}

/// Seven of the smallest leave an eighth of the memory that nothing can have.
fn all_compute_slices_are_used_before_all_memory(bench: &Bench) -> Verdict {
    let (small, whole) = (bench.smallest()?, bench.whole()?);
    equal(
        format!("as many {} as a {} has slices", small.name, whole.name),
        small.profile.instances,
        whole.profile.slices,
    )?;
    for _ in 0..whole.profile.slices {
        bench.make(&small)?;
    }
    for (name, left) in bench.all_remaining()? {
        equal(format!("remaining {name} where all compute slices are used"), left, 0)?;
    }
    Ok(())
}

fn of_profiles_with_media_extensions_there_is_one(bench: &Bench) -> Verdict {
    let offers = bench.offers()?;
    let with: Vec<_> = offers.iter().filter(|offer| offer.name.ends_with("+me")).collect();
    if with.is_empty() {
        return skip("the GPU has no profile with media extensions");
    }
    for first in &with {
        equal(format!("instances of {}", first.name), first.profile.instances, 1)?;
        bench.make(first)?;
        for second in &with {
            bench.nvml.create_gpu_instance(bench.device, second.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
            bench.nvml.remaining(bench.device, second.profile.id).gives(0)?;
        }
        let plain = offers.iter().find(|offer| Some(offer.name.as_str()) == first.name.strip_suffix("+me"));
        if let Some(plain) = plain {
            bench.make(plain)?;
        }
        bench.clear()?;
    }
    Ok(())
}

fn an_unknown_profile_is_an_invalid_argument(bench: &Bench) -> Verdict {
    for id in [999, u32::MAX] {
        bench.nvml.create_gpu_instance(bench.device, id).returns(Code::INVALID_ARGUMENT)?;
        let place = Placement { start: 0, size: 1 };
        bench.nvml.create_gpu_instance_at(bench.device, id, place).returns(Code::INVALID_ARGUMENT)?;
    }
    Ok(())
}

fn null_is_an_invalid_argument_and_makes_nothing(bench: &Bench) -> Verdict {
    let id = bench.smallest()?.profile.id;
    for call in bench.nvml.nulls_of_making(bench.device, id) {
        call.on("NULL").returns(Code::INVALID_ARGUMENT)?;
    }
    equal("GPU instances afterwards", bench.instances()?.len(), 0)
}

/// As published of GPUs with eight memory slices: eight have id 0, four 1 or 2, two 3 to 6, one 7 to 14.
fn ids_tell_the_size_of_the_instance(bench: &Bench) -> Verdict {
    if bench.memory_slices()? != 8 {
        return skip("published of GPUs with eight memory slices");
    }
    for offer in bench.offers()? {
        let mut ids = Vec::new();
        for _ in 0..offer.profile.instances {
            let info = bench.nvml.gpu_instance_info(bench.make(&offer)?).value()?;
            let range = match info.placement.size {
                8 => 0..=0,
                4 => 1..=2,
                2 => 3..=6,
                1 => 7..=14,
                size => return broken(format!("{} takes {size} memory slices", offer.name)),
            };
            holds(format!("the id {} of a {} is in {range:?}", info.id, offer.name), range.contains(&info.id))?;
            holds(format!("the id {} of a {} is not in {ids:?}", info.id, offer.name), !ids.contains(&info.id))?;
            ids.push(info.id);
        }
        bench.clear()?;
    }
    Ok(())
}

fn without_compute_instances_there_is_no_mig_device(bench: &Bench) -> Verdict {
    for offer in bench.offers()? {
        let instance = bench.make(&offer)?;
        equal(format!("MIG devices beside a bare {}", offer.name), bench.slices()?.len(), 0)?;
        equal(format!("compute instances in a bare {}", offer.name), bench.computes(instance)?.len(), 0)?;
        bench.nvml.compute_instance(instance, 0).returns(Code::NOT_FOUND)?;
        bench.clear()?;
    }
    Ok(())
}

fn an_instance_with_a_compute_instance_is_in_use(bench: &Bench) -> Verdict {
    let (instance, compute) = bench.make_slice(&bench.half()?)?;
    let uuids = bench.slice_uuids()?;
    bench.nvml.destroy_gpu_instance(instance).returns(Code::IN_USE)?;
    equal("the MIG devices afterwards", bench.slice_uuids()?, uuids)?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    equal("the MIG devices without the compute instance", bench.slices()?.len(), 0)?;
    bench.nvml.destroy_gpu_instance(instance).value()
}

fn a_destroyed_instance_is_an_invalid_argument(bench: &Bench) -> Verdict {
    let instance = bench.make(&bench.smallest()?)?;
    bench.nvml.destroy_gpu_instance(instance).value()?;
    bench.nvml.gpu_instance_info(instance).returns(Code::INVALID_ARGUMENT)?;
    bench.nvml.compute_profile(instance, 0).returns(Code::INVALID_ARGUMENT)?;
    bench.nvml.create_compute_instance(instance, 0).returns(Code::INVALID_ARGUMENT)?;
    bench.nvml.destroy_gpu_instance(instance).returns(Code::INVALID_ARGUMENT)
}

/// Indices of MIG devices may shift, so it is UUIDs that tell them apart.
fn destroying_one_leaves_the_others_as_they_are(bench: &Bench) -> Verdict {
    let small = bench.smallest()?;
    let mut made = Vec::new();
    for _ in 0..small.profile.instances.min(3) {
        let (instance, compute) = bench.make_slice(&small)?;
        let info = bench.nvml.gpu_instance_info(instance).value()?;
        let slices = bench.slice_uuids()?;
        let new = slices.into_iter().find(|uuid| !made.iter().any(|(_, _, _, known)| known == uuid));
        let Some(uuid) = new else { return broken("a compute instance was made, and no MIG device came") };
        made.push((instance, compute, info, uuid));
    }
    let (instance, compute, info, uuid) = made.remove(1);
    bench.nvml.destroy_compute_instance(compute).value()?;
    bench.nvml.destroy_gpu_instance(instance).value()?;
    bench.nvml.by_uuid(&uuid).returns(Code::NOT_FOUND)?;
    bench.nvml.gpu_instance(bench.device, info.id).returns(Code::NOT_FOUND)?;
    let mut left = bench.slice_uuids()?;
    left.sort();
    let mut expected: Vec<String> = made.iter().map(|(_, _, _, uuid)| uuid.clone()).collect();
    expected.sort();
    equal("the UUIDs of the other MIG devices", left, expected)?;
    for (_, _, info, uuid) in made {
        let again = bench.nvml.gpu_instance(bench.device, info.id).value()?;
        bench.nvml.gpu_instance_info(again).gives(info)?;
        let device = bench.nvml.by_uuid(&uuid).value()?;
        bench.nvml.gpu_instance_id(device).gives(info.id)?;
    }
    Ok(())
}

fn what_is_made_in_a_gap_is_new(bench: &Bench) -> Verdict {
    let small = bench.smallest()?;
    let mut computes = Vec::new();
    for _ in 0..small.profile.instances {
        computes.push(bench.make_slice(&small)?);
    }
    let all = bench.slices()?.len();
    let (instance, compute) = computes.remove(computes.len() / 2);
    let place = place_of(bench, instance)?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    bench.nvml.destroy_gpu_instance(instance).value()?;
    equal("MIG devices with one gone", bench.slices()?.len(), all - 1)?;
    cut_statement("a_gap_among_the_mig_devices_is_not_found", bench)?;
    // The only place that is left.
    let (instance, _) = bench.make_slice(&small)?;
    equal("the placement of the last", place_of(bench, instance)?, place)?;
    equal("MIG devices with one back", bench.slices()?.len(), all)?;
    cut_statement("mig_devices_are_found_by_their_uuids", bench)
}

fn instances_outlive_the_session_that_made_them(bench: &Bench) -> Verdict {
    bench.make_slice(&bench.half()?)?;
    let uuids = bench.slice_uuids()?;
    bench.nvml.shutdown().value()?;
    bench.nvml.init().value()?;
    let device = bench.nvml.by_index(bench.index).value()?;
    let first = bench.nvml.mig_device(device, 0).value()?;
    equal("the MIG devices of the next session", vec![bench.nvml.uuid(first, TEXT).value()?], uuids)
}

fn another_process_sees_what_was_made(bench: &Bench) -> Verdict {
    equal("the MIG devices another process sees", uuids_elsewhere()?, Vec::new())?;
    let (instance, compute) = bench.make_slice(&bench.smallest()?)?;
    equal("the MIG devices another process sees", uuids_elsewhere()?, bench.slice_uuids()?)?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    bench.nvml.destroy_gpu_instance(instance).value()?;
    equal("the MIG devices another process sees", uuids_elsewhere()?, Vec::new())
}

fn making_and_destroying_are_events(bench: &Bench) -> Verdict {
    let set = bench.nvml.create_event_set().value()?;
    bench.nvml.register_events(bench.device, MIG_CONFIG_CHANGE, set).value()?;
    bench.nvml.wait(set, 0).returns(Code::TIMEOUT)?;
    // How many events one change makes is not known.
    let changed = || {
        let event = bench.nvml.wait(set, 5000).value()?;
        equal("eventType", event.kind, MIG_CONFIG_CHANGE)?;
        equal("the device of the event", event.device, bench.device)?;
        while bench.nvml.wait(set, 100).value_or(Code::TIMEOUT)?.is_some() {}
        Ok::<(), Stop>(())
    };
    let (instance, compute) = bench.make_slice(&bench.smallest()?)?;
    changed()?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    changed()?;
    bench.nvml.destroy_gpu_instance(instance).value()?;
    changed()?;
    bench.nvml.free_event_set(set).value()
}

fn a_process_on_a_slice_is_in_the_way(bench: &Bench) -> Verdict {
    let outside = bench.outside()?;
    let (instance, compute) = bench.make_slice(&bench.half()?)?;
    let (other, free) = bench.make_slice(&bench.half()?)?;
    let id = bench.nvml.gpu_instance_info(instance).value()?.id;
    let within = bench.nvml.compute_instance_info(compute).value()?.id;
    done((outside.start_process)(4242, bench.index, Some((id, within))))?;
    bench.nvml.destroy_compute_instance(compute).returns(Code::IN_USE)?;
    bench.nvml.destroy_gpu_instance(instance).returns(Code::IN_USE)?;
    let listed = bench.nvml.processes(bench.device).value()?;
    let listed: Vec<_> = listed.iter().map(|known| (known.pid, known.gpu_instance, known.compute_instance)).collect();
    equal("processes with their instances", listed, vec![(4242, id, within)])?;
    // Others are not concerned.
    bench.nvml.destroy_compute_instance(free).value()?;
    bench.nvml.destroy_gpu_instance(other).value()?;
    done((outside.end_process)(4242))?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    bench.nvml.destroy_gpu_instance(instance).value()
}

fn cut_statement(name: &str, bench: &Bench) -> Verdict {
    match cut::STATEMENTS.iter().find(|statement| statement.name == name).map(|statement| statement.attempt) {
        Some(Try::Gpu(run)) => run(bench),
        _ => broken(format!("there is no statement cut::{name}")),
    }
}

/// Everything that is stated of them, of one large and two small ones, and of a whole GPU.
fn what_was_made_is_as_in_any_gpu_that_is_cut(bench: &Bench) -> Verdict {
    let (small, half, whole) = (bench.smallest()?, bench.half()?, bench.whole()?);
    for mix in [vec![&half, &small, &small], vec![&whole]] {
        for offer in mix {
            bench.make_slice(offer)?;
        }
        for statement in cut::STATEMENTS {
            match cut_statement(statement.name, bench) {
                Ok(()) | Err(Stop::Skipped(_)) => {}
                Err(Stop::Broken(why)) => return broken(format!("cut::{}: {why}", statement.name)),
            }
        }
        bench.clear()?;
    }
    Ok(())
}
