//! The configuration that a node's label chooses, among those of the chart.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use e2e::command::succeed;
use e2e::namespace::Namespace;
use e2e::pod::pod;
use k8s_openapi::api::core::v1::Pod;
use libtest_mimic::Trial;

use crate::chart::{ROLLED_OUT, UPGRADE, lacks, roll_back};
use crate::trial_where;

const LABEL: &str = "nvidia.com/device-plugin.config";
/// Each small slice for four containers; or the large one under another name.
const VALUES: &str = "\
config:
  map:
    default: |
      version: v1
    shared: |
      version: v1
      sharing:
        timeSlicing:
          renameByDefault: true
          resources: [{name: nvidia.com/mig-1g.5gb, replicas: 4}]
    renamed: |
      version: v1
      resources: {mig: [{pattern: 3g.20gb, name: nvidia.com/large}]}
";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial_where("the_nodes_label_chooses_its_configuration", lacks, the_nodes_label_chooses_its_configuration)]
}

async fn the_nodes_label_chooses_its_configuration(test: &Namespace<'_>) -> Result<()> {
    succeed(&format!("printf '%s' '{VALUES}' | {UPGRADE} --wait --values -"))?;
    succeed(ROLLED_OUT)?;
    let outcome = chosen_by_label(test).await;
    test.delete_pods().await?;
    label(test, &format!("{LABEL}-"))?;
    roll_back()?;
    test.cluster.all_listed_again().await?;
    outcome
}

async fn chosen_by_label(test: &Namespace<'_>) -> Result<()> {
    // The rights that the chart gives it are enough, or nothing would be offered.
    test.cluster.all_listed_again().await?;
    let agent = process(&test.cluster.agent().await?);
    let held = test.run(pod("held", &[&[("2g.10gb", 1)]])?).await?;

    label(test, &format!("{LABEL}=shared"))?;
    lists(test, &[("mig-1g.5gb.shared", 36), ("mig-2g.10gb", 1), ("mig-3g.20gb", 1)]).await?;
    let running = test.run(pod("shares", &[&[("1g.5gb.shared", 1)]])?).await?;
    ensure!(running.slice()?.starts_with("MIG-"), "it holds {}", running.slice()?);
    test.untouched(&held).await?;

    // A name that no file has changes nothing, and is told.
    label(test, &format!("{LABEL}=nonesuch"))?;
    test.cluster.agent_says("the node's label names").await?;
    lists(test, &[("mig-1g.5gb.shared", 36), ("mig-2g.10gb", 1), ("mig-3g.20gb", 1)]).await?;

    // Nobody gets the slice whole of which a pod has a share.
    label(test, &format!("{LABEL}=renamed"))?;
    lists(test, &[("mig-1g.5gb", 8), ("mig-2g.10gb", 1), ("large", 1)]).await?;
    test.untouched(&held).await?;
    test.untouched(&running).await?;
    test.delete_pods().await?;
    lists(test, &[("mig-1g.5gb", 9), ("mig-2g.10gb", 1), ("large", 1)]).await?;
    label(test, &format!("{LABEL}-"))?;
    test.cluster.all_listed_again().await?;
    let now = process(&test.cluster.agent().await?);
    ensure!(now == agent, "the agent was replaced or restarted: {agent:?} is {now:?} now");
    let log = test.cluster.agent_log()?;
    ensure!(!log.contains("unable to watch"), "it asked again and again, instead of watching: {log}");
    Ok(())
}

/// Which one of an agent's processes it is: its pod, and how often its containers were started anew.
fn process(agent: &Pod) -> (Option<String>, i32) {
    let containers = agent.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    (agent.metadata.uid.clone(), containers.map(|container| container.restart_count).sum())
}

fn label(test: &Namespace<'_>, change: &str) -> Result<()> {
    succeed(&format!("kubectl label node {} {change} --overwrite", test.cluster.name())).map(|_| ())
}

async fn lists(test: &Namespace<'_>, expected: &[(&str, u64)]) -> Result<()> {
    let expected = expected.iter().map(|(name, count)| (format!("nvidia.com/{name}"), *count));
    test.cluster.lists(&expected.collect::<BTreeMap<_, _>>()).await
}
