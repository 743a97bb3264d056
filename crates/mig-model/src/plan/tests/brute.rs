//! Says what fits by trying every placement of everything, with the rules as NVIDIA's documents state them.

use super::*;

/// Whether these can be on one GPU together.
pub(super) fn legal(geometry: &Geometry, together: &[(Profile, Placement)]) -> bool {
    let known = |profile: &Profile| geometry.profiles.iter().find(|known| known.profile == *profile).unwrap();
    let ends_with = |end: &str| together.iter().filter(|(profile, _)| profile.to_string().ends_with(end)).count();
    let compute: u32 = together.iter().map(|(profile, _)| known(profile).slices).sum();
    let apart = together.iter().enumerate().all(|(at, (_, one))| {
        together
            .iter()
            .skip(at + 1)
            .all(|(_, other)| one.start + one.size <= other.start || other.start + other.size <= one.start)
    });
    let few = geometry.profiles.iter().all(|known| {
        let count = together.iter().filter(|(profile, _)| *profile == known.profile).count();
        count <= usize::try_from(known.max_instances).unwrap()
    });
    let all = ends_with("+me.all");
    let media = ends_with("+me") <= 1 && (all == 0 || all == 1 && ends_with("-me") == together.len() - 1);
    let placed = together.iter().all(|(profile, at)| known(profile).placements.contains(at));
    compute <= geometry.compute_slices && apart && few && media && placed
}

/// Told of each way; says whether that was enough.
type Visit<'a> = dyn FnMut(&[(Profile, Placement)]) -> bool + 'a;

/// Every way to place all of these.
fn placed(
    geometry: &Geometry,
    wants: &[WantedInstance],
    so_far: &mut Vec<(Profile, Placement)>,
    visit: &mut Visit<'_>,
) -> bool {
    let Some((first, rest)) = wants.split_first() else { return visit(so_far) };
    let known = geometry.profiles.iter().find(|known| known.profile == first.profile).unwrap();
    for at in known.placements.iter().filter(|at| first.start.is_none_or(|start| start == at.start)) {
        so_far.push((first.profile.clone(), *at));
        let found = legal(geometry, so_far) && placed(geometry, rest, so_far, visit);
        so_far.pop();
        if found {
            return true;
        }
    }
    false
}

pub(super) fn fits(geometry: &Geometry, beside: &[(Profile, Placement)], wants: &[WantedInstance]) -> bool {
    placed(geometry, wants, &mut beside.to_vec(), &mut |_| true)
}

/// How many more of each profile what is there leaves room for, in all; over every way to place `wants` the most.
pub(super) fn most_room(geometry: &Geometry, beside: &[(Profile, Placement)], wants: &[WantedInstance]) -> u32 {
    let mut most = 0;
    placed(geometry, wants, &mut beside.to_vec(), &mut |together| {
        most = most.max(room(geometry, together));
        false
    });
    most
}

pub(super) fn room(geometry: &Geometry, together: &[(Profile, Placement)]) -> u32 {
    let more = |known: &InstanceProfile| {
        let one = WantedInstance::whole(known.profile.clone());
        (1..).take_while(|count| fits(geometry, together, &vec![one.clone(); *count])).last().unwrap_or(0)
    };
    geometry.profiles.iter().map(|known| u32::try_from(more(known)).unwrap()).sum()
}

/// The fewest instances that must go so that `want` can be there; none if those in use forbid it.
pub(super) fn fewest_destroyed(
    geometry: &Geometry,
    now: &[GpuInstance],
    in_use: &InUse,
    want: &[WantedInstance],
) -> Option<u32> {
    let mut fewest = None;
    placed(geometry, want, &mut Vec::new(), &mut |together| {
        let stays = |one: &GpuInstance| together.contains(&(one.profile.clone(), one.placement.unwrap()));
        if now.iter().all(|one| stays(one) || !in_use.holds(one.id)) {
            let gone = u32::try_from(now.iter().filter(|one| !stays(one)).count()).unwrap();
            fewest = Some(fewest.map_or(gone, |fewest: u32| fewest.min(gone)));
        }
        false
    });
    fewest
}

/// Every set of placed instances, each once.
pub(super) fn every(geometry: &Geometry, only: &[Profile]) -> BTreeSet<Vec<(Profile, Placement)>> {
    let mut places = Vec::new();
    for known in geometry.profiles.iter().filter(|known| only.contains(&known.profile)) {
        places.extend(known.placements.iter().map(|at| (known.profile.clone(), *at)));
    }
    let mut found = BTreeSet::from([Vec::new()]);
    let mut edge: Vec<Vec<(Profile, Placement)>> = vec![Vec::new()];
    while let Some(set) = edge.pop() {
        for place in &places {
            let mut larger = set.clone();
            larger.push(place.clone());
            larger.sort();
            if legal(geometry, &larger) && found.insert(larger.clone()) {
                edge.push(larger);
            }
        }
    }
    found
}
