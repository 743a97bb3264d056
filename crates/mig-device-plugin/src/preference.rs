//! Which of the free devices to take.

use std::collections::{BTreeMap, HashSet};

use crate::roster::Roster;

/// Of `available`, as many as `size` says, `must` among them: from as few GPUs as possible, and from those that have the
/// least to spare, so that what stays free stays together. Never fails: what it does not know comes last.
pub(crate) fn choose(roster: &Roster, available: &[String], must: &[String], size: i32) -> Vec<String> {
    let size = usize::try_from(size).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut chosen: Vec<String> = must.iter().filter(|id| seen.insert(id.as_str())).cloned().collect();

    // By GPU, in the list's order; a device that is unknown belongs to none and is the last resort.
    let mut free: BTreeMap<&str, Vec<(usize, &String)>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for id in available.iter().filter(|id| seen.insert(id.as_str())) {
        match roster.find(id).filter(|(_, entry)| entry.is_healthy()) {
            Some((place, entry)) => free.entry(&entry.device.gpu).or_default().push((place, id)),
            None => unknown.push(id),
        }
    }
    unknown.sort();
    let begun: HashSet<&str> =
        must.iter().filter_map(|id| roster.find(id)).map(|(_, entry)| entry.device.gpu.as_str()).collect();

    while chosen.len() < size {
        let need = size - chosen.len();
        let best = free.iter().min_by_key(|(gpu, ids)| {
            let enough = ids.len() >= need;
            // A GPU that the container uses anyway, else the tightest that has enough, else the one with most.
            let spare = if enough { ids.len() } else { usize::MAX - ids.len() };
            (!begun.contains(*gpu), !enough, spare, ids.iter().map(|(place, _)| *place).min())
        });
        let Some(gpu) = best.map(|(gpu, _)| *gpu) else { break };
        let mut ids = free.remove(gpu).unwrap_or_default();
        ids.sort_unstable();
        chosen.extend(ids.into_iter().take(need).map(|(_, id)| id.clone()));
    }
    let missing = size.saturating_sub(chosen.len());
    chosen.extend(unknown.into_iter().take(missing).cloned());
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
        let ids = devices.iter().map(|device| device.id.clone()).collect();
        (roster(&devices), ids)
    }

    fn gpus_of(ids: &[String]) -> HashSet<String> {
        ids.iter().map(|id| id.rsplit_once('-').unwrap().0.to_owned()).collect()
    }

    #[test]
    fn a_request_stays_on_one_gpu_if_one_has_enough() {
        let (roster, mut ids) = node(8);
        ids.reverse();
        assert_eq!(gpus_of(&choose(&roster, &ids, &[], 7)).len(), 1);
    }

    #[test]
    fn the_gpu_with_the_least_to_spare_is_taken() {
        let (roster, ids) = node(3);
        let free: Vec<String> =
            ids.iter().filter(|id| !["MIG-1-0", "MIG-1-1", "MIG-1-2"].contains(&id.as_str())).cloned().collect();
        assert_eq!(choose(&roster, &free, &[], 2), ["MIG-1-3", "MIG-1-4"]);
        // Of the whole ones, the first.
        assert_eq!(choose(&roster, &free, &[], 5), ["MIG-0-0", "MIG-0-1", "MIG-0-2", "MIG-0-3", "MIG-0-4"]);
    }

    #[test]
    fn a_gpu_that_is_in_use_by_the_container_comes_first() {
        let (roster, ids) = node(3);
        assert_eq!(choose(&roster, &ids, &["MIG-2-6".to_owned()], 2), ["MIG-2-6", "MIG-2-0"]);
    }

    #[test]
    fn nonsense_gets_an_answer_too() {
        let (roster, ids) = node(1);
        assert_eq!(choose(&roster, &ids, &[], -1), Vec::<String>::new());
        assert_eq!(choose(&roster, &[], &[], 3), Vec::<String>::new());
        assert_eq!(choose(&roster, &["x".to_owned(), "a".to_owned()], &[], 2), ["a", "x"]);
    }

    proptest! {
        #[test]
        fn the_answer_is_what_the_kubelet_accepts(
            gpus in 1_usize..5, picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..30), must in 0_usize..4, size in 0_i32..40,
        ) {
            let (roster, ids) = node(gpus);
            let available: Vec<String> = picks.iter().map(|pick| pick.get(&ids).clone()).collect::<HashSet<_>>().into_iter().collect();
            let must: Vec<String> = available.iter().take(must.min(usize::try_from(size).unwrap())).cloned().collect();
            let chosen = choose(&roster, &available, &must, size);
            prop_assert_eq!(chosen.len(), available.len().min(usize::try_from(size).unwrap()));
            prop_assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id)));
            prop_assert!(must.iter().all(|id| chosen.contains(id)));
        }
    }
}
