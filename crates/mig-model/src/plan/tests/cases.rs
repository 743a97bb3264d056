use super::*;

/// Every multiset of up to `most` profiles of a GPU.
fn multisets(geometry: &Geometry, most: usize) -> Vec<Vec<WantedInstance>> {
    let mut all = vec![Vec::new()];
    let mut last: Vec<(usize, Vec<WantedInstance>)> = vec![(0, Vec::new())];
    for _ in 0..most {
        let mut next = Vec::new();
        for (from, set) in last {
            for (position, known) in geometry.profiles.iter().enumerate().skip(from) {
                let mut larger = set.clone();
                larger.push(WantedInstance::whole(known.profile.clone()));
                next.push((position, larger));
            }
        }
        all.extend(next.iter().map(|(_, set)| set.clone()));
        last = next;
    }
    all
}

#[test]
fn what_fits_is_what_brute_force_over_every_placement_says() {
    for (name, geometry) in models() {
        // More than three would be the same again for the many kinds of RTX PRO 6000, and take minutes.
        let most = if geometry.profiles.len() > 8 { 3 } else { 4 };
        let mut fitting = 0;
        for wants in multisets(&geometry, most) {
            let expected = brute::fits(&geometry, &[], &wants);
            let planned = plan(&geometry, &[], &InUse::default(), &wants);
            assert_eq!(planned.is_ok(), expected, "{name}: {wants:?}: {planned:?}");
            match planned {
                Ok(planned) => {
                    fitting += 1;
                    let got = names(&after(&geometry, &[], &planned.steps));
                    let mut asked: Vec<String> = wants.iter().map(|want| want.profile.to_string()).collect();
                    asked.sort();
                    assert_eq!(got, asked);
                }
                Err(PlanError::DoesNotFit(misfit)) => {
                    assert!(!misfit.reasons.is_empty());
                    assert!(misfit.parts_that_fit.iter().all(|part| brute::fits(&geometry, &[], part)), "{misfit:?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(fitting > 10, "{name}");
    }
}

#[test]
fn seven_and_more_of_the_smallest_are_decided_as_by_brute_force() {
    for (name, geometry) in models() {
        let smallest = geometry.profiles.first().unwrap();
        for count in 5..=9 {
            let wants = vec![WantedInstance::whole(smallest.profile.clone()); count];
            let fits = count <= usize::try_from(smallest.max_instances).unwrap();
            assert_eq!(plan(&geometry, &[], &InUse::default(), &wants).is_ok(), fits, "{name} {count}");
        }
    }
}

#[test]
fn an_a100_can_be_filled_in_nineteen_ways() {
    let geometry = model("A100-SXM4-40GB");
    let plain: Vec<Profile> =
        ["1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"].iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(maximal_configurations(&geometry, &plain).len(), 19);
}

#[test]
fn every_way_to_fill_a_gpu_is_listed_once() {
    for (name, geometry) in models() {
        // All profiles where that is few, the first six of those that have many.
        let only: Vec<Profile> = geometry.profiles.iter().take(6).map(|known| known.profile.clone()).collect();
        let every = brute::every(&geometry, &only);
        let grows = |set: &Vec<(Profile, Placement)>| {
            only.iter().any(|profile| brute::fits(&geometry, set, &[WantedInstance::whole(profile.clone())]))
        };
        let expected: BTreeSet<Vec<(Profile, Placement)>> = every.into_iter().filter(|set| !grows(set)).collect();
        let listed = maximal_configurations(&geometry, &only);
        let sorted: BTreeSet<Vec<(Profile, Placement)>> = listed
            .iter()
            .map(|Configuration(instances)| {
                let mut set = instances.clone();
                set.sort();
                set
            })
            .collect();
        assert_eq!(sorted.len(), listed.len(), "{name}: one is listed twice");
        assert!(sorted == expected, "{name}: {} listed, {} expected", sorted.len(), expected.len());
    }
}

#[test]
fn a_single_instance_goes_where_most_room_is_left() {
    let geometry = model("A100-SXM4-40GB");
    for (asked, start) in [("1g.5gb", 6), ("3g.20gb", 4), ("2g.10gb", 4), ("1g.10gb", 6), ("7g.40gb", 0)] {
        let planned = place(&geometry, &[], &[wanted(asked)]).unwrap();
        let [Step::CreateGpuInstance { placement, .. }] = planned.steps.as_slice() else { panic!("{planned:?}") };
        assert_eq!(placement.start, start, "{asked}");
    }
    // And says what the others would have left.
    let planned = place(&geometry, &[], &[wanted("3g.20gb")]).unwrap();
    let [other] = planned.passed_over.as_slice() else { panic!("{planned:?}") };
    assert_eq!(other.created, [("3g.20gb".parse().unwrap(), Placement { start: 0, size: 4 })]);
    assert!(other.room.sum() < planned.room.sum());
    assert_eq!(
        planned.room.to_string(),
        "4 x 1g.5gb, 1 x 1g.5gb+me, 2 x 1g.10gb, 2 x 2g.10gb, 1 x 3g.20gb or 1 x 4g.20gb"
    );
}

#[test]
fn what_is_there_already_is_left_alone() {
    let geometry = model("A100-SXM4-40GB");
    let now = cut(&geometry, &["3g.20gb@0", "2g.10gb@4", "1g.5gb@6"]);
    let planned = plan(&geometry, &now, &InUse::default(), &all_wanted(&["1g.5gb", "3g.20gb", "2g.10gb@4"])).unwrap();
    assert_eq!((planned.steps, planned.kept), (vec![], vec![1, 2, 3]));
}

#[test]
fn only_what_has_to_go_goes() {
    let geometry = model("A100-SXM4-40GB");
    let now = cut(&geometry, &["1g.5gb@0", "1g.5gb@1", "1g.5gb@2", "1g.5gb@3", "1g.5gb@4", "1g.5gb@5", "1g.5gb@6"]);
    let planned = plan(&geometry, &now, &using(&[5]), &all_wanted(&["3g.20gb", "1g.5gb", "1g.5gb", "1g.5gb"])).unwrap();
    // The three on the right stay, since the one in use is among them.
    assert_eq!(planned.kept, [5, 6, 7]);
    let lines: Vec<String> = planned.steps.iter().map(Step::to_string).collect();
    assert_eq!(
        lines,
        [
            "- destroy GPU instance 1 (1g.5gb at 0:1)",
            "- destroy GPU instance 2 (1g.5gb at 1:1)",
            "- destroy GPU instance 3 (1g.5gb at 2:1)",
            "- destroy GPU instance 4 (1g.5gb at 3:1)",
            "+ create 3g.20gb at 0:4",
        ]
    );
}

#[test]
fn what_is_in_use_and_in_the_way_is_named_with_what_can_be_had() {
    let geometry = model("A100-SXM4-40GB");
    let now = cut(&geometry, &["1g.5gb@1", "1g.5gb@5", "1g.5gb@6"]);
    let error = plan(&geometry, &now, &using(&[1, 2]), &all_wanted(&["3g.20gb", "3g.20gb"])).unwrap_err();
    assert_eq!(error, PlanError::InTheWay { instances: vec![1, 2], possible: vec![] });
    let error = plan(&geometry, &now, &using(&[2]), &all_wanted(&["3g.20gb", "3g.20gb"])).unwrap_err();
    assert_eq!(error, PlanError::InTheWay { instances: vec![2], possible: all_wanted(&["3g.20gb"]) });
    assert_eq!(error.to_string(), "GPU instance 2 is in the way and in use");
    // In use, and not wished for: it stands in the way even where there is room.
    let error = plan(&geometry, &now, &using(&[3]), &all_wanted(&["3g.20gb@0"])).unwrap_err();
    assert_eq!(error, PlanError::InTheWay { instances: vec![3], possible: all_wanted(&["3g.20gb@0"]) });
}

#[test]
fn what_cannot_be_says_why_and_what_can() {
    let geometry = model("A100-SXM4-40GB");
    let fails = |texts: &[&str]| plan(&geometry, &[], &InUse::default(), &all_wanted(texts)).unwrap_err();
    assert_eq!(
        fails(&["3g.20gb", "3g.20gb", "3g.20gb"]).to_string(),
        "3 x 3g.20gb do not fit: 12 memory slices are needed, and 8 free; 9 compute slices are needed, and 7 free; a GPU takes at most 2 of 3g.20gb, not 3"
    );
    let PlanError::DoesNotFit(misfit) = fails(&["4g.20gb", "3g.20gb", "1g.5gb"]) else { panic!() };
    assert_eq!(misfit.parts_that_fit.first(), Some(&all_wanted(&["4g.20gb", "3g.20gb"])));
    assert_eq!(
        fails(&["2g.10gb@2", "2g.10gb", "4g.20gb"]).to_string(),
        "2g.10gb@2 + 2g.10gb + 4g.20gb do not fit: 8 compute slices are needed, and 7 free"
    );
    assert_eq!(
        fails(&["3g.20gb", "2g.10gb@4", "2g.10gb@0"]).to_string(),
        "3g.20gb + 2g.10gb@4 + 2g.10gb@0 do not fit: no arrangement has room for all of them: 2g.10gb takes 2 slices from 0 or 2 or 4, 3g.20gb takes 4 slices from 0 or 4"
    );
    assert_eq!(
        fails(&["1g.5gb+me", "1g.5gb+me"]).to_string(),
        "2 x 1g.5gb+me do not fit: a GPU takes at most 1 of 1g.5gb+me, not 2; 1g.5gb+me has media engines that leave no room for 1g.5gb+me on the same GPU"
    );
    assert_eq!(fails(&["3g.20gb@2"]).to_string(), "3g.20gb cannot lie at 2; it can at 0, 4");
    assert_eq!(
        fails(&["3g.40gb"]).to_string(),
        "this GPU has no profile 3g.40gb; it has 3g.20gb, 4g.20gb, 2g.10gb, 1g.10gb, 1g.5gb, 1g.5gb+me, 7g.40gb"
    );
}

#[test]
fn media_engines_are_given_once() {
    let geometry = model("RTX-PRO-6000");
    let fits = |texts: &[&str]| plan(&geometry, &[], &InUse::default(), &all_wanted(texts)).is_ok();
    assert!(fits(&["1g.24gb+me.all", "1g.24gb-me", "2g.48gb-me"]));
    assert!(!fits(&["1g.24gb+me.all", "1g.24gb"]));
    assert!(!fits(&["1g.24gb+me.all", "1g.24gb+me"]));
    assert!(!fits(&["1g.24gb+me.all", "2g.48gb+me.all"]));
    assert!(fits(&["1g.24gb+me", "1g.24gb-me", "1g.24gb", "1g.24gb+gfx"]));
    assert!(!model("A30").profiles.is_empty());
    assert!(plan(&model("A30"), &[], &InUse::default(), &all_wanted(&["1g.6gb+me", "2g.12gb+me"])).is_err());
}

#[test]
fn compute_instances_are_cut_within_what_stays() {
    let geometry = model("A100-SXM4-40GB");
    let parts = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Profile>>();
    let mut now = cut(&geometry, &["3g.20gb@0"]);
    let wish = WantedInstance { compute: parts(&["1c.3g.20gb", "2c.3g.20gb"]), ..wanted("3g.20gb") };
    let lines = |now: &[GpuInstance], in_use: &InUse, wish: &WantedInstance| {
        let planned = plan(&geometry, now, in_use, std::slice::from_ref(wish))?;
        Ok::<_, PlanError>(planned.steps.iter().map(Step::to_string).collect::<Vec<String>>())
    };
    let uuid = "MIG-00000001-0000-0000-0000-000000000000";
    assert_eq!(
        lines(&now, &InUse::default(), &wish).unwrap(),
        [
            format!("- destroy compute instance 0 of GPU instance 1 (3g.20gb, {uuid})").as_str(),
            "+ create compute instance 2c.3g.20gb in GPU instance 1",
            "+ create compute instance 1c.3g.20gb in GPU instance 1",
        ]
    );
    // A part that is in use stays, and the rest is cut around it.
    now[0].compute_instances = vec![compute(1, 0, "1c.3g.20gb", 2, 1), compute(1, 1, "1c.3g.20gb", 1, 1)];
    let mut in_use = InUse::default();
    in_use.insert(1, Some(0));
    assert_eq!(
        lines(&now, &in_use, &wish).unwrap(),
        [
            "- destroy compute instance 1 of GPU instance 1 (1c.3g.20gb, MIG-00000001-0000-0000-0000-000000000001)",
            "+ create compute instance 2c.3g.20gb in GPU instance 1",
        ]
    );
    // Where it lies it leaves no room for two together.
    now[0].compute_instances = vec![compute(1, 0, "1c.3g.20gb", 1, 1)];
    assert!(matches!(lines(&now, &in_use, &wish), Err(PlanError::InTheWay { .. })));
    let wish = WantedInstance { compute: parts(&["2c.3g.20gb", "2c.3g.20gb"]), ..wanted("3g.20gb") };
    assert_eq!(
        lines(&[], &InUse::default(), &wish).unwrap_err().to_string(),
        "2c.3g.20gb, 2c.3g.20gb do not fit in one 3g.20gb together"
    );
}

#[test]
fn two_wishes_of_one_profile_find_the_instances_that_are_cut_as_they_want() {
    let geometry = model("A100-SXM4-40GB");
    let mut now = cut(&geometry, &["3g.20gb@0", "3g.20gb@4"]);
    now[1].compute_instances = (0..3).map(|id| compute(2, id, "1c.3g.20gb", id, 1)).collect();
    let parts = vec!["1c.3g.20gb".parse().unwrap(); 3];
    let wishes = [WantedInstance { compute: parts, ..wanted("3g.20gb") }, wanted("3g.20gb")];
    assert_eq!(plan(&geometry, &now, &InUse::default(), &wishes).unwrap().steps, []);
}

/// A GPU that nobody has made.
fn invented() -> impl Strategy<Value = Geometry> {
    let profile = (1_u32..=4, 1_u32..=5, subsequence((0..10).collect::<Vec<u32>>(), 1..=6), 1_u32..=6, 0..4_usize);
    (4_u32..=10, 2_u32..=8, prop::collection::vec(profile, 1..=4)).prop_map(|(memory, compute, profiles)| {
        let listed = profiles.into_iter().enumerate().filter_map(|(position, (slices, size, starts, most, kind))| {
            let starts = starts.into_iter().filter(|start| start + size <= memory);
            let placements: Vec<Placement> = starts.map(|start| Placement { start, size }).collect();
            let kind = ["", "+me", "-me", "+me.all"][kind];
            let profile = format!("{slices}g.{}gb{kind}", 10 + position).parse().unwrap();
            (!placements.is_empty()).then(|| InstanceProfile {
                profile,
                id: u32::try_from(position).unwrap(),
                slices,
                memory_mib: u64::from(size) * 1000,
                multiprocessors: slices * 10,
                engines: Engines::default(),
                max_instances: most,
                placements,
                compute_profiles: Vec::new(),
            })
        });
        Geometry::new(memory, compute, listed.collect()).unwrap()
    })
}

/// Some instances that can be together, by adding what fits.
pub(super) fn some_cut(geometry: &Geometry, picks: &[(Index, Index)]) -> Vec<GpuInstance> {
    let mut together: Vec<(Profile, Placement)> = Vec::new();
    for (which, where_) in picks {
        if geometry.profiles.is_empty() {
            break;
        }
        let known = which.get(&geometry.profiles);
        together.push((known.profile.clone(), *where_.get(&known.placements)));
        if !brute::legal(geometry, &together) {
            together.pop();
        }
    }
    let texts: Vec<String> = together.iter().map(|(profile, at)| format!("{profile}@{}", at.start)).collect();
    cut(geometry, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn some_wish(geometry: &Geometry, picks: &[(Index, Option<Index>)]) -> Vec<WantedInstance> {
    if geometry.profiles.is_empty() {
        return Vec::new();
    }
    let one = |(which, where_): &(Index, Option<Index>)| {
        let known = which.get(&geometry.profiles);
        let start = where_.map(|at| at.get(&known.placements).start);
        WantedInstance { start, ..WantedInstance::whole(known.profile.clone()) }
    };
    picks.iter().map(one).collect()
}

fn geometries() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        prop::sample::select(models().into_iter().map(|(_, geometry)| geometry).collect::<Vec<_>>()),
        invented()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { ..ProptestConfig::default() })]

    #[test]
    fn a_plan_destroys_the_fewest_and_never_what_is_in_use(
        geometry in geometries(),
        there in prop::collection::vec(any::<(Index, Index)>(), 0..7),
        wish in prop::collection::vec(any::<(Index, Option<Index>)>(), 0..5),
        used in any::<[bool; 7]>(),
    ) {
        let now = some_cut(&geometry, &there);
        let want = some_wish(&geometry, &wish);
        let ids: Vec<u32> = now.iter().map(|one| one.id).filter(|id| used[usize::try_from(*id - 1).unwrap()]).collect();
        let in_use = using(&ids);
        let expected = brute::fewest_destroyed(&geometry, &now, &in_use, &want);
        match plan(&geometry, &now, &in_use, &want) {
            Ok(planned) => {
                let gone = planned.steps.iter().filter(|step| matches!(step, Step::DestroyGpuInstance { .. })).count();
                prop_assert_eq!(Some(u32::try_from(gone).unwrap()), expected);
                prop_assert!(ids.iter().all(|id| planned.kept.contains(id)));
                let result = after(&geometry, &now, &planned.steps);
                let mut asked: Vec<String> = want.iter().map(|one| one.profile.to_string()).collect();
                asked.sort();
                prop_assert_eq!(names(&result), asked);
                for one in &want {
                    let met = |(profile, at): &(Profile, Placement)| {
                        *profile == one.profile && one.start.is_none_or(|start| at.start == start)
                    };
                    prop_assert!(result.iter().any(met));
                }
            }
            Err(PlanError::InTheWay { instances, possible }) => {
                prop_assert_eq!(expected, None);
                prop_assert!(brute::fits(&geometry, &[], &want));
                prop_assert!(!instances.is_empty() && instances.iter().all(|id| ids.contains(id)));
                // Without those it could be done, and with any of them it could not.
                let others: Vec<u32> = ids.iter().copied().filter(|id| !instances.contains(id)).collect();
                prop_assert!(brute::fewest_destroyed(&geometry, &now, &using(&others), &want).is_some());
                // What is said to be possible is.
                let stays: Vec<(Profile, Placement)> = now.iter().filter(|one| in_use.holds(one.id))
                    .map(|one| (one.profile.clone(), one.placement.unwrap())).collect();
                let mut new = possible.clone();
                for (profile, at) in &stays {
                    let here = |one: &WantedInstance| one.profile == *profile && one.start == Some(at.start);
                    let same = |one: &WantedInstance| one.profile == *profile && one.start.is_none();
                    if let Some(found) = new.iter().position(here).or_else(|| new.iter().position(same)) {
                        new.remove(found);
                    }
                }
                prop_assert!(brute::fits(&geometry, &stays, &new));
            }
            Err(PlanError::DoesNotFit(misfit)) => {
                prop_assert_eq!(expected, None);
                prop_assert!(!brute::fits(&geometry, &[], &want));
                prop_assert!(!misfit.reasons.is_empty());
                for part in &misfit.parts_that_fit {
                    prop_assert!(brute::fits(&geometry, &[], part));
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn what_is_placed_leaves_the_most_room_there_can_be(
        geometry in geometries(),
        there in prop::collection::vec(any::<(Index, Index)>(), 0..5),
        wish in prop::collection::vec(any::<(Index, Option<Index>)>(), 1..4),
    ) {
        let now = some_cut(&geometry, &there);
        let want = some_wish(&geometry, &wish);
        let beside: Vec<(Profile, Placement)> =
            now.iter().map(|one| (one.profile.clone(), one.placement.unwrap())).collect();
        match place(&geometry, &now, &want) {
            Ok(planned) => {
                let result = after(&geometry, &now, &planned.steps);
                prop_assert_eq!(result.len(), now.len() + want.len());
                prop_assert_eq!(planned.room.sum(), brute::room(&geometry, &result));
                prop_assert_eq!(planned.room.sum(), brute::most_room(&geometry, &beside, &want));
                prop_assert!(planned.passed_over.iter().all(|other| other.room.sum() <= planned.room.sum()));
            }
            Err(PlanError::DoesNotFit(misfit)) => {
                prop_assert!(!brute::fits(&geometry, &beside, &want));
                prop_assert!(misfit.parts_that_fit.iter().all(|part| brute::fits(&geometry, &beside, part)));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
