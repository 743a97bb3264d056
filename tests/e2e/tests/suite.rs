//! The end-to-end suite: real pods on a real Kubernetes, whose node has the slices of `tests/scenes/demo.yaml`.
//!
//! GPU 0 is cut into 3g.20gb + 2g.10gb + 2x 1g.5gb, GPU 1 into 7x 1g.5gb. Run it with `make e2e`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, kubelet_restart};
use e2e::cutting::{can_cut, migctl, restore};
use e2e::namespace::Namespace;
use e2e::pod::{Running, pod};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// One trial for each test, by its function's name.
macro_rules! trials {
    ($run:ident: $($test:ident),* $(,)?) => { [$($run(stringify!($test), $test)),*] };
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(trials![trial:
        the_node_lists_exactly_the_scenes_slices,
        a_pod_gets_the_slice_that_it_asks_for,
        nine_pods_hold_nine_different_slices,
        a_pod_too_many_waits_and_gets_the_slice_of_a_deleted_one,
        each_container_of_a_pod_gets_its_own_slice,
        a_container_finds_both_of_two_profiles,
        a_container_gets_two_slices_of_one_profile,
        a_deleted_agent_comes_back_and_no_pod_notices,
    ]);
    trials.extend(trials![trial_that_cuts:
        slices_are_cut_for_pods_and_not_from_under_them,
    ]);
    trials.extend(trials![trial_that_kills_the_kubelet:
        a_killed_kubelet_has_its_slices_back_and_no_pod_notices,
    ]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
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
async fn hold_some(test: &Namespace<'_>) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for (name, profile, count) in [("large", "3g.20gb", 1), ("small", "1g.5gb", 1), ("pair", "1g.5gb", 2)] {
        running.push(test.run(pod(name, &[&[(profile, count)]])?).await?);
    }
    Ok(running)
}

/// After a restart: those pods are untouched, six more pods get the six free 1g.5gb, and nothing else is left.
async fn nothing_but_the_rest_is_free(test: &Namespace<'_>, before: &[Running]) -> Result<()> {
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

fn trial<T>(name: &str, test: T) -> Trial
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()> + Send + 'static,
{
    Trial::test(name, move || Ok(on_cluster(test)?))
}

fn trial_that_cuts<T>(name: &str, test: T) -> Trial
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        if !can_cut() {
            let reason = "this cluster's GPUs can't be cut from here: E2E_MIGCTL and E2E_RESTORE_GPUS are not set";
            return Ok(Completion::ignored_with(reason));
        }
        on_cluster(test)?;
        Ok(Completion::Completed)
    })
}

fn trial_that_kills_the_kubelet<T>(name: &str, test: T) -> Trial
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        if kubelet_restart().is_none() {
            let reason = "nothing may kill this cluster's kubelet: E2E_RESTART_KUBELET is not set";
            return Ok(Completion::ignored_with(reason));
        }
        on_cluster(test)?;
        Ok(Completion::Completed)
    })
}

/// Runs a test in a namespace of its own, on a cluster where every slice is free.
fn on_cluster<T>(test: T) -> Result<(), Failure>
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()>,
{
    let outcome = async {
        let cluster = Cluster::take().await?;
        let namespace = Namespace::create(&cluster).await?;
        let outcome = test(&namespace).await;
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(namespace.diagnosis().await)),
        };
        let cleaned = namespace.delete().await;
        outcome.and(cleaned)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start a runtime");
    runtime.and_then(|runtime| runtime.block_on(outcome)).map_err(Failure)
}

/// The message of a failed test: the error first, what the cluster looked like after it.
struct Failure(anyhow::Error);

impl From<Failure> for Failed {
    fn from(Failure(error): Failure) -> Self {
        let mut lines: Vec<_> = error.chain().map(ToString::to_string).collect();
        lines.reverse();
        lines.join("\n").into()
    }
}
