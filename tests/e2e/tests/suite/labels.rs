//! What the node says of its slices: a file for node-feature-discovery, or labels of the Node itself.

use anyhow::{Result, ensure};
use e2e::command::{on_the_node, run, succeed};
use e2e::namespace::Namespace;
use libtest_mimic::Trial;

use crate::chart::{ROLLED_OUT, UPGRADE, lacks, roll_back};
use crate::trial_where;

/// Of the demo scene.
const EXPECTED: [(&str, &str); 4] = [
    ("nvidia.com/mig.strategy", "mixed"),
    ("nvidia.com/mig-1g.5gb.count", "9"),
    ("nvidia.com/mig-2g.10gb.count", "1"),
    ("nvidia.com/mig-3g.20gb.count", "1"),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_where("the_feature_file_tells_of_the_slices", lacks, the_feature_file_tells_of_the_slices),
        trial_where("an_agent_that_may_labels_its_own_node", lacks, an_agent_that_may_labels_its_own_node),
    ]
}

async fn the_feature_file_tells_of_the_slices(_: &Namespace<'_>) -> Result<()> {
    let file = on_the_node("cat /etc/kubernetes/node-feature-discovery/features.d/mig-agent")?;
    for (label, value) in EXPECTED {
        ensure!(file.lines().any(|line| line == format!("{label}={value}")), "no {label}={value} in {file}");
    }
    Ok(())
}

/// Installed so, with the rights that the chart gives it then: enough for this, and for nothing else.
async fn an_agent_that_may_labels_its_own_node(test: &Namespace<'_>) -> Result<()> {
    succeed(&format!("{UPGRADE} --wait --set nodeLabels=node"))?;
    succeed(ROLLED_OUT)?;
    let outcome = async {
        for (label, value) in EXPECTED {
            test.cluster.labelled(label, value).await?;
        }
        let node = test.cluster.name();
        let stolen = "kubectl --as system:serviceaccount:mig-agent:mig-agent";
        for deed in [
            format!("label node {node} e2e=stolen"),
            format!("taint node {node} e2e=stolen:NoExecute"),
            "get secrets --all-namespaces".to_owned(),
        ] {
            let answer = run(&format!("{stolen} {deed}"))?;
            ensure!(answer.code != 0, "its account may {deed}: {answer:?}");
        }
        Ok(())
    }
    .await;
    roll_back()?;
    // As the pages say, for they stay.
    let node = test.cluster.name();
    succeed(&format!(
        "echo '{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{{\"name\":\"{node}\"}}}}' | \
         kubectl apply --server-side --field-manager=mig-agent -f -"
    ))?;
    test.cluster.all_listed_again().await?;
    outcome
}
