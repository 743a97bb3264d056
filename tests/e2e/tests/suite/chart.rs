//! The charts on a cluster: upgraded and rolled back under running pods, tested, taken away, and what they refuse.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::command::{on_node, on_the_node, run, succeed};
use e2e::namespace::Namespace;
use e2e::pod::pod;
use libtest_mimic::Trial;

use crate::slices::{hold_some, nothing_but_the_rest_is_free};
use crate::trial_where;

/// What the suite installed, changed by what follows.
pub(crate) const UPGRADE: &str =
    "helm --namespace mig-agent upgrade mig-agent charts/mig-agent --reuse-values --timeout 90s";
/// helm's --wait takes a DaemonSet for ready while as many pods are missing as an update may take away: on one node, all.
pub(crate) const ROLLED_OUT: &str = "kubectl --namespace mig-agent rollout status daemonset/mig-agent --timeout 90s";

/// Back to what the suite installed.
pub(crate) fn roll_back() -> Result<()> {
    succeed("helm --namespace mig-agent rollback mig-agent --wait --timeout 90s")?;
    succeed(ROLLED_OUT).map(|_| ())
}

/// Why tests that change the installation can't be run, where they can't.
pub(crate) fn lacks() -> Option<&'static str> {
    let installed = std::env::var_os("E2E_INSTALL_AGENT").is_some() && on_node().is_some();
    (!installed).then_some("the charts were not installed by the suite: E2E_INSTALL_AGENT and E2E_ON_NODE are not set")
}

pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($test:ident),* $(,)?) => { vec![$(trial_where(stringify!($test), lacks, $test)),*] };
    }
    trials![
        an_upgrade_and_a_rollback_touch_no_pod,
        helm_test_passes,
        every_golden_rendering_is_accepted_by_the_api_server,
        another_scene_changes_the_node_under_the_agent,
        a_driver_root_that_is_not_there_is_named,
        two_agents_take_over_from_one_another_and_no_pod_notices,
        a_second_release_on_the_node_is_refused_and_named,
        after_uninstalling_nothing_is_left_but_what_the_pages_say,
    ]
}

async fn an_upgrade_and_a_rollback_touch_no_pod(test: &Namespace<'_>) -> Result<()> {
    let before = hold_some(test).await?;
    let agent = test.cluster.agent().await?.metadata.uid;
    succeed(&format!("{UPGRADE} --wait --set podAnnotations.e2e=upgraded"))?;
    succeed(ROLLED_OUT)?;
    test.cluster.all_listed_again().await?;
    let upgraded = test.cluster.agent().await?.metadata;
    ensure!(upgraded.uid != agent, "the agent was not replaced");
    ensure!(
        upgraded.annotations.unwrap_or_default().get("e2e").map(String::as_str) == Some("upgraded"),
        "its annotation"
    );
    nothing_but_the_rest_is_free(test, &before).await?;
    roll_back()?;
    let back = test.cluster.agent().await?.metadata;
    ensure!(
        back.uid != upgraded.uid && !back.annotations.unwrap_or_default().contains_key("e2e"),
        "it was not rolled back"
    );
    test.cluster.all_listed_again().await?;
    for running in &before {
        test.untouched(running).await?;
    }
    Ok(())
}

async fn helm_test_passes(_: &Namespace<'_>) -> Result<()> {
    succeed("helm --namespace mig-agent test mig-agent --timeout 90s").map(|_| ())
}

/// The files that tests/chart holds the rendered charts against, one for each mode; and the plain manifests.
async fn every_golden_rendering_is_accepted_by_the_api_server(_: &Namespace<'_>) -> Result<()> {
    // In a namespace where nothing is called the same.
    succeed("kubectl create namespace golden")?;
    let class = "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: nvidia}\nhandler: runc\n";
    succeed(&format!("printf '{class}' | kubectl apply -f -"))?;
    let outcome = goldens_are_accepted();
    succeed("kubectl delete namespace golden --wait=false && kubectl delete runtimeclass nvidia")?;
    outcome
}

fn goldens_are_accepted() -> Result<()> {
    let files = succeed("grep -l '^kind: DaemonSet' tests/chart/snapshots/*.yaml deploy/*.yaml")?;
    for file in files.lines() {
        // A pod's account is looked up even in a dry run.
        let accounts = succeed(&format!("sed -n 's/^ *serviceAccountName: //p' {file} | tr -d '\"' | sort -u"))?;
        for account in accounts.lines().filter(|account| *account != "default") {
            let exists = run(&format!("kubectl --namespace golden get serviceaccount {account}"))?.code == 0;
            if !exists {
                succeed(&format!("kubectl --namespace golden create serviceaccount {account}"))?;
            }
        }
        let elsewhere = format!("sed 's/^\\( *namespace: \\).*/\\1golden/' {file}");
        let answer = run(&format!("{elsewhere} | kubectl apply --dry-run=server --server-side -f -"))?;
        // Kinds of the Prometheus operator, which is not here, can't be judged here.
        let complaints = answer.err.lines().filter(|line| {
            let foreign = line.contains("monitoring.coreos.com") || line.contains("ensure CRDs are installed first");
            !(foreign || line.starts_with("Warning:") || line.is_empty())
        });
        let complaints: Vec<_> = complaints.collect();
        ensure!(complaints.is_empty() && answer.out.contains("daemonset.apps/"), "{file}: {answer:?}");
    }
    Ok(())
}

/// The fake driver's own chart: its value changes, its pod is replaced, and the node's GPUs are others, under an agent that stays.
async fn another_scene_changes_the_node_under_the_agent(test: &Namespace<'_>) -> Result<()> {
    let agent = test.cluster.agent().await?.metadata.uid;
    let fake = "helm --namespace fake-nvml";
    let outcome = async {
        succeed(&format!(
            "{fake} upgrade fake-nvml charts/fake-nvml --reuse-values --wait --timeout 90s --set scene=a30"
        ))?;
        let expected = [("1g.6gb", 2), ("2g.12gb.me", 1), ("4g.24gb", 1)];
        let expected = expected.map(|(profile, count)| (format!("nvidia.com/mig-{profile}"), count));
        test.cluster.lists(&BTreeMap::from(expected)).await?;
        let running = test.run(pod("other", &[&[("4g.24gb", 1)]])?).await?;
        ensure!(running.slice()?.starts_with("MIG-"), "it holds {}", running.slice()?);
        let refused = run(&format!("{fake} upgrade fake-nvml charts/fake-nvml --reuse-values --set scene=nonesuch"))?;
        ensure!(refused.code != 0 && refused.err.contains("there are a30, demo"), "{refused:?}");
        test.delete_pods().await
    }
    .await;
    succeed(&format!(
        "{fake} upgrade fake-nvml charts/fake-nvml --reuse-values --wait --timeout 90s --set scene=demo"
    ))?;
    test.cluster.all_listed_again().await?;
    ensure!(test.cluster.agent().await?.metadata.uid == agent, "the agent was replaced");
    outcome
}

async fn a_driver_root_that_is_not_there_is_named(test: &Namespace<'_>) -> Result<()> {
    succeed(&format!("{UPGRADE} --set nvidiaDriverRoot=/var/lib/nowhere"))?;
    let told = test.cluster.told_of_agent("/var/lib/nowhere is not a directory").await;
    roll_back()?;
    test.cluster.all_listed_again().await?;
    told
}

/// An upgrade with `maxSurge: 1`, as a second release does it: the old agent goes while the new one waits.
async fn two_agents_take_over_from_one_another_and_no_pod_notices(test: &Namespace<'_>) -> Result<()> {
    let install = "helm --namespace newer install newer charts/mig-agent --create-namespace --set nvidiaDriverRoot=/var/lib/fake-nvml";
    let before = hold_some(test).await?;
    succeed(&format!("{install} --set allowOtherPlugins=true"))?;
    let outcome = async {
        test.cluster.unready_for("another mig-agent serves").await?;
        let first = test.cluster.agent().await?.metadata.name.unwrap_or_default();
        // What takes its place waits in its turn.
        succeed(&format!("kubectl --namespace mig-agent delete pod {first} --wait --timeout 60s"))?;
        succeed("kubectl --namespace newer rollout status daemonset --timeout 90s")?;
        test.cluster.all_listed_again().await?;
        let meanwhile = test.run(pod("meanwhile", &[&[("1g.5gb", 1)]])?).await?;
        for running in &before {
            ensure!(!running.slice()?.contains(meanwhile.slice()?), "{} is held twice", meanwhile.slice()?);
            test.untouched(running).await?;
        }
        test.delete_pod("meanwhile").await
    }
    .await;
    succeed("helm --namespace newer uninstall newer --wait --timeout 90s")?;
    succeed("kubectl delete namespace newer --wait=false")?;
    outcome?;
    succeed("kubectl --namespace mig-agent rollout status daemonset --timeout 90s")?;
    test.cluster.all_listed_again().await?;
    nothing_but_the_rest_is_free(test, &before).await
}

/// By the chart, which looks for others that offer the same resources; by the agent where that was switched off.
async fn a_second_release_on_the_node_is_refused_and_named(test: &Namespace<'_>) -> Result<()> {
    let install = "helm --namespace second install second charts/mig-agent --create-namespace";
    let refused = run(&format!("{install} --set nvidiaDriverRoot=/var/lib/fake-nvml"))?;
    let expected = "DaemonSet mig-agent in namespace mig-agent offers nvidia.com resources already";
    ensure!(refused.code != 0 && refused.err.contains(expected), "{refused:?}");
    succeed(&format!("{install} --set nvidiaDriverRoot=/var/lib/fake-nvml --set allowOtherPlugins=true"))?;
    let told = test.cluster.unready_for("another mig-agent serves").await;
    succeed("helm --namespace second uninstall second --wait --timeout 90s")?;
    succeed("kubectl delete namespace second --wait=false")?;
    test.cluster.all_listed_again().await?;
    told
}

async fn after_uninstalling_nothing_is_left_but_what_the_pages_say(test: &Namespace<'_>) -> Result<()> {
    let install = std::env::var("E2E_INSTALL_AGENT").context("E2E_INSTALL_AGENT is not set")?;
    let labels = "kubectl get nodes -o jsonpath={.items[*].metadata.labels}";
    let held = test.run(pod("held", &[&[("3g.20gb", 1)]])?).await?;
    let outcome = async {
        ensure!(!of_the_agent()?.is_empty(), "there is nothing to go");
        succeed("helm --namespace mig-agent uninstall mig-agent --wait --timeout 90s")?;
        test.cluster.nothing_allocatable().await?;
        // Helm waits for the DaemonSet to be gone; its pod may take a moment more.
        succeed("kubectl --namespace mig-agent wait pod --for=delete --selector app.kubernetes.io/instance=mig-agent --timeout 60s || true")?;
        let left = succeed(
            "kubectl get $(kubectl api-resources --verbs=list -o name | grep -v -e ^events -e metrics | paste -sd,) \
             --all-namespaces --ignore-not-found --selector app.kubernetes.io/instance=mig-agent -o name",
        )?;
        ensure!(left.trim().is_empty(), "the cluster still has {left}");
        let left = of_the_agent()?;
        ensure!(left.is_empty(), "the node still has {left:?}");
        ensure!(!succeed(labels)?.contains("mig.strategy"), "the node's labels: {}", succeed(labels)?);
        // Who had a slice goes on.
        test.untouched(&held).await
    }
    .await;
    let installed = succeed(&install);
    test.delete_pods().await?;
    outcome?;
    installed?;
    test.cluster.all_listed_again().await
}

/// The agent's files in the node's folders that it can write to.
fn of_the_agent() -> Result<Vec<String>> {
    let folders = "/var/lib/kubelet/device-plugins /etc/kubernetes/node-feature-discovery/features.d /var/run/cdi";
    let found = on_the_node(&format!("find {folders} -mindepth 1 2>/dev/null; true"))?;
    let kubelets = ["/kubelet.sock", "/kubelet_internal_checkpoint", "/DEPRECATION"];
    Ok(found.lines().filter(|path| !kubelets.iter().any(|name| path.ends_with(name))).map(str::to_owned).collect())
}
