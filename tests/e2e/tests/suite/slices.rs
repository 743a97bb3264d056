//! Slices of the node's GPUs, as pods see them: one each, the same over restarts of everything, cut while others are held.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::cluster::kubelet_restart;
use e2e::cutting::{can_cut, migctl, restore};
use e2e::namespace::Namespace;
use e2e::pod::{Running, pod};
use libtest_mimic::Trial;

use crate::{trial_where, trials};

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = Vec::from(trials![trial:
        the_node_lists_exactly_the_scenes_slices,
        a_pod_gets_the_slice_that_it_asks_for,
        nine_pods_hold_nine_different_slices,
        a_pod_too_many_waits_and_gets_the_slice_of_a_deleted_one,
        each_container_of_a_pod_gets_its_own_slice,
        a_container_finds_both_of_two_profiles,
        a_container_gets_two_slices_of_one_profile,
        a_deleted_agent_comes_back_and_no_pod_notices,
    ]);
    let cuts = || {
        (!can_cut())
            .then_some("this cluster's GPUs can't be cut from here: E2E_MIGCTL and E2E_RESTORE_GPUS are not set")
    };
    all.push(trial_where(
        "slices_are_cut_for_pods_and_not_from_under_them",
        cuts,
        slices_are_cut_for_pods_and_not_from_under_them,
    ));
    let kills = || {
        kubelet_restart().is_none().then_some("nothing may kill this cluster's kubelet: E2E_RESTART_KUBELET is not set")
    };
    all.push(trial_where(
        "a_killed_kubelet_has_its_slices_back_and_no_pod_notices",
        kills,
        a_killed_kubelet_has_its_slices_back_and_no_pod_notices,
    ));
    all
}

async fn the_node_lists_exactly_the_scenes_slices(test: &Namespace<'_>) -> Result<()> {
    let (capacity, allocatable) = test.cluster.resources().await?;
    let expected = [
        ("nvidia.com/mig-1g.5gb".to_owned(), 9),
        ("nvidia.com/mig-2g.10gb".to_owned(), 1),
        ("nvidia.com/mig-3g.20gb".to_owned(), 1),
    ];
    ensure!(capacity == expected.clone().into(), "capacity is {capacity:?}");
    ensure!(allocatable == expected.into(), "allocatable is {allocatable:?}");
    Ok(())
}

async fn a_pod_gets_the_slice_that_it_asks_for(test: &Namespace<'_>) -> Result<()> {
    let running = test.run(pod("first", &[&[("3g.20gb", 1)]])?).await?;
    let expected = test.cluster.scene.slices_of_gpu(0, "3g.20gb");
    for variable in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "MIG_DEVICES_3G_20GB"] {
        let seen = running.variable("c0", variable)?;
        ensure!(set([seen]) == expected, "{variable} is {seen}, GPU 0 has {expected:?}");
    }
    Ok(())
}

async fn nine_pods_hold_nine_different_slices(test: &Namespace<'_>) -> Result<()> {
    let names: Vec<_> = (1..=9).map(|number| format!("pod-{number}")).collect();
    for name in &names {
        test.create_pod(pod(name, &[&[("1g.5gb", 1)]])?).await?;
    }
    let mut held = BTreeSet::new();
    for name in &names {
        let running = test.running(name).await?;
        let slice = running.slice()?.to_owned();
        ensure!(held.insert(slice.clone()), "{name} holds {slice}, which another pod holds");
    }
    let all = test.cluster.scene.slices("1g.5gb");
    ensure!(held == all, "the pods hold {held:?}, the scene has {all:?}");
    Ok(())
}

async fn a_pod_too_many_waits_and_gets_the_slice_of_a_deleted_one(test: &Namespace<'_>) -> Result<()> {
    let first = test.run(pod("first", &[&[("3g.20gb", 1)]])?).await?;
    test.create_pod(pod("second", &[&[("3g.20gb", 1)]])?).await?;
    let reason = test.unschedulable("second").await?;
    ensure!(reason.contains("Insufficient nvidia.com/mig-3g.20gb"), "the scheduler says: {reason}");
    test.delete_pod("first").await?;
    let second = test.running("second").await?;
    ensure!(second.slice()? == first.slice()?, "there is one 3g.20gb, and they had two");
    Ok(())
}

async fn each_container_of_a_pod_gets_its_own_slice(test: &Namespace<'_>) -> Result<()> {
    let running = test.run(pod("pair", &[&[("1g.5gb", 1)], &[("1g.5gb", 1)]])?).await?;
    let first = running.variable("c0", "CUDA_VISIBLE_DEVICES")?;
    let second = running.variable("c1", "CUDA_VISIBLE_DEVICES")?;
    ensure!(first != second, "both containers hold {first}");
    let all = test.cluster.scene.slices("1g.5gb");
    ensure!(set([first, second]).is_subset(&all), "they hold {first} and {second} of {all:?}");
    Ok(())
}

async fn a_container_finds_both_of_two_profiles(test: &Namespace<'_>) -> Result<()> {
    let running = test.run(pod("both", &[&[("3g.20gb", 1), ("1g.5gb", 1)]])?).await?;
    let scene = &test.cluster.scene;
    for (variable, profile) in [("MIG_DEVICES_3G_20GB", "3g.20gb"), ("MIG_DEVICES_1G_5GB", "1g.5gb")] {
        let seen = running.variable("c0", variable)?;
        let all = scene.slices(profile);
        ensure!(all.contains(seen), "{variable} is {seen}, the scene has {all:?}");
    }
    Ok(())
}

async fn a_container_gets_two_slices_of_one_profile(test: &Namespace<'_>) -> Result<()> {
    let running = test.run(pod("two", &[&[("1g.5gb", 2)]])?).await?;
    let seen = set(running.slice()?.split(','));
    let all = test.cluster.scene.slices("1g.5gb");
    ensure!(seen.len() == 2 && seen.is_subset(&all), "it holds {seen:?} of {all:?}");
    Ok(())
}

async fn a_deleted_agent_comes_back_and_no_pod_notices(test: &Namespace<'_>) -> Result<()> {
    let before = hold_some(test).await?;
    test.cluster.restart_agent().await?;
    nothing_but_the_rest_is_free(test, &before).await
}

async fn a_killed_kubelet_has_its_slices_back_and_no_pod_notices(test: &Namespace<'_>) -> Result<()> {
    let before = hold_some(test).await?;
    test.cluster.restart_kubelet().await?;
    nothing_but_the_rest_is_free(test, &before).await
}

/// GPU 0's only 3g.20gb is held; a second one is cut out of GPU 1, and a layout around it while a pod has it.
async fn slices_are_cut_for_pods_and_not_from_under_them(test: &Namespace<'_>) -> Result<()> {
    let outcome = cut_for_pods(test).await;
    // Other tests want the GPUs as they were.
    test.delete_pods().await?;
    restore()?;
    test.cluster.all_listed_again().await?;
    outcome
}

async fn cut_for_pods(test: &Namespace<'_>) -> Result<()> {
    let first = test.run(pod("first", &[&[("3g.20gb", 1)]])?).await?;
    test.create_pod(pod("second", &[&[("3g.20gb", 1)]])?).await?;
    let reason = test.unschedulable("second").await?;
    ensure!(reason.contains("Insufficient nvidia.com/mig-3g.20gb"), "the scheduler says: {reason}");

    let refused = migctl("--gpuid 0 destroy instance --all")?;
    ensure!(refused.code == 4 && refused.err.contains("/first"), "a pod's slice is not kept: {refused:?}");
    let emptied = migctl("--gpuid 1 destroy instance --all")?;
    ensure!(emptied.code == 0, "{emptied:?}");
    let created = migctl("--gpuid 1 create instance --type 3g.20gb")?;
    ensure!(created.code == 0, "{created:?}");

    let second = test.running("second").await?;
    let slice = second.slice()?;
    ensure!(created.out.contains(slice), "the second pod has {slice}, and {created:?}");

    let layout = "version: mig-agent/v1\nlayouts: { it: [{ gpus: [1], instances: [1g.5gb, 2g.10gb, 3g.20gb] }] }\n";
    let applied = migctl(&format!("apply -f - <<'END'\n{layout}END"))?;
    ensure!(applied.code == 0, "{applied:?}");
    let config = migctl("--gpuid 1 list config -o json")?;
    for expected in [slice, "\"second\"", "2g.10gb", "1g.5gb"] {
        ensure!(config.out.contains(expected), "no {expected} in {config:?}");
    }
    let third = test.run(pod("third", &[&[("2g.10gb", 2)]])?).await?;
    ensure!(third.slice()?.split(',').count() == 2, "it holds {}", third.slice()?);
    test.untouched(&first).await?;
    test.untouched(&second).await
}

/// Three pods, before something is restarted under them: the only 3g.20gb, and three of the nine 1g.5gb.
pub(crate) async fn hold_some(test: &Namespace<'_>) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for (name, profile, count) in [("large", "3g.20gb", 1), ("small", "1g.5gb", 1), ("pair", "1g.5gb", 2)] {
        running.push(test.run(pod(name, &[&[(profile, count)]])?).await?);
    }
    Ok(running)
}

/// After a restart: those pods are untouched, six more pods get the six free 1g.5gb, and nothing else is left.
pub(crate) async fn nothing_but_the_rest_is_free(test: &Namespace<'_>, before: &[Running]) -> Result<()> {
    let mut held = BTreeSet::new();
    for running in before {
        held.extend(running.slice()?.split(',').map(str::to_owned));
    }
    for number in 1..=6 {
        let running = test.run(pod(&format!("after-{number}"), &[&[("1g.5gb", 1)]])?).await?;
        let slice = running.slice()?.to_owned();
        ensure!(held.insert(slice.clone()), "a new pod got {slice}, which another one holds");
    }
    for (name, profile) in [("small-too-many", "1g.5gb"), ("large-too-many", "3g.20gb")] {
        test.create_pod(pod(name, &[&[(profile, 1)]])?).await?;
        let reason = test.unschedulable(name).await?;
        ensure!(reason.contains("Insufficient"), "the scheduler says of {name}: {reason}");
    }
    for running in before {
        test.untouched(running).await?;
    }
    Ok(())
}

fn set<'a>(values: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    values.into_iter().map(str::to_owned).collect()
}
