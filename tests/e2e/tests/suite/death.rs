//! The kubelet and the agent die under a stream of pods, on the real thing; `crates/mig-agent/tests/death_of_*.rs` do it faster and harder.
//!
//! `E2E_DEATHS` says how many (default 10).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::kubelet_restart;
use e2e::command::{on_node, on_the_node, run, succeed};
use e2e::namespace::Namespace;
use e2e::pod::pod;
use libtest_mimic::Trial;

use crate::slices::{hold_some, nothing_but_the_rest_is_free};
use crate::trial_where;

const KILL_THE_AGENT: &str = r#"for it in /proc/[0-9]*; do [ "$(cat $it/comm 2>/dev/null)" = mig-agent ] && kill -KILL "${it#/proc/}"; done; true"#;

const LOOK_AT_THE_AGENT: &str = r#"for it in /proc/[0-9]*; do
  [ "$(cat $it/comm 2>/dev/null)" = mig-agent ] || continue
  echo "${it#/proc/}" "$(ls $it/fd | wc -l)" "$(awk '/^VmRSS/{print $2}' $it/status)" "$(ls /var/lib/kubelet/device-plugins/mig-agent-*.sock | wc -l)"
done"#;

pub(crate) fn trials() -> Vec<Trial> {
    let spared = || {
        let may = kubelet_restart().is_some() && on_node().is_some();
        (!may)
            .then_some("nothing may be killed on this cluster's node: E2E_RESTART_KUBELET and E2E_ON_NODE are not set")
    };
    // A kubelet that loses its checkpoint and is started anew before it has written another forgets who holds what: now and
    // then a container is made without its devices, which no plugin can help.
    let rare = || {
        let wanted = std::env::var_os("E2E_DEATHS").is_some() && kubelet_restart().is_some() && on_node().is_some();
        (!wanted).then_some("the kubelet itself may lose a container's devices here: only with E2E_DEATHS")
    };
    vec![
        trial_where("kubelet_and_agent_die_again_and_again_and_no_pod_notices", spared, die_again_and_again),
        trial_where("kubelets_come_and_go_and_the_agent_holds_no_more", spared, nothing_is_left_behind),
        trial_where("the_kubelets_directory_is_deleted_and_made_anew", rare, the_directory_is_made_anew),
    ]
}

async fn die_again_and_again(test: &Namespace<'_>) -> Result<()> {
    let deaths: usize = match std::env::var("E2E_DEATHS") {
        Ok(number) => number.parse().context("E2E_DEATHS is no number")?,
        Err(_) => 10,
    };
    let restart = kubelet_restart().context("E2E_RESTART_KUBELET is not set")?;
    let before = hold_some(test).await?;
    let mut held = BTreeSet::new();
    for running in &before {
        held.extend(running.slice()?.split(',').map(str::to_owned));
    }
    for death in 0..deaths {
        // Whatever is to die has this one's allocation under way, or is just done with it, or has not heard of it.
        let victim = format!("victim-{death}");
        test.create_pod(pod(&victim, &[&[("1g.5gb", 2)]])?).await?;
        match death % 5 {
            1 => on_the_node(KILL_THE_AGENT).map(drop)?,
            3 => on_the_node("rm /var/lib/kubelet/device-plugins/mig-agent-*.sock").map(drop)?,
            // Once for a minute.
            4 => succeed(&format!("E2E_KUBELET_AWAY={} {restart}", if death == 4 { 60 } else { 10 })).map(drop)?,
            _ => succeed(&restart).map(drop)?,
        }
        test.cluster.all_listed_again().await?;
        let name = format!("after-death-{death}");
        let running =
            test.run(pod(&name, &[&[("1g.5gb", 1)]])?).await.with_context(|| format!("after death {death}"))?;
        let slice = running.slice()?;
        ensure!(!held.contains(slice), "{name} was given {slice}, which an older pod holds");
        // The victim may have been refused; if it runs, it has slices of its own.
        if let Ok(victim) = test.running_now(&victim).await {
            for of_victim in victim.slice()?.split(',') {
                ensure!(of_victim != slice && !held.contains(of_victim), "death {death}: {of_victim} is held twice");
            }
        }
        for running in &before {
            test.untouched(running).await?;
        }
        test.delete_pod(&name).await?;
        test.delete_pod(&victim).await?;
    }
    nothing_but_the_rest_is_free(test, &before).await
}

/// Kubelets come and go, and the agent holds no more than before.
async fn nothing_is_left_behind(test: &Namespace<'_>) -> Result<()> {
    let restart = kubelet_restart().context("E2E_RESTART_KUBELET is not set")?;
    // A kubelet that has just started believes its checkpoint, which has the pods of an earlier test until the next Allocate.
    test.run(pod("first", &[&[("1g.5gb", 1)]])?).await?;
    test.delete_pod("first").await?;
    let mut footprints = Vec::new();
    for round in 0..4 {
        succeed(&restart)?;
        test.cluster.all_listed_again().await?;
        let name = format!("pod-{round}");
        test.run(pod(&name, &[&[("1g.5gb", 1)]])?).await?;
        test.delete_pod(&name).await?;
        footprints.push(Footprint::now()?);
    }
    let (first, last) = (&footprints[0], &footprints[3]);
    ensure!(last.process == first.process, "the agent was restarted: {footprints:?}");
    // Some of it comes and goes: a connection that is just used, a list that is just sent.
    let is_kept = last.descriptors <= first.descriptors + 2 && last.resident_kib <= first.resident_kib + 2048;
    ensure!(is_kept && last.sockets == first.sockets, "{footprints:?}");
    Ok(())
}

/// What the agent's process holds on the node.
#[derive(Debug)]
struct Footprint {
    process: u32,
    descriptors: usize,
    resident_kib: u64,
    /// In the kubelet's directory.
    sockets: usize,
}

impl Footprint {
    fn now() -> Result<Self> {
        let told = on_the_node(LOOK_AT_THE_AGENT)?;
        let numbers = told.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
        let numbers = numbers.with_context(|| format!("the node told {told:?}"))?;
        let [process, descriptors, resident_kib, sockets] = numbers[..] else { bail!("the node told {told:?}") };
        let (process, descriptors, sockets) =
            (process.try_into()?, usize::try_from(descriptors)?, usize::try_from(sockets)?);
        Ok(Self { process, descriptors, resident_kib, sockets })
    }
}

/// The kubelet's record of who has what goes with it, so nobody has anything.
async fn the_directory_is_made_anew(test: &Namespace<'_>) -> Result<()> {
    on_the_node("rm -r /var/lib/kubelet/device-plugins && mkdir /var/lib/kubelet/device-plugins")?;
    let restart = kubelet_restart().context("E2E_RESTART_KUBELET is not set")?;
    let answer = run(&restart)?;
    ensure!(answer.code == 0, "{answer:?}");
    test.cluster.all_listed_again().await?;
    let running = test.run(pod("first", &[&[("3g.20gb", 1)]])?).await?;
    ensure!(test.cluster.scene.slices("3g.20gb").contains(running.slice()?), "it holds {}", running.slice()?);
    Ok(())
}
