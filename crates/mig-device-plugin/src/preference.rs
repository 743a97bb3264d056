//! Which of the free devices to take.
//!
//! ```text
//!   available ids --> slices (several ids of one are its shares) --> the best class of them --> GPUs --> ids
//!                        ^                                            (not yet in the container,
//!                     Ground: who lies on the same GPUs                as much shared as the policy says)
//! ```

mod gpus;
mod room;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::container::strategy::{PreferredAllocation, SharedAllocation};
use crate::ground::Neighbour;
use crate::roster::Roster;
use gpus::{Gpu, Pool};

/// How the choice is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    pub(crate) preferred: PreferredAllocation,
    pub(crate) shared: SharedAllocation,
}

/// A slice, or a GPU, and its ids: one, or as many as it has shares.
#[derive(Debug)]
struct Slice {
    /// Which of the GPUs.
    gpu: usize,
    /// The memory slices that it lies in, where they are known.
    mask: u64,
    /// Where its ids are in the list, up to which they were looked at.
    next: usize,
    end: usize,
    /// How many of its shares can be had, the container has, and others have.
    free: usize,
    taken: usize,
    elsewhere: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Somebody has it, or nobody may.
    Unavailable,
    Free,
    Must,
}

/// Of `available`, as many as `size` says, `must` among them. Never fails: what it does not know comes last.
/// `neighbours` tells of the slices on a GPU that other resources have.
pub(crate) fn choose(
    roster: &Roster,
    manner: Manner,
    available: &[String],
    must: &[String],
    size: i32,
    neighbours: impl Fn(&str) -> Vec<Neighbour>,
) -> Vec<String> {
    let size = usize::try_from(size).unwrap_or_default();
    let mut marks = vec![Mark::Unavailable; roster.entries().len()];
    let mut strangers = HashSet::new();
    let mut chosen = Vec::new();
    for id in must {
        match roster.find(id) {
            Some((place, _)) if marks.get(place) == Some(&Mark::Must) => {}
            Some((place, _)) => {
                marks.get_mut(place).into_iter().for_each(|mark| *mark = Mark::Must);
                chosen.push(id.clone());
            }
            None if strangers.insert(id) => chosen.push(id.clone()),
            None => {}
        }
    }
    let mut unknown = Vec::new();
    for id in available {
        match roster.find(id) {
            Some((place, entry)) if entry.is_healthy() => {
                let marks = marks.get_mut(place).into_iter();
                marks.filter(|mark| **mark == Mark::Unavailable).for_each(|mark| *mark = Mark::Free);
            }
            Some((place, _)) if marks.get(place) == Some(&Mark::Must) => {}
            _ if strangers.insert(id) => unknown.push(id),
            _ => {}
        }
    }

    let (mut slices, mut gpus) = survey(roster, &marks, neighbours);
    let mut missing = size.saturating_sub(chosen.len());
    while missing > 0 {
        let best = best_class(&slices, manner.shared);
        let taken =
            if best.len() <= missing { best } else { some_of(&best, &slices, &gpus, manner.preferred, missing) };
        if taken.is_empty() {
            break;
        }
        missing -= taken.len();
        for number in taken {
            let Some(slice) = slices.get_mut(number) else { continue };
            if let Some(gpu) = gpus.get_mut(slice.gpu) {
                gpu.take(slice.mask);
            }
            if let Some(place) = (slice.next..slice.end).find(|place| marks.get(*place) == Some(&Mark::Free)) {
                slice.next = place + 1;
                slice.free -= 1;
                slice.taken += 1;
                chosen.extend(roster.entries().get(place).map(|entry| entry.device().id.clone()));
            }
        }
    }
    unknown.sort();
    chosen.extend(unknown.into_iter().take(missing).cloned());
    chosen
}

/// What the list has, by slice and by GPU, in its order.
fn survey(roster: &Roster, marks: &[Mark], neighbours: impl Fn(&str) -> Vec<Neighbour>) -> (Vec<Slice>, Vec<Gpu>) {
    let mut slices: Vec<Slice> = Vec::new();
    let mut gpus: Vec<Gpu> = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut last: Option<(&str, &str)> = None;
    for ((place, entry), mark) in roster.entries().iter().enumerate().zip(marks) {
        let device = entry.device();
        if entry.gone && *mark == Mark::Unavailable {
            continue;
        }
        let (gpu, uuid) = (device.gpu.as_str(), device.uuid.as_str());
        if last != Some((gpu, uuid)) {
            let number = match (last, slices.last()) {
                (Some((same, _)), Some(slice)) if same == gpu => slice.gpu,
                _ => *numbers.entry(gpu).or_insert(gpus.len()),
            };
            if number == gpus.len() {
                gpus.push(Gpu::new(device.numa_node, &neighbours(gpu)));
            }
            let mask = device.placement.map_or(0, room::mask);
            gpus.get_mut(number).into_iter().for_each(|gpu| gpu.room.add(device.placement));
            slices.push(Slice { gpu: number, mask, next: place, end: place, free: 0, taken: 0, elsewhere: 0 });
            last = Some((gpu, uuid));
        }
        let Some(slice) = slices.last_mut() else { continue };
        slice.end = place + 1;
        let Some(gpu) = gpus.get_mut(slice.gpu) else { continue };
        match mark {
            Mark::Free => slice.free += 1,
            Mark::Must => {
                slice.taken += 1;
                gpu.take(slice.mask);
            }
            Mark::Unavailable => {
                slice.elsewhere += 1;
                gpu.busy |= slice.mask;
            }
        }
    }
    (slices, gpus)
}

/// The slices that are to be taken of before any others: two shares of one slice are no more than one, and how much others
/// share it is the policy's to say.
fn best_class(slices: &[Slice], shared: SharedAllocation) -> Vec<usize> {
    let class = |slice: &Slice| match shared {
        SharedAllocation::Distributed => (slice.taken, slice.elsewhere),
        SharedAllocation::Packed => (slice.taken, usize::MAX - slice.elsewhere),
    };
    let free = || slices.iter().enumerate().filter(|(_, slice)| slice.free > 0);
    let best = free().map(|(_, slice)| class(slice)).min();
    free().filter(|(_, slice)| Some(class(slice)) == best).map(|(number, _)| number).collect()
}

/// So many of these slices.
fn some_of(
    members: &[usize],
    slices: &[Slice],
    gpus: &[Gpu],
    preferred: PreferredAllocation,
    size: usize,
) -> Vec<usize> {
    let mut pools = Pool::of(gpus);
    for number in members {
        let slice = slices.get(*number);
        let pool = slice.and_then(|slice| Some((slice.mask, pools.get_mut(slice.gpu)?)));
        if let Some((mask, pool)) = pool {
            pool.slices.push((*number, mask));
        }
    }
    pools.retain(|pool| !pool.slices.is_empty());
    let counts = match preferred {
        PreferredAllocation::Packed => gpus::packed(&pools, size),
        PreferredAllocation::Spread => gpus::spread(&pools, size),
    };
    let taken = counts.into_iter().filter_map(|(place, count)| Some(pools.get(place)?.best(count)));
    taken.flat_map(|best| best.slices).collect()
}
