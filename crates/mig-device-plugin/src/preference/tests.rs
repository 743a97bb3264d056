use std::collections::{BTreeMap, BTreeSet};

use mig_model::{Device, Placement};
use proptest::prelude::*;

use super::*;
use crate::container::gift::Offered;
use crate::roster::tests::{device, roster};

const PACKED: Manner = Manner { preferred: PreferredAllocation::Packed, shared: SharedAllocation::Distributed };
const SPREAD: Manner = Manner { preferred: PreferredAllocation::Spread, shared: SharedAllocation::Distributed };

fn alone(_: &str) -> Vec<Neighbour> {
    Vec::new()
}

fn choose(roster: &Roster, manner: Manner, available: &[String], must: &[String], size: i32) -> Vec<String> {
    super::choose(roster, manner, available, must, size, alone)
}

fn text(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn ids(devices: &[Offered]) -> Vec<String> {
    devices.iter().map(|offered| offered.device.id.clone()).collect()
}

/// GPUs of seven slices each, of which it is not known where they lie: `MIG-<gpu>-<slice>`.
fn node(gpus: usize) -> (Roster, Vec<String>) {
    let slices = |gpu| (0..7).map(move |slice| device(&format!("MIG-{gpu}-{slice}"), &format!("GPU-{gpu}")));
    let devices: Vec<_> = (0..gpus).flat_map(slices).collect();
    (roster(&devices), ids(&devices))
}

/// A slice `MIG-<gpu>-<first memory slice>`.
fn placed(gpu: usize, start: u32, size: u32, numa_node: Option<u32>) -> Offered {
    let offered = device(&format!("MIG-{gpu}-{start}"), &format!("GPU-{gpu}"));
    Offered { device: Device { placement: Some(Placement { start, size }), numa_node, ..offered.device }, ..offered }
}

fn shares(gpu: usize, slice: usize, count: usize) -> Vec<Offered> {
    (0..count).map(|share| device(&format!("MIG-{gpu}-{slice}::{share}"), &format!("GPU-{gpu}"))).collect()
}

/// GPUs cut into seven, two on each NUMA node.
fn cut_into_seven(gpus: usize) -> Vec<Offered> {
    let numa_node = |gpu: usize| u32::try_from(gpu / 2).ok();
    (0..gpus).flat_map(|gpu| (0..7).map(move |start| placed(gpu, start, 1, numa_node(gpu)))).collect()
}

fn gpu_of(id: &str) -> usize {
    id.split('-').nth(1).unwrap().parse().unwrap()
}

fn gpus_of(ids: &[String]) -> BTreeSet<usize> {
    ids.iter().map(|id| gpu_of(id)).collect()
}

fn numa_nodes_of(ids: &[String]) -> BTreeSet<usize> {
    ids.iter().map(|id| gpu_of(id) / 2).collect()
}

#[test]
fn a_request_stays_on_one_gpu_if_one_has_enough() {
    let (roster, mut ids) = node(8);
    ids.reverse();
    assert_eq!(gpus_of(&choose(&roster, PACKED, &ids, &[], 7)).len(), 1);
}

#[test]
fn the_gpu_with_the_least_to_spare_is_taken() {
    let (roster, ids) = node(3);
    let free: Vec<String> =
        ids.iter().filter(|id| !["MIG-1-0", "MIG-1-1", "MIG-1-2"].contains(&id.as_str())).cloned().collect();
    assert_eq!(choose(&roster, PACKED, &free, &[], 2), ["MIG-1-3", "MIG-1-4"]);
    // Of the whole ones, the first.
    assert_eq!(choose(&roster, PACKED, &free, &[], 5), ["MIG-0-0", "MIG-0-1", "MIG-0-2", "MIG-0-3", "MIG-0-4"]);
}

#[test]
fn a_gpu_that_is_in_use_by_the_container_comes_first() {
    let (roster, ids) = node(3);
    assert_eq!(choose(&roster, PACKED, &ids, &text(&["MIG-2-6"]), 2), ["MIG-2-6", "MIG-2-0"]);
}

#[test]
fn a_request_that_is_to_be_spread_takes_one_of_each() {
    let (roster, mut ids) = node(4);
    ids.reverse();
    let spread = |ids: &[String], must: &[String], size| choose(&roster, SPREAD, ids, must, size);
    assert_eq!(spread(&ids, &[], 4), ["MIG-0-0", "MIG-1-0", "MIG-2-0", "MIG-3-0"]);
    // The GPU that the container has something of is the last; after one round the next.
    let chosen = spread(&ids, &text(&["MIG-1-6"]), 5);
    assert_eq!(chosen[0], "MIG-1-6");
    let per_gpu = |gpu| chosen.iter().filter(|id| gpu_of(id) == gpu).count();
    assert_eq!([0, 1, 2, 3].map(per_gpu), [2, 1, 1, 1]);
    // Of GPUs that are alike for the container, the emptiest.
    let free: Vec<String> = ids.iter().filter(|id| *id != "MIG-0-0").cloned().collect();
    assert_eq!(spread(&free, &[], 1), ["MIG-1-0"]);
    assert_eq!(gpus_of(&spread(&ids, &[], 28)).len(), 4);
}

#[test]
fn several_gpus_are_of_one_numa_node() {
    let devices = cut_into_seven(6);
    let (roster, all) = (roster(&devices), ids(&devices));
    // 3 and 7 on node 0, 7 and 7 on the others: two GPUs are needed, which only two nodes have together.
    let free: Vec<String> = all[4..].to_vec();
    let chosen = choose(&roster, PACKED, &free, &[], 14);
    assert_eq!((gpus_of(&chosen).len(), numa_nodes_of(&chosen).len()), (2, 1), "{chosen:?}");
    // Rather several GPUs of one node than one of each of two.
    let slices = |gpu, count, node| (0..count).map(move |start| placed(gpu, start, 1, Some(node)));
    let many: Vec<Offered> =
        [slices(0, 7, 0), slices(1, 1, 0), slices(2, 1, 0), slices(9, 7, 1)].into_iter().flatten().collect();
    let chosen = choose(&tests::roster(&many), PACKED, &ids(&many), &[], 9);
    assert_eq!(gpus_of(&chosen), BTreeSet::from([0, 1, 2]));
    // Spread too: of as many GPUs as there are devices, but of as few nodes as these need.
    let chosen = choose(&roster, SPREAD, &all, &[], 2);
    assert_eq!((gpus_of(&chosen).len(), numa_nodes_of(&chosen).len()), (2, 1), "{chosen:?}");
    let chosen = choose(&roster, SPREAD, &all, &[], 6);
    assert_eq!(gpus_of(&chosen).len(), 6);
}

#[test]
fn what_is_added_is_of_the_numa_node_that_the_container_has() {
    let devices = cut_into_seven(6);
    let (roster, all) = (roster(&devices), ids(&devices));
    for manner in [PACKED, SPREAD] {
        // Nothing else is free of the GPU itself.
        let free: Vec<String> = all.iter().filter(|id| gpu_of(id) != 3 || *id == "MIG-3-0").cloned().collect();
        let chosen = choose(&roster, manner, &free, &text(&["MIG-3-0"]), 2);
        assert_eq!(numa_nodes_of(&chosen), BTreeSet::from([1]), "{manner:?}: {chosen:?}");
    }
}

#[test]
fn whole_gpus_and_halves_of_gpus_stay_free() {
    let devices = cut_into_seven(2);
    let (roster, all) = (roster(&devices), ids(&devices));
    let without =
        |used: &[&str]| -> Vec<String> { all.iter().filter(|id| !used.contains(&id.as_str())).cloned().collect() };
    // A 4g and a 3g lie in the first half, a 3g in the second, a 2g not at 6.
    assert_eq!(choose(&roster, PACKED, &all, &[], 1), ["MIG-0-6"]);
    assert_eq!(choose(&roster, PACKED, &all, &[], 3), ["MIG-0-4", "MIG-0-5", "MIG-0-6"]);
    assert_eq!(choose(&roster, PACKED, &all, &[], 4), ["MIG-0-0", "MIG-0-1", "MIG-0-2", "MIG-0-3"]);
    // The GPU that is broken already, and of it the half that is; its neighbour before another pair.
    assert_eq!(choose(&roster, PACKED, &without(&["MIG-1-1"]), &[], 1), ["MIG-1-0"]);
    assert_eq!(choose(&roster, PACKED, &without(&["MIG-1-1", "MIG-1-0"]), &[], 2), ["MIG-1-2", "MIG-1-3"]);
    assert_eq!(choose(&roster, PACKED, &without(&["MIG-1-5"]), &[], 1), ["MIG-1-4"]);
}

#[test]
fn slices_of_other_resources_count() {
    // Two GPUs with four 1g and a 3g each; the second's 3g is in use.
    let devices: Vec<Offered> = (0..2).flat_map(|gpu| (0..4).map(move |start| placed(gpu, start, 1, None))).collect();
    let half = |gpu: &str| vec![Neighbour { placement: Placement { start: 4, size: 4 }, is_in_use: gpu == "GPU-1" }];
    let chosen = super::choose(&roster(&devices), PACKED, &ids(&devices), &[], 2, half);
    assert_eq!(chosen, ["MIG-1-2", "MIG-1-3"]);
}

#[test]
fn gpus_with_twelve_memory_slices_have_halves_too() {
    let devices: Vec<Offered> = [0, 3, 6, 9].map(|start| placed(0, start, 3, None)).into();
    let free: Vec<String> = ids(&devices).into_iter().filter(|id| id != "MIG-0-6").collect();
    assert_eq!(choose(&roster(&devices), PACKED, &free, &[], 1), ["MIG-0-9"]);
    assert_eq!(choose(&roster(&devices), PACKED, &ids(&devices), &[], 2), ["MIG-0-6", "MIG-0-9"]);
}

#[test]
fn compute_instances_are_taken_of_one_gpu_instance() {
    let part = |name: &str, start| {
        let offered = placed(0, start, 4, None);
        Offered { device: Device { id: name.to_owned(), uuid: name.to_owned(), ..offered.device }, ..offered }
    };
    let devices = [part("MIG-0-a", 0), part("MIG-0-b", 0), part("MIG-0-c", 4), part("MIG-0-d", 4)];
    let free = text(&["MIG-0-b", "MIG-0-d", "MIG-0-c"]);
    assert_eq!(choose(&roster(&devices), PACKED, &free, &[], 1), ["MIG-0-b"]);
    assert_eq!(choose(&roster(&devices), PACKED, &ids(&devices), &[], 2), ["MIG-0-c", "MIG-0-d"]);
}

#[test]
fn two_shares_are_of_two_slices_while_there_are_two() {
    let devices = [shares(0, 0, 4), shares(1, 0, 4), shares(1, 1, 4)].concat();
    let (roster, mut all) = (roster(&devices), ids(&devices));
    all.reverse();
    for shared in [SharedAllocation::Distributed, SharedAllocation::Packed] {
        let chosen = choose(&roster, Manner { shared, ..PACKED }, &all, &[], 2);
        assert_eq!(chosen, ["MIG-1-0::0", "MIG-1-1::0"], "{shared:?}");
        let of = |id: &str| all.iter().filter(|other| uuid(other) == id).cloned().collect::<Vec<_>>();
        let must = of("MIG-1-0")[..1].to_vec();
        let chosen = choose(&roster, Manner { shared, ..PACKED }, &all, &must, 3);
        assert_eq!(chosen.iter().map(|id| uuid(id)).collect::<BTreeSet<_>>().len(), 3, "{shared:?}: {chosen:?}");
        let chosen = choose(&roster, Manner { shared, ..PACKED }, &of("MIG-0-0"), &[], 3);
        assert_eq!(chosen, ["MIG-0-0::0", "MIG-0-0::1", "MIG-0-0::2"], "{shared:?}: there is only one");
    }
}

#[test]
fn shares_are_of_the_slice_that_the_policy_prefers() {
    let devices = [shares(0, 0, 4), shares(0, 1, 4), shares(1, 0, 4)].concat();
    let roster = roster(&devices);
    let used = ["MIG-0-0::1", "MIG-0-1::0", "MIG-0-1::3", "MIG-1-0::2"];
    let free: Vec<String> = ids(&devices).into_iter().filter(|id| !used.contains(&id.as_str())).collect();
    let one = |shared| choose(&roster, Manner { shared, ..SPREAD }, &free, &[], 1);
    assert_eq!(one(SharedAllocation::Packed), ["MIG-0-1::1"]);
    let two = choose(&roster, PACKED, &free, &[], 2);
    assert_eq!(two, ["MIG-0-0::0", "MIG-1-0::0"], "the two with one in use each");
}

fn uuid(id: &str) -> &str {
    mig_model::uuid_of(id)
}

#[test]
fn nonsense_gets_an_answer_too() {
    let (roster, ids) = node(1);
    assert_eq!(choose(&roster, PACKED, &ids, &[], -1), Vec::<String>::new());
    assert_eq!(choose(&roster, PACKED, &[], &[], 3), Vec::<String>::new());
    assert_eq!(choose(&roster, PACKED, &text(&["x", "a", "x"]), &[], 2), ["a", "x"]);
    assert_eq!(
        choose(&roster, SPREAD, &text(&["x"]), &text(&["y", "y", "MIG-0-1", "MIG-0-1"]), 3),
        ["y", "MIG-0-1", "x"]
    );
    assert_eq!(choose(&Roster::default(), PACKED, &ids, &[], i32::MAX).len(), ids.len());
    // Placements that no GPU has.
    for (start, size) in [(u32::MAX, u32::MAX), (0, 0), (0, u32::MAX), (63, 1), (64, 1), (0, 64), (60, 3)] {
        let devices: Vec<Offered> = (0..3).map(|gpu| placed(gpu, start, size, None)).collect();
        assert_eq!(choose(&tests::roster(&devices), PACKED, &tests::ids(&devices), &[], 2).len(), 2);
    }
}

/// How many wholes, halves and quarters of the GPUs nothing lies in that is not free, or chosen.
fn room_left(devices: &[Offered], free: &[String], chosen: &[String]) -> [usize; 4] {
    let mut busy: BTreeMap<usize, u32> = BTreeMap::new();
    for device in devices.iter().map(|offered| &offered.device) {
        let placement = device.placement.unwrap();
        let bits = ((1 << placement.size) - 1) << placement.start;
        let is_busy = !free.contains(&device.id) || chosen.contains(&device.id);
        *busy.entry(gpu_of(&device.id)).or_default() |= if is_busy { bits } else { 0 };
    }
    let count = |part: u32| {
        let free = |bits: &u32| (0..8 / part).filter(|n| bits & ((1 << part) - 1) << (n * part) == 0).count();
        busy.values().map(free).sum()
    };
    [8, 4, 2, 1].map(count)
}

fn combinations(ids: &[String], size: usize) -> Vec<Vec<String>> {
    (0..1_u32 << ids.len())
        .filter(|bits| bits.count_ones() as usize == size)
        .map(|bits| ids.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, id)| id.clone()).collect())
        .collect()
}

/// Cuts of a GPU that the drivers allow; of several kinds, but one resource may have them all (strategy `single`, names).
const CUTS: [&[(u32, u32)]; 5] = [
    &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)],
    &[(0, 4), (4, 4)],
    &[(0, 2), (2, 2), (4, 2), (6, 1)],
    &[(0, 1), (1, 1), (2, 2), (4, 4)],
    &[(0, 8)],
];

proptest! {
    #[test]
    fn the_answer_is_what_the_kubelet_accepts(
        cuts in prop::collection::vec((0..5_usize, 0..3_u32, 1..4_usize), 1..6),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        must in 0_usize..4, size in 0_i32..40, spread: bool, packed_shares: bool,
    ) {
        let mut devices = Vec::new();
        for (gpu, (cut, numa, count)) in cuts.iter().enumerate() {
            for (start, length) in CUTS[*cut] {
                let whole = placed(gpu, *start, *length, Some(*numa));
                for share in 0..*count {
                    let id = format!("{}::{share}", whole.device.id);
                    devices.push(Offered { device: Device { id, ..whole.device.clone() }, ..whole.clone() });
                }
            }
        }
        let all = ids(&devices);
        let available: Vec<String> = picks.iter().map(|pick| pick.get(&all).clone()).collect::<HashSet<_>>().into_iter().collect();
        let must: Vec<String> = available.iter().take(must.min(usize::try_from(size).unwrap())).cloned().collect();
        let preferred = if spread { PreferredAllocation::Spread } else { PreferredAllocation::Packed };
        let shared = if packed_shares { SharedAllocation::Packed } else { SharedAllocation::Distributed };
        let chosen = choose(&roster(&devices), Manner { preferred, shared }, &available, &must, size);
        prop_assert_eq!(chosen.len(), available.len().min(usize::try_from(size).unwrap()));
        prop_assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), chosen.len());
        prop_assert!(chosen.iter().all(|id| available.contains(id)));
        prop_assert!(must.iter().all(|id| chosen.contains(id)));
        let different = |ids: &[String]| ids.iter().map(|id| uuid(id).to_owned()).collect::<BTreeSet<_>>().len();
        if must.is_empty() {
            prop_assert_eq!(different(&chosen), different(&available).min(chosen.len()));
        }
    }

    /// Against every choice that there is.
    #[test]
    fn no_other_choice_is_better(
        cuts in prop::collection::vec((0..5_usize, 0..2_u32), 1..4),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..11),
        size in 1_usize..6, must in 0_usize..2, spread: bool,
    ) {
        let mut devices = Vec::new();
        for (gpu, (cut, numa)) in cuts.iter().enumerate() {
            devices.extend(CUTS[*cut].iter().map(|(start, size)| placed(gpu, *start, *size, Some(*numa))));
        }
        let all = ids(&devices);
        let available: Vec<String> = picks.iter().map(|pick| pick.get(&all).clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let size = size.min(available.len());
        let must = &available[..must.min(size)];
        let manner = if spread { SPREAD } else { PACKED };
        let chosen = choose(&roster(&devices), manner, &available, must, i32::try_from(size).unwrap());
        let numa_nodes = |ids: &[String]| gpus_of(ids).into_iter().map(|gpu| cuts[gpu].1).collect::<BTreeSet<_>>().len();
        let others = combinations(&available, size).into_iter().filter(|ids| must.iter().all(|id| ids.contains(id)));
        for other in others {
            let room = |ids: &[String]| room_left(&devices, &available, ids);
            let gpus = |ids: &[String]| gpus_of(ids).len();
            if spread {
                prop_assert!(gpus(&chosen) >= gpus(&other), "{chosen:?} {other:?}");
                let alike = gpus(&chosen) == gpus(&other) && gpus_of(&chosen) == gpus_of(&other);
                let per_gpu = |ids: &[String]| gpus_of(ids).into_iter().map(|gpu| ids.iter().filter(|id| gpu_of(id) == gpu).count()).collect::<Vec<_>>();
                if alike && per_gpu(&chosen) == per_gpu(&other) {
                    prop_assert!(room(&chosen) >= room(&other), "{chosen:?} {other:?}");
                }
                continue;
            }
            prop_assert!(numa_nodes(&chosen) <= numa_nodes(&other), "{chosen:?} {other:?}");
            if numa_nodes(&other) == 1 {
                prop_assert!(gpus(&chosen) <= gpus(&other), "{chosen:?} {other:?}");
            }
            // Room matters between choices that are on one GPU, and between those on the same GPUs.
            if gpus(&other) == 1 {
                prop_assert!(room(&chosen) >= room(&other), "{chosen:?} leaves {:?}, {other:?} {:?}", room(&chosen), room(&other));
            }
        }
    }
}
