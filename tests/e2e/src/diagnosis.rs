//! What a person needs to see when a test has failed, taken before its pods are deleted.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, ListParams, LogParams};

use crate::cluster::{AGENT_LABEL, AGENT_NAMESPACE, Cluster};
use crate::namespace::Namespace;

impl Namespace<'_> {
    /// The node, the test's pods and events, and the agent's last words. What can't be read is said in its place.
    pub async fn diagnosis(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.describe(&mut text).await;
        text
    }

    async fn describe(&self, text: &mut String) -> std::fmt::Result {
        let Cluster { client, node, .. } = self.cluster;
        writeln!(text, "node {node}:")?;
        match Api::<Node>::all(client.clone()).get(node).await {
            Ok(node) => {
                let status = node.status.unwrap_or_default();
                writeln!(text, "  capacity {}", list(status.capacity))?;
                writeln!(text, "  allocatable {}", list(status.allocatable))?;
                for it in status.conditions.into_iter().flatten() {
                    writeln!(text, "  {}", words([Some(it.type_), Some(it.status), it.message]))?;
                }
            }
            Err(error) => writeln!(text, "  {error}")?,
        }
        writeln!(text, "pods of {}:", self.name)?;
        match self.pods.list(&ListParams::default()).await {
            Ok(pods) => {
                for pod in pods {
                    let name = pod.name_any();
                    let status = pod.status.unwrap_or_default();
                    writeln!(text, "  {}", words([Some(name), status.phase, status.reason, status.message]))?;
                }
            }
            Err(error) => writeln!(text, "  {error}")?,
        }
        writeln!(text, "events of {}:", self.name)?;
        let events: Api<Event> = Api::namespaced(client.clone(), &self.name);
        match events.list(&ListParams::default()).await {
            Ok(events) => {
                for event in events {
                    writeln!(text, "  {}", words([event.involved_object.name, event.reason, event.message]))?;
                }
            }
            Err(error) => writeln!(text, "  {error}")?,
        }
        let agents: Api<Pod> = Api::namespaced(client.clone(), AGENT_NAMESPACE);
        match agents.list(&ListParams::default().labels(AGENT_LABEL)).await {
            Ok(pods) => {
                for pod in pods {
                    let name = pod.name_any();
                    writeln!(text, "the last lines of the agent {name}:")?;
                    let tail = LogParams { tail_lines: Some(40), ..LogParams::default() };
                    match agents.logs(&name, &tail).await {
                        Ok(log) => writeln!(text, "{log}")?,
                        Err(error) => writeln!(text, "  {error}")?,
                    }
                }
            }
            Err(error) => writeln!(text, "the agent: {error}")?,
        }
        Ok(())
    }
}

fn words<const N: usize>(words: [Option<String>; N]) -> String {
    words.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn list(resources: Option<BTreeMap<String, Quantity>>) -> String {
    let resources = resources.into_iter().flatten();
    resources.map(|(name, quantity)| format!("{name}: {}", quantity.0)).collect::<Vec<_>>().join(", ")
}
