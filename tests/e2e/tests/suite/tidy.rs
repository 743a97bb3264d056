//! Names of resources that are gone leave the node's status. The kubelet keeps a plugin's devices for five minutes after it went.

use anyhow::{Context, Result, ensure};
use e2e::command::succeed;
use e2e::cutting::{can_cut, migctl, restore};
use e2e::namespace::Namespace;
use e2e::pod::pod;
use libtest_mimic::Trial;

use crate::chart::{ROLLED_OUT, UPGRADE, lacks, roll_back};
use crate::trial_where;

const GONE: &str = "nvidia.com/mig-2g.10gb";
const HELD: &str = "nvidia.com/mig-3g.20gb";

pub(crate) fn trials() -> Vec<Trial> {
    let rare = || {
        let wanted = std::env::var_os("E2E_SLOW").is_some() && can_cut() && lacks().is_none();
        (!wanted).then_some("takes seven minutes, and cuts GPUs: only with E2E_SLOW")
    };
    vec![trial_where("the_name_of_a_resource_that_is_gone_leaves_the_nodes_status", rare, the_name_leaves)]
}

async fn the_name_leaves(test: &Namespace<'_>) -> Result<()> {
    succeed(&format!("{UPGRADE} --wait --set tidyNodeStatus=true,extraArgs={{--tidy-node-status-after=10s}}"))?;
    succeed(ROLLED_OUT)?;
    let outcome = leaves(test).await;
    test.delete_pods().await?;
    restore()?;
    roll_back()?;
    test.cluster.all_listed_again().await?;
    outcome
}

async fn leaves(test: &Namespace<'_>) -> Result<()> {
    test.cluster.all_listed_again().await?;
    let held = test.run(pod("held", &[&[("3g.20gb", 1)]])?).await?;
    let slices = test.cluster.scene.slices_of_gpu(0, "2g.10gb");
    let slice = slices.first().context("the scene has no 2g.10gb")?;
    let answer = migctl(&format!("--gpuid 0 destroy instance --uuid {slice}"))?;
    ensure!(answer.code == 0, "{answer:?}");
    let names = test.cluster.without(GONE).await?;
    ensure!(names.iter().any(|name| name == HELD), "{HELD} is gone, too: {names:?}");
    test.untouched(&held).await?;
    // It comes back as if nothing had been.
    restore()?;
    test.cluster.all_listed_again().await
}
