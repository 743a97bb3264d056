//! The life of compute instances, in GPU instances that are made for them.

use super::{Statement, statements};
use crate::{
    bench::Bench,
    call::{Verdict, broken, equal, holds, skip},
    code::Code,
    gpu::{ComputeOffer, TEXT},
    nvml::{ComputeInstance, GpuInstance, Placement},
};

pub(super) const STATEMENTS: &[Statement] = statements![Life:
    a_compute_instance_is_of_the_profile_that_was_asked_for,
    a_compute_instance_lies_where_it_was_asked_to,
    a_place_that_a_compute_profile_does_not_have_is_an_invalid_argument,
    a_place_that_is_taken_leaves_insufficient_resources,
    a_full_gpu_instance_leaves_insufficient_resources,
    as_many_more_can_be_made_as_remain,
    what_remains_drops_and_comes_back,
    an_unknown_compute_profile_is_an_invalid_argument,
    each_compute_instance_is_one_mig_device,
    compute_instances_share_memory_and_engines,
    a_destroyed_compute_instance_is_an_invalid_argument,
    the_uuid_of_a_destroyed_slice_is_not_found,
    destroying_one_leaves_the_others_as_they_are,
];

/// A GPU instance that takes the whole GPU, for it has the most compute profiles, and those.
fn room(bench: &Bench) -> Verdict<(GpuInstance, Vec<ComputeOffer>)> {
    let instance = bench.make(&bench.whole()?)?;
    let offers = bench.compute_offers(instance)?;
    if offers.is_empty() { broken("a GPU instance offers no compute profile") } else { Ok((instance, offers)) }
}

fn smallest(offers: &[ComputeOffer]) -> Verdict<&ComputeOffer> {
    match offers.iter().min_by_key(|offer| offer.profile.slices) {
        Some(offer) if offer.profile.instances > 1 => Ok(offer),
        _ => skip("GPU instances of this GPU cannot be shared"),
    }
}

fn empty(bench: &Bench, instance: GpuInstance) -> Verdict {
    let all = bench.computes(instance)?;
    all.into_iter().try_for_each(|(_, compute)| bench.nvml.destroy_compute_instance(compute).value())
}

fn place_of(bench: &Bench, compute: ComputeInstance) -> Verdict<Placement> {
    Ok(bench.nvml.compute_instance_info(compute).value()?.placement)
}

fn uuid_of(bench: &Bench, instance: GpuInstance, compute: ComputeInstance) -> Verdict<String> {
    let within = bench.nvml.gpu_instance_info(instance).value()?.id;
    let id = bench.nvml.compute_instance_info(compute).value()?.id;
    bench.nvml.uuid(bench.slice_of(within, id)?, TEXT).value()
}

fn a_compute_instance_is_of_the_profile_that_was_asked_for(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    for offer in offers {
        let compute = bench.make_within(instance, &offer)?;
        let info = bench.nvml.compute_instance_info(compute).value()?;
        equal(format!("the profile of {}", offer.name), info.profile, offer.profile.id)?;
        equal(format!("the slices of {}", offer.name), info.placement.size, offer.profile.slices)?;
        equal(
            format!("compute instances of {}", offer.name),
            bench.nvml.compute_instances(instance, offer.profile.id).value()?.len(),
            1,
        )?;
        let found = bench.nvml.compute_instance(instance, info.id).value()?;
        bench.nvml.compute_instance_info(found).gives(info)?;
        bench.nvml.destroy_compute_instance(compute).value()?;
        bench.nvml.compute_instance(instance, info.id).returns(Code::NOT_FOUND)?;
    }
    Ok(())
}

fn a_compute_instance_lies_where_it_was_asked_to(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    for offer in offers {
        for place in bench.nvml.compute_placements(instance, offer.profile.id).value()? {
            let compute = bench.nvml.create_compute_instance_at(instance, offer.profile.id, place).value()?;
            equal(format!("the placement of {}", offer.name), place_of(bench, compute)?, place)?;
            bench.nvml.destroy_compute_instance(compute).value()?;
        }
    }
    Ok(())
}

fn a_place_that_a_compute_profile_does_not_have_is_an_invalid_argument(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    for offer in offers {
        let places = bench.nvml.compute_placements(instance, offer.profile.id).value()?;
        for start in (0..9).chain([u32::MAX]).filter(|start| !places.iter().any(|place| place.start == *start)) {
            let place = Placement { start, size: offer.profile.slices };
            let refused = bench.nvml.create_compute_instance_at(instance, offer.profile.id, place);
            refused.returns(Code::INVALID_ARGUMENT)?;
        }
    }
    equal("compute instances afterwards", bench.computes(instance)?.len(), 0)
}

fn a_place_that_is_taken_leaves_insufficient_resources(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    let whole = bench.whole_compute(instance)?;
    for offer in offers {
        let compute = bench.make_within(instance, &offer)?;
        let place = place_of(bench, compute)?;
        let again = bench.nvml.create_compute_instance_at(instance, offer.profile.id, place);
        again.returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.create_compute_instance(instance, whole.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.destroy_compute_instance(compute).value()?;
    }
    Ok(())
}

fn a_full_gpu_instance_leaves_insufficient_resources(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    for offer in offers {
        for _ in 0..offer.profile.instances {
            bench.make_within(instance, &offer)?;
        }
        bench.nvml.create_compute_instance(instance, offer.profile.id).returns(Code::INSUFFICIENT_RESOURCES)?;
        bench.nvml.compute_remaining(instance, offer.profile.id).gives(0)?;
        empty(bench, instance)?;
    }
    Ok(())
}

fn as_many_more_can_be_made_as_remain(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    for first in &offers {
        for second in &offers {
            bench.make_within(instance, first)?;
            for _ in 0..bench.nvml.compute_remaining(instance, second.profile.id).value()? {
                bench.make_within(instance, second)?;
            }
            let more = bench.nvml.create_compute_instance(instance, second.profile.id);
            more.on(format_args!("a GPU instance that has {} and all {} that remained", first.name, second.name))
                .returns(Code::INSUFFICIENT_RESOURCES)?;
            empty(bench, instance)?;
        }
    }
    Ok(())
}

fn what_remains_drops_and_comes_back(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    let remaining = || {
        let left = |offer: &ComputeOffer| bench.nvml.compute_remaining(instance, offer.profile.id).value();
        offers.iter().map(left).collect::<Verdict<Vec<u32>>>()
    };
    let before = remaining()?;
    equal(
        "what remains in an empty GPU instance",
        before.clone(),
        offers.iter().map(|offer| offer.profile.instances).collect(),
    )?;
    for (position, offer) in offers.iter().enumerate() {
        let compute = bench.make_within(instance, offer)?;
        for (other, (was, is)) in before.iter().zip(remaining()?).enumerate() {
            let fine = if other == position { is < *was } else { is <= *was };
            holds(format!("remaining compute profile {other} beside a {}: {is} of {was}", offer.name), fine)?;
        }
        bench.nvml.destroy_compute_instance(compute).value()?;
        equal(format!("what remains after a {}", offer.name), remaining()?, before.clone())?;
    }
    Ok(())
}

fn an_unknown_compute_profile_is_an_invalid_argument(bench: &Bench) -> Verdict {
    let (instance, _) = room(bench)?;
    for id in [999, u32::MAX] {
        // The header has both for an id that is not offered.
        let refused = [Code::INVALID_ARGUMENT, Code::NOT_SUPPORTED];
        bench.nvml.create_compute_instance(instance, id).returns_one_of(&refused)?;
        bench.nvml.compute_remaining(instance, id).returns_one_of(&refused)?;
        bench.nvml.compute_placements(instance, id).returns_one_of(&refused)?;
    }
    Ok(())
}

fn each_compute_instance_is_one_mig_device(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    let small = smallest(&offers)?;
    for made in 1..=usize::try_from(small.profile.instances).unwrap_or_default() {
        let compute = bench.make_within(instance, small)?;
        let uuids = bench.slice_uuids()?;
        equal("MIG devices", uuids.len(), made)?;
        let own = uuid_of(bench, instance, compute)?;
        equal(format!("MIG devices with the UUID {own}"), uuids.iter().filter(|uuid| **uuid == own).count(), 1)?;
    }
    Ok(())
}

fn compute_instances_share_memory_and_engines(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    let small = smallest(&offers)?;
    let whole = bench.whole()?;
    bench.make_within(instance, small)?;
    bench.make_within(instance, small)?;
    for (index, device) in bench.slices()? {
        let has = bench.nvml.attributes(device).value()?;
        equal(format!("memorySizeMB of MIG device {index}"), has.memory_mb, whole.profile.memory_mb)?;
        equal(format!("sharedCopyEngineCount of MIG device {index}"), has.copy, whole.profile.copy)?;
        equal(format!("sharedDecoderCount of MIG device {index}"), has.decoder, whole.profile.decoder)?;
        equal(
            format!("multiprocessorCount of MIG device {index}"),
            has.multiprocessors,
            small.profile.multiprocessors,
        )?;
        equal(format!("computeInstanceSliceCount of MIG device {index}"), has.compute_slices, small.profile.slices)?;
    }
    Ok(())
}

fn a_destroyed_compute_instance_is_an_invalid_argument(bench: &Bench) -> Verdict {
    let (instance, _) = room(bench)?;
    let whole = bench.whole_compute(instance)?;
    let compute = bench.make_within(instance, &whole)?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    bench.nvml.compute_instance_info(compute).returns(Code::INVALID_ARGUMENT)?;
    bench.nvml.destroy_compute_instance(compute).returns(Code::INVALID_ARGUMENT)
}

fn the_uuid_of_a_destroyed_slice_is_not_found(bench: &Bench) -> Verdict {
    let (instance, _) = room(bench)?;
    let whole = bench.whole_compute(instance)?;
    let compute = bench.make_within(instance, &whole)?;
    let uuids = bench.slice_uuids()?;
    equal("MIG devices", uuids.len(), 1)?;
    uuids.iter().try_for_each(|uuid| bench.nvml.by_uuid(uuid).value().map(|_| ()))?;
    bench.nvml.destroy_compute_instance(compute).value()?;
    uuids.iter().try_for_each(|uuid| bench.nvml.by_uuid(uuid).returns(Code::NOT_FOUND))
}

fn destroying_one_leaves_the_others_as_they_are(bench: &Bench) -> Verdict {
    let (instance, offers) = room(bench)?;
    let small = smallest(&offers)?;
    let (first, second) = (bench.make_within(instance, small)?, bench.make_within(instance, small)?);
    let before = bench.nvml.compute_instance_info(second).value()?;
    let uuid = uuid_of(bench, instance, second)?;
    bench.nvml.destroy_compute_instance(first).value()?;
    equal("the UUIDs that are left", bench.slice_uuids()?, vec![uuid])?;
    let found = bench.nvml.compute_instance(instance, before.id).value()?;
    equal("the placement of the other", place_of(bench, found)?, before.placement)
}
