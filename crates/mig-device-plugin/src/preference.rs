//! Which of the free devices to take.

use std::collections::{BTreeMap, HashSet};

use crate::container::strategy::PreferredAllocation;
use crate::roster::Roster;

/// Of `available`, as many as `size` says, `must` among them. Never fails: what it does not know comes last.
pub(crate) fn choose(
    roster: &Roster,
    preferred: PreferredAllocation,
    available: &[String],
    must: &[String],
    size: i32,
) -> Vec<String> {
    let size = usize::try_from(size).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut chosen: Vec<String> = must.iter().filter(|id| seen.insert(id.as_str())).cloned().collect();

    // By GPU, in the list's order; a device that is unknown belongs to none and is the last resort.
    let mut free = Free::new();
    let mut unknown = Vec::new();
    for id in available.iter().filter(|id| seen.insert(id.as_str())) {
        match roster.find(id).filter(|(_, entry)| entry.is_healthy()) {
            Some((place, entry)) => free.entry(&entry.device().gpu).or_default().push((place, id)),
            None => unknown.push(id),
        }
    }
    unknown.sort();
    free.values_mut().for_each(|ids| ids.sort_unstable());
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, entry) in must.iter().filter_map(|id| roster.find(id)) {
        *taken.entry(&entry.device().gpu).or_default() += 1;
    }
    let missing = size.saturating_sub(chosen.len());
    chosen.extend(match preferred {
        PreferredAllocation::Packed => packed(free, &taken, missing),
        PreferredAllocation::Spread => spread(free, taken, missing),
    });
    let missing = size.saturating_sub(chosen.len());
    chosen.extend(unknown.into_iter().take(missing).cloned());
    chosen
}

/// Free devices by GPU, each with its place in the list, in that order.
type Free<'a> = BTreeMap<&'a str, Vec<(usize, &'a String)>>;

/// From as few GPUs as possible, and from those that have the least to spare, so that what stays free stays together.
fn packed(mut free: Free<'_>, taken: &BTreeMap<&str, usize>, size: usize) -> Vec<String> {
    let mut chosen = Vec::new();
    while chosen.len() < size {
        let need = size - chosen.len();
        let best = free.iter().min_by_key(|(gpu, ids)| {
            let enough = ids.len() >= need;
            // A GPU that the container uses anyway, else the tightest that has enough, else the one with most.
            let spare = if enough { ids.len() } else { usize::MAX - ids.len() };
            (!taken.contains_key(*gpu), !enough, spare, ids.first().map(|(place, _)| *place))
        });
        let Some(gpu) = best.map(|(gpu, _)| *gpu) else { break };
        let ids = free.remove(gpu).unwrap_or_default();
        chosen.extend(ids.into_iter().take(need).map(|(_, id)| id.clone()));
    }
    chosen
}

/// One by one, each from the GPU that the container has least of, and of those from the one with most to spare.
fn spread<'a>(mut free: Free<'a>, mut taken: BTreeMap<&'a str, usize>, size: usize) -> Vec<String> {
    let mut chosen = Vec::new();
    while chosen.len() < size {
        let best = free.iter_mut().filter(|(_, ids)| !ids.is_empty()).min_by_key(|(gpu, ids)| {
            (taken.get(*gpu).copied().unwrap_or_default(), usize::MAX - ids.len(), ids.first().map(|(place, _)| *place))
        });
        let Some((gpu, ids)) = best else { break };
        *taken.entry(gpu).or_default() += 1;
        chosen.push(ids.remove(0).1.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::roster::tests::{device, roster};

    /// GPUs of seven slices each: `MIG-<gpu>-<slice>`.
    fn node(gpus: usize) -> (Roster, Vec<String>) {
        let devices: Vec<_> = (0..gpus)
            .flat_map(|gpu| (0..7).map(move |slice| device(&format!("MIG-{gpu}-{slice}"), &format!("GPU-{gpu}"))))
            .collect();
        let ids = devices.iter().map(|offered| offered.device.id.clone()).collect();
        (roster(&devices), ids)
    }

    fn gpus_of(ids: &[String]) -> HashSet<String> {
        ids.iter().map(|id| id.rsplit_once('-').unwrap().0.to_owned()).collect()
    }

    #[test]
    fn a_request_stays_on_one_gpu_if_one_has_enough() {
        let (roster, mut ids) = node(8);
        ids.reverse();
        assert_eq!(gpus_of(&choose(&roster, PreferredAllocation::Packed, &ids, &[], 7)).len(), 1);
    }

    #[test]
    fn the_gpu_with_the_least_to_spare_is_taken() {
        let (roster, ids) = node(3);
        let free: Vec<String> =
            ids.iter().filter(|id| !["MIG-1-0", "MIG-1-1", "MIG-1-2"].contains(&id.as_str())).cloned().collect();
        assert_eq!(choose(&roster, PreferredAllocation::Packed, &free, &[], 2), ["MIG-1-3", "MIG-1-4"]);
        // Of the whole ones, the first.
        assert_eq!(
            choose(&roster, PreferredAllocation::Packed, &free, &[], 5),
            ["MIG-0-0", "MIG-0-1", "MIG-0-2", "MIG-0-3", "MIG-0-4"]
        );
    }

    #[test]
    fn a_gpu_that_is_in_use_by_the_container_comes_first() {
        let (roster, ids) = node(3);
        assert_eq!(
            choose(&roster, PreferredAllocation::Packed, &ids, &["MIG-2-6".to_owned()], 2),
            ["MIG-2-6", "MIG-2-0"]
        );
    }

    #[test]
    fn a_request_that_is_to_be_spread_takes_one_of_each() {
        let (roster, mut ids) = node(4);
        ids.reverse();
        let spread =
            |ids: &[String], must: &[String], size| choose(&roster, PreferredAllocation::Spread, ids, must, size);
        assert_eq!(spread(&ids, &[], 4), ["MIG-0-0", "MIG-1-0", "MIG-2-0", "MIG-3-0"]);
        // The GPU that the container has something of is the last; after one round the next.
        let must = ["MIG-1-6".to_owned()];
        assert_eq!(spread(&ids, &must, 5), ["MIG-1-6", "MIG-0-0", "MIG-2-0", "MIG-3-0", "MIG-0-1"]);
        // Of GPUs that are alike for the container, the emptiest.
        let free: Vec<String> = ids.iter().filter(|id| *id != "MIG-0-0").cloned().collect();
        assert_eq!(spread(&free, &[], 1), ["MIG-1-0"]);
        assert_eq!(gpus_of(&spread(&ids, &[], 28)).len(), 4);
    }

    #[test]
    fn nonsense_gets_an_answer_too() {
        let (roster, ids) = node(1);
        assert_eq!(choose(&roster, PreferredAllocation::Packed, &ids, &[], -1), Vec::<String>::new());
        assert_eq!(choose(&roster, PreferredAllocation::Packed, &[], &[], 3), Vec::<String>::new());
        assert_eq!(choose(&roster, PreferredAllocation::Packed, &["x".to_owned(), "a".to_owned()], &[], 2), ["a", "x"]);
    }

    proptest! {
        #[test]
        fn the_answer_is_what_the_kubelet_accepts(
            gpus in 1_usize..5, picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..30), must in 0_usize..4, size in 0_i32..40, spread: bool,
        ) {
            let (roster, ids) = node(gpus);
            let available: Vec<String> = picks.iter().map(|pick| pick.get(&ids).clone()).collect::<HashSet<_>>().into_iter().collect();
            let must: Vec<String> = available.iter().take(must.min(usize::try_from(size).unwrap())).cloned().collect();
            let preferred = if spread { PreferredAllocation::Spread } else { PreferredAllocation::Packed };
            let chosen = choose(&roster, preferred, &available, &must, size);
            prop_assert_eq!(chosen.len(), available.len().min(usize::try_from(size).unwrap()));
            prop_assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id)));
            prop_assert!(must.iter().all(|id| chosen.contains(id)));
        }
    }
}
