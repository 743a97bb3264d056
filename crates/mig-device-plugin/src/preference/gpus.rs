//! How many slices to take of which GPU, and which of a GPU's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::room::Room;
use crate::ground::Neighbour;

/// Of more slices on a GPU not every combination is tried; no GPU has so many.
const MOST_TRIED: usize = 12;

/// A GPU that the list has something of.
#[derive(Debug)]
pub(super) struct Gpu {
    numa_node: Option<u32>,
    pub(super) room: Room,
    /// The memory slices that are in use.
    pub(super) busy: u64,
    /// How many of its slices the container has.
    taken: usize,
}

/// What can be had of a GPU.
pub(super) struct Pool<'g> {
    gpu: &'g Gpu,
    /// Whether the container has something of its NUMA node.
    is_near: bool,
    /// Numbers of slices and the memory slices in which they lie, in the list's order.
    pub(super) slices: Vec<(usize, u64)>,
}

/// Some slices of a GPU.
pub(super) struct Best {
    pub(super) slices: Vec<usize>,
    /// How much less can be cut from the GPU then.
    loss: u64,
}

impl Gpu {
    pub(super) fn new(numa_node: Option<u32>, neighbours: &[Neighbour]) -> Self {
        let mut gpu = Self { numa_node, room: Room::new(), busy: 0, taken: 0 };
        for neighbour in neighbours {
            gpu.room.add(Some(neighbour.placement));
            gpu.busy |= if neighbour.is_in_use { super::room::mask(neighbour.placement) } else { 0 };
        }
        gpu
    }

    /// The container gets this slice.
    pub(super) fn take(&mut self, mask: u64) {
        self.busy |= mask;
        self.taken += 1;
    }
}

impl<'g> Pool<'g> {
    /// Of each GPU one, with nothing in it yet.
    pub(super) fn of(gpus: &'g [Gpu]) -> Vec<Self> {
        let near: BTreeSet<Option<u32>> = gpus.iter().filter(|gpu| gpu.taken > 0).map(|gpu| gpu.numa_node).collect();
        let pool = |gpu: &'g Gpu| Self { gpu, is_near: near.contains(&gpu.numa_node), slices: Vec::new() };
        gpus.iter().map(pool).collect()
    }

    /// Whether the same is lost by the same choice.
    fn is_like(&self, other: &Self) -> bool {
        let masks = || self.slices.iter().map(|(_, mask)| mask);
        (self.gpu.busy, self.gpu.room) == (other.gpu.busy, other.gpu.room)
            && masks().eq(other.slices.iter().map(|(_, mask)| mask))
    }

    fn first(&self) -> usize {
        self.slices.first().map_or(usize::MAX, |(number, _)| *number)
    }

    /// The slices without which most can still be cut from the GPU; of equally good ones those that lie last, since what is
    /// short of places (4g, 2g) lies at the front.
    pub(super) fn best(&self, count: usize) -> Best {
        let before = self.gpu.room.score(self.gpu.busy);
        let all: u64 = self.slices.iter().fold(0, |all, (_, mask)| all | mask);
        let loss = |mask: u64| before.less(self.gpu.room.score(self.gpu.busy | mask));
        if count >= self.slices.len() || all == 0 {
            let slices = self.slices.iter().take(count).map(|(number, _)| *number).collect();
            return Best { slices, loss: loss(if count >= self.slices.len() { all } else { 0 }) };
        }
        if self.slices.len() > MOST_TRIED {
            return self.one_by_one(count, loss);
        }
        let mask_of = |combination: u32| {
            let chosen = self.slices.iter().enumerate().filter(|(bit, _)| combination >> bit & 1 == 1);
            chosen.fold(0, |all, (_, (_, mask))| all | mask)
        };
        let best = combinations(self.slices.len(), count).min_by_key(|combination| {
            let mask = mask_of(*combination);
            (loss(mask), Reverse(mask))
        });
        let best = best.unwrap_or_default();
        let chosen = self.slices.iter().enumerate().filter(|(bit, _)| best >> bit & 1 == 1);
        Best { slices: chosen.map(|(_, (number, _))| *number).collect(), loss: loss(mask_of(best)) }
    }

    fn one_by_one(&self, count: usize, loss: impl Fn(u64) -> u64) -> Best {
        let mut left = self.slices.clone();
        let (mut slices, mut mask) = (Vec::new(), 0);
        while slices.len() < count {
            let best = left.iter().enumerate().min_by_key(|(_, (_, own))| (loss(mask | own), Reverse(mask | own)));
            let Some(place) = best.map(|(place, _)| place) else { break };
            let (number, own) = left.remove(place);
            slices.push(number);
            mask |= own;
        }
        slices.sort_unstable();
        Best { slices, loss: loss(mask) }
    }
}

/// Every choice of so many of so many things, fewer than 32, as bits; by the next larger number with as many ones (Gosper).
fn combinations(all: usize, count: usize) -> impl Iterator<Item = u32> {
    let first = (1_u32 << count) - 1;
    let next = |bits: &u32| {
        let lowest = bits & bits.wrapping_neg();
        let carried = bits + lowest;
        Some(((bits ^ carried) >> 2).checked_div(lowest)? | carried)
    };
    std::iter::successors(Some(first), next).take_while(move |bits| *bits < 1 << all)
}

/// What was found out about pools, most of which are like another.
#[derive(Default)]
struct Losses<'p, 'g>(Vec<(&'p Pool<'g>, usize, u64)>);

impl<'p, 'g> Losses<'p, 'g> {
    fn of(&mut self, pool: &'p Pool<'g>, count: usize) -> u64 {
        let is_alike = |(known, of, _): &&(&Pool<'_>, usize, u64)| *of == count && known.is_like(pool);
        if let Some((_, _, loss)) = self.0.iter().find(is_alike) {
            return *loss;
        }
        let loss = pool.best(count).loss;
        self.0.push((pool, count, loss));
        loss
    }
}

/// Of which pools to take how many.
type Counts = Vec<(usize, usize)>;

/// Pools by the NUMA nodes of their GPUs. Those of which it is not known count as one.
fn by_numa_node(pools: &[Pool<'_>], members: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut nodes: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (place, pool) in members.filter_map(|place| Some((place, pools.get(place)?))) {
        nodes.entry(pool.gpu.numa_node).or_default().push(place);
    }
    nodes.into_values().collect()
}

/// From one NUMA node if one has enough, the container's if it has one already; from as few GPUs as possible; from those of
/// which the least is lost for larger profiles; and from those that have the least to spare, so that what stays free stays
/// together.
pub(super) fn packed(pools: &[Pool<'_>], size: usize) -> Counts {
    let mut nodes = by_numa_node(pools, 0..pools.len());
    let mut counts = Counts::new();
    let mut missing = size;
    let mut losses = Losses::default();
    while missing > 0 {
        let ways = nodes.iter().enumerate().map(|(place, node)| (place, fill(pools, node, missing, &mut losses)));
        let Some((place, way)) = ways.min_by_key(|(_, way)| way.rank(missing)) else { break };
        missing -= way.size;
        counts.extend(way.counts);
        nodes.remove(place);
    }
    counts
}

/// What one NUMA node gives.
#[derive(Default)]
struct Way {
    counts: Counts,
    size: usize,
    /// Whether the container has something of this NUMA node.
    is_near: bool,
    /// How many GPUs it would be that the container has nothing of yet.
    more_gpus: usize,
    loss: u64,
    spare: usize,
    first: usize,
}

impl Way {
    fn rank(&self, missing: usize) -> impl Ord + use<> {
        let enough = self.size >= missing;
        let most = Reverse(if enough { 0 } else { self.size });
        (!enough, !self.is_near, most, self.more_gpus, self.loss, self.spare, self.first)
    }
}

fn fill<'p, 'g>(pools: &'p [Pool<'g>], node: &[usize], size: usize, losses: &mut Losses<'p, 'g>) -> Way {
    let mut way = Way { first: usize::MAX, ..Way::default() };
    let mut left: Vec<(usize, &'p Pool<'g>)> =
        node.iter().filter_map(|place| Some((*place, pools.get(*place)?))).collect();
    way.is_near = left.iter().any(|(_, pool)| pool.is_near);
    while way.size < size {
        let need = size - way.size;
        let mut rank = |pool: &'p Pool<'g>| {
            let enough = pool.slices.len() >= need;
            // One that the container uses anyway, else the best that has enough, else the one with most.
            let loss = losses.of(pool, need);
            let spare = if enough { pool.slices.len() } else { 0 };
            (pool.gpu.taken == 0, !enough, Reverse(pool.slices.len().min(need)), loss, spare, pool.first())
        };
        let best = left.iter().map(|(_, pool)| rank(pool)).enumerate().min_by_key(|(_, rank)| *rank);
        let Some((best, (is_new, _, Reverse(count), loss, spare, first))) = best else { break };
        let (place, _) = left.swap_remove(best);
        way.counts.push((place, count));
        way.size += count;
        way.more_gpus += usize::from(is_new);
        way.loss += loss;
        way.spare += spare;
        way.first = way.first.min(first);
    }
    way
}

/// From each GPU one, then from each another, beginning with those that the container has least of; where not all have
/// their turn, from those of as few NUMA nodes as possible, and of those with most to spare.
pub(super) fn spread(pools: &[Pool<'_>], size: usize) -> Counts {
    let mut counts: Counts = (0..pools.len()).map(|place| (place, 0)).collect();
    let mut missing = size;
    while missing > 0 {
        let has = |(pool, (_, count)): (&Pool<'_>, &(usize, usize))| pool.gpu.taken + count;
        let left = || pools.iter().zip(&counts).filter(|(pool, (_, count))| pool.slices.len() > *count);
        let Some(least) = left().map(has).min() else { break };
        let turn: Vec<usize> = left().filter(|pair| has(*pair) == least).map(|(_, (place, _))| *place).collect();
        let turn = if turn.len() <= missing { turn } else { some_turn(pools, &counts, &turn, missing) };
        missing -= turn.len();
        for place in turn {
            counts.get_mut(place).into_iter().for_each(|(_, count)| *count += 1);
        }
    }
    counts
}

/// So many of these pools.
fn some_turn(pools: &[Pool<'_>], counts: &[(usize, usize)], turn: &[usize], size: usize) -> Vec<usize> {
    let spare = |place: &usize| {
        let count = counts.get(*place).map_or(0, |(_, count)| *count);
        pools.get(*place).map_or(0, |pool| pool.slices.len() - count)
    };
    let rank = |place: &usize| {
        let one_more = counts.get(*place).map_or(1, |(_, count)| count + 1);
        let pool = pools.get(*place);
        (Reverse(spare(place)), pool.map(|pool| pool.best(one_more).loss), pool.map(Pool::first))
    };
    let mut nodes = by_numa_node(pools, turn.iter().copied());
    nodes.sort_by_cached_key(|node| {
        let is_near = node.iter().any(|place| pools.get(*place).is_some_and(|pool| pool.is_near));
        let enough = node.len() >= size;
        let most = if enough { 0 } else { node.len() };
        (!enough, !is_near, Reverse(most), Reverse(node.iter().map(spare).sum::<usize>()))
    });
    let mut chosen = Vec::new();
    for mut node in nodes {
        node.sort_by_cached_key(rank);
        chosen.extend(node);
    }
    chosen.truncate(size);
    chosen
}
