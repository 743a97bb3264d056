//! The kubelet and the agent die under a stream of pods, on the real thing; `crates/mig-agent/tests/death_of_*.rs` do it faster and harder.
//!
//! `E2E_DEATHS` says how many (default 10).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::cluster::kubelet_restart;
use e2e::command::{on_node, on_the_node, run, succeed};
use e2e::namespace::Namespace;
use e2e::pod::pod;
use libtest_mimic::Trial;

use crate::slices::{hold_some, nothing_but_the_rest_is_free};
use crate::trial_where;

const KILL_THE_AGENT: &str = r#"for it in /proc/[0-9]*; do [ "$(cat $it/comm 2>/dev/null)" = mig-agent ] && kill -KILL "${it#/proc/}"; done; true"#;

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
            4 => succeed(&format!("E2E_KUBELET_AWAY=10 {restart}")).map(drop)?,
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
