//! Compute instances against a brute force: every way to keep GPU instances, to pair them with wishes, and to cut them anew.

use super::cases::some_cut;
use super::*;
use crate::geometry::ComputeProfile;

/// Compute instances where a driver would put them, one after the other, as far as they fit.
fn put(profiles: &[ComputeProfile], names: &[Profile]) -> Option<Vec<Placement>> {
    let mut taken: Vec<Placement> = Vec::new();
    for name in names {
        let known = profiles.iter().find(|known| known.profile == *name)?;
        taken.push(*known.placements.iter().find(|at| taken.iter().all(|other| !at.overlaps(other)))?);
    }
    Some(taken)
}

fn some_parts(profiles: &[ComputeProfile], picks: &[Index]) -> Vec<Profile> {
    let mut names: Vec<Profile> = Vec::new();
    for pick in picks {
        names.push(pick.get(profiles).profile.clone());
        if put(profiles, &names).is_none() {
            names.pop();
        }
    }
    names
}

fn orders(names: &[Profile]) -> Vec<Vec<Profile>> {
    if names.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (position, first) in names.iter().enumerate() {
        let mut rest = names.to_vec();
        rest.remove(position);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

/// The fewest compute instances that must go so that the rest and new ones are what is wanted.
fn fewest_parts(
    profiles: &[ComputeProfile],
    have: &[ComputeInstance],
    stays: &dyn Fn(u32) -> bool,
    wanted: &[Profile],
) -> Option<u32> {
    let mut fewest = None;
    for gone in 0..1_u32 << have.len() {
        let goes = |position: usize| gone & (1 << position) != 0;
        if have.iter().enumerate().any(|(at, one)| goes(at) && stays(one.id)) {
            continue;
        }
        let kept: Vec<&ComputeInstance> =
            have.iter().enumerate().filter(|(at, _)| !goes(*at)).map(|(_, one)| one).collect();
        let mut missing = wanted.to_vec();
        let fits = kept.iter().all(|one| {
            let found = missing.iter().position(|name| *name == one.profile);
            found.map(|at| missing.remove(at)).is_some()
        });
        let places: Vec<Placement> = kept.iter().map(|one| one.placement.unwrap()).collect();
        let arranged = |order: &Vec<Profile>| {
            let mut taken = places.clone();
            order.iter().all(|name| {
                let known = profiles.iter().find(|known| known.profile == *name).unwrap();
                let free = known.placements.iter().find(|at| taken.iter().all(|other| !at.overlaps(other)));
                free.map(|at| taken.push(*at)).is_some()
            })
        };
        if fits && orders(&missing).iter().any(arranged) {
            fewest = Some(fewest.map_or(gone.count_ones(), |fewest: u32| fewest.min(gone.count_ones())));
        }
    }
    fewest
}

/// The fewest GPU instances, and then compute instances, that must go.
fn fewest(geometry: &Geometry, now: &[GpuInstance], in_use: &InUse, wishes: &[WantedInstance]) -> Option<(u32, u32)> {
    fn pair(
        geometry: &Geometry,
        now: &[GpuInstance],
        in_use: &InUse,
        left: &[WantedInstance],
        so_far: (u32, u32),
        kept: &mut Vec<(Profile, Placement)>,
        best: &mut Option<(u32, u32)>,
    ) {
        let Some((first, rest)) = now.split_first() else {
            if brute::fits(geometry, kept, left) && best.is_none_or(|best| so_far < best) {
                *best = Some(so_far);
            }
            return;
        };
        if !in_use.holds(first.id) {
            pair(geometry, rest, in_use, left, (so_far.0 + 1, so_far.1), kept, best);
        }
        let at = first.placement.unwrap();
        for (position, wish) in left.iter().enumerate() {
            if wish.profile != first.profile || wish.start.is_some_and(|start| start != at.start) {
                continue;
            }
            let profiles = geometry.compute_profiles(geometry.find(&first.profile).unwrap()).into_owned();
            let stays = |id| in_use.holds_compute(first.id, id);
            let cost = fewest_parts(&profiles, &first.compute_instances, &stays, &wish.compute_instances());
            let Some(cost) = cost else { continue };
            let mut others = left.to_vec();
            others.remove(position);
            kept.push((first.profile.clone(), at));
            pair(geometry, rest, in_use, &others, (so_far.0, so_far.1 + cost), kept, best);
            kept.pop();
        }
    }
    let mut best = None;
    pair(geometry, now, in_use, wishes, (0, 0), &mut Vec::new(), &mut best);
    best
}

proptest! {
    // The brute force takes a tenth of a second for each.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_fewest_compute_instances_go_and_none_that_is_in_use(
        there in prop::collection::vec((any::<(Index, Index)>(), prop::collection::vec(any::<Index>(), 0..5)), 0..5),
        wish in prop::collection::vec((any::<Index>(), any::<Option<Index>>(), prop::collection::vec(any::<Index>(), 0..5)), 0..4),
        used in prop::collection::vec(any::<(Index, Option<Index>)>(), 0..3),
    ) {
        let geometry = model("A100-SXM4-40GB");
        let picks: Vec<(Index, Index)> = there.iter().map(|(pick, _)| *pick).collect();
        let mut now = some_cut(&geometry, &picks);
        for (instance, (_, parts)) in now.iter_mut().zip(&there) {
            let profiles = geometry.compute_profiles(geometry.find(&instance.profile).unwrap()).into_owned();
            let names = some_parts(&profiles, parts);
            let places = put(&profiles, &names).unwrap();
            let id = instance.id;
            instance.compute_instances = (0..).zip(names.iter().zip(places)).map(|(number, (name, at))| {
                compute(id, number, &name.to_string(), at.start, at.size)
            }).collect();
        }
        let want: Vec<WantedInstance> = wish.iter().map(|(which, start, parts)| {
            let known = which.get(&geometry.profiles);
            let profiles = geometry.compute_profiles(known).into_owned();
            let start = start.map(|at| at.get(&known.placements).start);
            WantedInstance { profile: known.profile.clone(), start, compute: some_parts(&profiles, parts) }
        }).collect();
        let mut in_use = InUse::default();
        for (which, part) in &used {
            if now.is_empty() {
                break;
            }
            let instance = which.get(&now);
            let part = part.filter(|_| !instance.compute_instances.is_empty());
            in_use.insert(instance.id, part.map(|part| part.get(&instance.compute_instances).id));
        }
        let expected = fewest(&geometry, &now, &in_use, &want);
        let planned = plan(&geometry, &now, &in_use, &want);
        let got = planned.as_ref().ok().map(|planned| {
            let count = |is: &dyn Fn(&Step) -> bool| u32::try_from(planned.steps.iter().filter(|step| is(step)).count()).unwrap();
            let whole = count(&|step| matches!(step, Step::DestroyGpuInstance { .. }));
            let part = count(&|step| matches!(step, Step::DestroyComputeInstance { .. }));
            (whole, part)
        });
        prop_assert_eq!(got, expected, "{:?} {:?} {:?} {:?}", now, in_use, want, planned);
        let Ok(planned) = planned else { return Ok(()) };
        for step in &planned.steps {
            match step {
                Step::DestroyGpuInstance { gpu_instance, .. } => prop_assert!(!in_use.holds(*gpu_instance)),
                Step::DestroyComputeInstance { gpu_instance, compute_instance, .. } => {
                    prop_assert!(!in_use.holds_compute(*gpu_instance, *compute_instance));
                }
                _ => {}
            }
        }
        // What is there in the end is what was wished for, part by part.
        let mut result: Vec<(Profile, Vec<Profile>)> = Vec::new();
        for instance in now.iter().filter(|one| planned.kept.contains(&one.id)) {
            let mut parts: Vec<Profile> = instance.compute_instances.iter().map(|one| one.profile.clone()).collect();
            for step in &planned.steps {
                match step {
                    Step::DestroyComputeInstance { gpu_instance, profile, .. } if *gpu_instance == instance.id => {
                        parts.remove(parts.iter().position(|part| part == profile).unwrap());
                    }
                    Step::CreateComputeInstance { gpu_instance, profile } if *gpu_instance == instance.id => parts.push(profile.clone()),
                    _ => {}
                }
            }
            parts.sort();
            result.push((instance.profile.clone(), parts));
        }
        for step in &planned.steps {
            if let Step::CreateGpuInstance { profile, compute, .. } = step {
                let mut parts = compute.clone();
                parts.sort();
                result.push((profile.clone(), parts));
            }
        }
        result.sort();
        let mut asked: Vec<(Profile, Vec<Profile>)> = want.iter().map(|one| (one.profile.clone(), one.compute_instances())).collect();
        asked.sort();
        prop_assert_eq!(result, asked);
    }
}
