//! What fits where on a GPU, and how instances are numbered.

use crate::{
    model::{ComputeProfile, Mig, Profile},
    world::{Gpu, GpuInstance},
};

/// The highest id of a GPU instance for which a driver has a capability (`mig-minors`).
const MOST_ID: u32 = 14;
/// `NVML_DEVICE_ARCH_AMPERE`.
const AMPERE: u32 = 7;

fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    a.0 < b.0.saturating_add(b.1) && b.0 < a.0.saturating_add(a.1)
}

/// The GPU instance that lies where one of `profile` at `start` would.
pub(crate) fn in_the_way<'a>(gpu: &'a Gpu, mig: &Mig, profile: &Profile, start: u32) -> Option<&'a GpuInstance> {
    gpu.instances.iter().find(|other| {
        mig.profiles
            .get(other.profile)
            .is_some_and(|held| overlap((start, profile.placements.size), (other.start, held.placements.size)))
    })
}

/// Why one more of `profile` may not exist beside what there is, wherever it were placed.
pub(crate) fn refused(gpu: &Gpu, mig: &Mig, profile: &Profile) -> Option<String> {
    let held: Vec<&Profile> = gpu.instances.iter().filter_map(|gi| mig.profiles.get(gi.profile)).collect();
    let name = &profile.name;
    if count(held.iter().filter(|other| other.id == profile.id)) >= profile.max_instances {
        return Some(format!("too many instances: the GPU takes at most {} of {name}", profile.max_instances));
    }
    // Only one instance can have the GPU's single set of media engines.
    let media = |profile: &Profile| profile.name.ends_with("+me");
    if let Some(other) = held.iter().find(|other| media(other) && media(profile)) {
        return Some(format!("only one +me instance per GPU, and there is a {}", other.name));
    }
    let all = |profile: &Profile| profile.name.ends_with("+me.all");
    let none = |profile: &Profile| profile.name.ends_with("-me");
    if let Some(other) = held.iter().find(|other| (all(other) && !none(profile)) || (all(profile) && !none(other))) {
        return Some(format!("a +me.all instance leaves room for -me instances only: {name} beside {}", other.name));
    }
    let used: u32 = held.iter().map(|other| other.slices).sum();
    if used.saturating_add(profile.slices) > mig.compute_slices {
        return Some(format!("too many instances: {used} of {} compute slices are taken", mig.compute_slices));
    }
    None
}

/// How many more of `profile` the GPU takes.
pub(crate) fn remaining(gpu: &Gpu, mig: &Mig, profile: &Profile) -> u32 {
    if refused(gpu, mig, profile).is_some() {
        return 0;
    }
    let held = || gpu.instances.iter().filter_map(|gi| mig.profiles.get(gi.profile));
    let same = count(held().filter(|other| other.id == profile.id));
    let slices: u32 = held().map(|other| other.slices).sum();
    let by_compute = mig.compute_slices.saturating_sub(slices) / profile.slices.max(1);
    let free = count(profile.placements.starts.iter().filter(|start| in_the_way(gpu, mig, profile, **start).is_none()));
    free.min(by_compute).min(profile.max_instances.saturating_sub(same))
}

/// Where a driver that is left the choice puts one more of `profile`: where it blocks the fewest of the placements that
/// are open now, the lowest of these. Real drivers have an order of their own, which nobody has written down.
pub(crate) fn start(gpu: &Gpu, mig: &Mig, profile: &Profile) -> Option<u32> {
    let free = |profile: &Profile, start: u32| in_the_way(gpu, mig, profile, start).is_none();
    let blocked = |start: u32| {
        let open = mig.profiles.iter().flat_map(|other| other.placements.starts.iter().map(move |at| (other, *at)));
        let place = (start, profile.placements.size);
        count(open.filter(|(other, at)| free(other, *at) && overlap(place, (*at, other.placements.size))))
    };
    profile.placements.starts.iter().copied().filter(|start| free(profile, *start)).min_by_key(|start| blocked(*start))
}

/// The same for a compute instance.
pub(crate) fn compute_start(instance: &GpuInstance, within: &Profile, profile: &ComputeProfile) -> Option<u32> {
    let free = |profile: &ComputeProfile, start: u32| compute_free(instance, within, profile, start);
    let blocked = |start: u32| {
        let all = within.compute_profiles.iter();
        let open = all.flat_map(|other| other.placements.starts.iter().map(move |at| (other, *at)));
        let place = (start, profile.placements.size);
        count(open.filter(|(other, at)| free(other, *at) && overlap(place, (*at, other.placements.size))))
    };
    profile.placements.starts.iter().copied().filter(|start| free(profile, *start)).min_by_key(|start| blocked(*start))
}

/// How many more of a compute profile the GPU instance takes.
pub(crate) fn remaining_compute(instance: &GpuInstance, within: &Profile, profile: &ComputeProfile) -> u32 {
    let free = profile.placements.starts.iter().filter(|start| compute_free(instance, within, profile, **start));
    let is = |position: usize| within.compute_profiles.get(position).is_some_and(|known| known.id == profile.id);
    let same = count(instance.compute.iter().filter(|compute| is(compute.profile)));
    count(free).min(profile.max_instances.saturating_sub(same))
}

/// Whether a compute instance of `profile` at `start` overlaps none.
pub(crate) fn compute_free(instance: &GpuInstance, within: &Profile, profile: &ComputeProfile, start: u32) -> bool {
    !instance.compute.iter().any(|other| {
        within
            .compute_profiles
            .get(other.profile)
            .is_some_and(|held| overlap((start, profile.placements.size), (other.start, held.placements.size)))
    })
}

/// The id that a driver gives: whole GPU 0, halves 1 and 2, quarters 3 to 6, eighths 7 to 14. On Ampere the upper half
/// comes first (A100: id 1 at 4, 2 at 0; seven 1g from 0 have 11, 12, 13, 14, 7, 8, 9). Elsewhere the lower one does:
/// seen for halves on GH200, assumed for the rest.
pub(crate) fn instance_id(gpu: &Gpu, mig: &Mig, architecture: u32, profile: &Profile, start: u32) -> u32 {
    let parts = mig.memory_slices.div_ceil(profile.placements.size.max(1)).next_power_of_two();
    let position = start / profile.placements.size.max(1);
    let turned = if architecture == AMPERE { (position + parts / 2) % parts } else { position };
    let first = parts - 1;
    let taken = |id: &u32| gpu.instances.iter().any(|other| other.id == *id);
    // An id stated in the scene may have taken this one's. Drivers know ids up to 14; a GPU with more than eight memory slices,
    // which nobody has seen cut that finely, takes what is left of them before it goes beyond.
    let usual = std::iter::once(first + turned).chain(first..first + parts).filter(|id| *id <= MOST_ID);
    usual.chain((0..=MOST_ID).rev()).chain(MOST_ID + 1..).find(|id| !taken(id)).unwrap_or(first)
}

fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
