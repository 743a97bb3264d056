//! The cluster, its one node with slices, and the agent on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::scene::Scene;
use crate::wait::{Look, wait_for};

/// Where `deploy/` puts the agent.
pub(crate) const AGENT_NAMESPACE: &str = "mig-agent";
pub(crate) const AGENT_LABEL: &str = "app.kubernetes.io/name=mig-agent";

/// How long the node may take to have its resources: a kubelet reports every 1 to 10 s, a pod's image is there.
const SETTLED: Duration = Duration::from_secs(60);

/// How long until a slice that is gone is no longer listed: the agent waits until it is sure that no pod has it, twelve
/// settle times (5 s each) after it met its kubelet.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// That, then the kubelet's five minutes for a plugin to come back, and the agent's own looks.
const TIDIED: Duration = Duration::from_secs(600);

/// A cluster that nobody else uses while this value lives.
pub struct Cluster {
    pub(crate) client: Client,
    /// The node that the agent runs on.
    pub(crate) node: String,
    /// What its GPUs hold.
    pub scene: Scene,
    // All tests share the node's slices, and some kill its kubelet: one at a time, also among processes.
    _turn: File,
}

impl Cluster {
    /// Waits for its turn, then until the agent is ready and every slice of the scene is free.
    ///
    /// # Errors
    /// When there is no cluster, or it does not become so in time.
    pub async fn take() -> Result<Self> {
        let scene = Scene::read()?;
        let path = std::env::temp_dir().join("mig-agent-e2e.lock");
        let turn = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        turn.lock().with_context(|| format!("failed to lock {}", path.display()))?;
        let client = Client::try_default().await.context("failed to find the cluster (is KUBECONFIG set?)")?;
        let mut cluster = Self { client, node: String::new(), scene, _turn: turn };
        let agent = cluster.ready_agent(None).await?;
        cluster.node = agent.spec.and_then(|spec| spec.node_name).context("the agent's pod is ready on no node")?;
        cluster.all_listed_since(Timestamp::UNIX_EPOCH).await?;
        cluster.nobody_holds_a_slice().await?;
        Ok(cluster)
    }

    /// What a container needs to be started on this cluster's node.
    pub(crate) fn place(&self, pod: &mut Pod) {
        if let Some(spec) = &mut pod.spec {
            let name = ("kubernetes.io/hostname".to_owned(), self.node.clone());
            spec.node_selector = Some(BTreeMap::from([name]));
        }
    }

    /// The node's `nvidia.com/` resources: capacity and allocatable. The kubelet keeps the name of a resource that is no more, at
    /// zero: such are left out.
    ///
    /// # Errors
    /// When the node can't be read.
    pub async fn resources(&self) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>)> {
        let status = self.node().await?.status.unwrap_or_default();
        Ok((ours(status.capacity), ours(status.allocatable)))
    }

    /// Waits until a resource's name is neither in the node's capacity nor in what is allocatable of it, and gives the names that
    /// are.
    ///
    /// # Errors
    /// When it is there for too long.
    pub async fn without(&self, resource: &str) -> Result<Vec<String>> {
        wait_for(&format!("{resource} to leave the node's status"), TIDIED, async || {
            let status = self.node().await?.status.unwrap_or_default();
            let lists = [status.capacity, status.allocatable].into_iter().flatten();
            let names: Vec<String> = lists.flat_map(BTreeMap::into_keys).collect();
            let is_there = names.iter().any(|name| name == resource);
            Ok(if is_there { Look::Instead(format!("there are {names:?}")) } else { Look::Found(names) })
        })
        .await
    }

    /// Waits until the node has no slice to give.
    ///
    /// # Errors
    /// When it has some for too long.
    pub async fn nothing_allocatable(&self) -> Result<()> {
        wait_for("the node to have no slice to give", SETTLED, async || {
            let (_, allocatable) = self.resources().await?;
            Ok(if allocatable.is_empty() {
                Look::Found(())
            } else {
                Look::Instead(format!("allocatable is {allocatable:?}"))
            })
        })
        .await
    }

    /// Waits until the node lists exactly this many of each resource, and no other, as allocatable.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn lists(&self, expected: &BTreeMap<String, u64>) -> Result<()> {
        wait_for(&format!("the node to list {expected:?}"), FORGOTTEN, async || {
            let (_, allocatable) = self.resources().await?;
            Ok(if allocatable == *expected {
                Look::Found(())
            } else {
                Look::Instead(format!("allocatable is {allocatable:?}"))
            })
        })
        .await
    }

    /// Waits until the node's own report, made after `since`, lists exactly the scene's slices.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn all_listed_since(&self, since: Timestamp) -> Result<()> {
        self.all_listed_within(since, SETTLED).await
    }

    /// The same, after GPUs were cut otherwise.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn all_listed_again(&self) -> Result<()> {
        self.all_listed_within(Timestamp::now(), FORGOTTEN).await
    }

    async fn all_listed_within(&self, since: Timestamp, time: Duration) -> Result<()> {
        let expected = self.scene.resources();
        wait_for("the node to list the scene's slices", time, async || {
            let status = self.node().await?.status.unwrap_or_default();
            let ready = status.conditions.into_iter().flatten().find(|condition| {
                condition.type_ == "Ready"
                    && condition.status == "True"
                    && condition.last_heartbeat_time.as_ref().is_some_and(|at| at.0 > since)
            });
            let capacity = ours(status.capacity);
            let allocatable = ours(status.allocatable);
            if ready.is_some() && capacity == expected && allocatable == expected {
                return Ok(Look::Found(()));
            }
            let report = if ready.is_some() { "it is ready" } else { "it has not reported to be ready since" };
            Ok(Look::Instead(format!(
                "{report}, its capacity is {capacity:?} and allocatable of it {allocatable:?}, the scene's slices are {expected:?}"
            )))
        })
        .await
    }

    /// Kills the kubelet, starts it again and waits until its resources are back.
    ///
    /// # Errors
    /// When the command fails or the resources stay away.
    pub async fn restart_kubelet(&self) -> Result<()> {
        let command = kubelet_restart().context("nothing says how to restart the kubelet")?;
        let status = tokio::process::Command::new("sh")
            .args(["-c", &command])
            .status()
            .await
            .with_context(|| format!("failed to run '{command}'"))?;
        ensure!(status.success(), "'{command}' failed: {status}");
        // The old kubelet is dead by now: a later report is the new one's.
        self.all_listed_since(Timestamp::now()).await
    }

    /// What the agent's node is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node
    }

    /// Waits until the node has a label.
    ///
    /// # Errors
    /// When it does not get it in time.
    pub async fn labelled(&self, label: &str, value: &str) -> Result<()> {
        wait_for(&format!("the node's label {label}={value}"), SETTLED, async || {
            let labels = self.node().await?.metadata.labels.unwrap_or_default();
            let found = labels.get(label).is_some_and(|there| there == value);
            Ok(if found { Look::Found(()) } else { Look::Instead(format!("they are {labels:?}")) })
        })
        .await
    }

    /// The agent's pod on the node, ready or not.
    ///
    /// # Errors
    /// When there is none.
    pub async fn agent(&self) -> Result<Pod> {
        let agents: Api<Pod> = Api::namespaced(self.client.clone(), AGENT_NAMESPACE);
        let pods =
            agents.list(&ListParams::default().labels(AGENT_LABEL)).await.context("failed to list the agent's pods")?;
        let alive = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && node_of(pod) == Some(&self.node);
        pods.into_iter().find(alive).context("the node has no pod of the agent")
    }

    /// Waits until an agent, of whatever namespace, says on /readyz that it is not ready, for this reason.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn unready_for(&self, reason: &str) -> Result<()> {
        let agents: Api<Pod> = Api::all(self.client.clone());
        wait_for(&format!("an agent not to be ready for '{reason}'"), SETTLED, async || {
            let pods =
                agents.list(&ListParams::default().labels(AGENT_LABEL)).await.context("failed to list the agents")?;
            let mut said = String::new();
            for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                // Through the API server. What is no success kubectl shows only where it shows everything.
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/readyz");
                let answer = crate::command::run(&format!("kubectl get --raw {path} -v=8"))?;
                said += &format!("{namespace}: {}{}", answer.out, answer.err);
            }
            Ok(if said.contains(reason) { Look::Found(()) } else { Look::Instead(said) })
        })
        .await
    }

    /// Waits until the cluster says this of the agent's pods, in an event.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn told_of_agent(&self, words: &str) -> Result<()> {
        let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(self.client.clone(), AGENT_NAMESPACE);
        wait_for(&format!("an event with '{words}'"), SETTLED, async || {
            let events = events.list(&ListParams::default()).await.context("failed to list events")?;
            let messages: Vec<_> = events.into_iter().filter_map(|event| event.message).collect();
            let found = messages.iter().any(|message| message.contains(words));
            Ok(if found { Look::Found(()) } else { Look::Instead(format!("the events are {messages:?}")) })
        })
        .await
    }

    /// What the agent has said since its start.
    ///
    /// # Errors
    /// When nobody can read it.
    pub fn agent_log(&self) -> Result<String> {
        crate::command::succeed("kubectl --namespace mig-agent logs daemonset/mig-agent --tail=-1")
    }

    /// Waits until the agent's log says this.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn agent_says(&self, words: &str) -> Result<()> {
        wait_for(&format!("the agent to say '{words}'"), SETTLED, async || {
            let log = self.agent_log()?;
            Ok(if log.contains(words) { Look::Found(()) } else { Look::Instead(log) })
        })
        .await
    }

    /// Deletes the agent's pod, and waits until another one is ready and the resources are back.
    ///
    /// # Errors
    /// When they don't come in time.
    pub async fn restart_agent(&self) -> Result<()> {
        let old = self.ready_agent(None).await?;
        let agents: Api<Pod> = Api::namespaced(self.client.clone(), AGENT_NAMESPACE);
        agents
            .delete(&old.name_any(), &kube::api::DeleteParams::default())
            .await
            .context("failed to delete the agent's pod")?;
        self.ready_agent(old.metadata.uid.as_deref()).await?;
        self.all_listed_since(Timestamp::now()).await
    }

    async fn node(&self) -> Result<Node> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.get(&self.node).await.with_context(|| format!("failed to read node {}", self.node))
    }

    /// The agent's pod once it is ready, and another one than `not`.
    async fn ready_agent(&self, not: Option<&str>) -> Result<Pod> {
        let agents: Api<Pod> = Api::namespaced(self.client.clone(), AGENT_NAMESPACE);
        wait_for("the agent to be ready", SETTLED, async || {
            let pods = agents
                .list(&ListParams::default().labels(AGENT_LABEL))
                .await
                .context("failed to list the agent's pods")?;
            let seen: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
            let ready = pods.into_iter().find(|pod| {
                is_ready(pod)
                    && pod.metadata.deletion_timestamp.is_none()
                    && pod.metadata.uid.as_deref() != not
                    && (self.node.is_empty() || node_of(pod) == Some(&self.node))
            });
            Ok(ready.map_or_else(|| Look::Instead(format!("its pods are {seen:?}")), Look::Found))
        })
        .await
    }

    async fn nobody_holds_a_slice(&self) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        wait_for("every slice to be free", SETTLED, async || {
            let pods = pods.list(&ListParams::default()).await.context("failed to list pods")?;
            let holders: Vec<_> = pods
                .iter()
                .filter(|pod| node_of(pod) == Some(&self.node) && asks_for_slices(pod))
                .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
                .collect();
            if holders.is_empty() {
                return Ok(Look::Found(()));
            }
            Ok(Look::Instead(format!("these pods hold some: {holders:?}")))
        })
        .await
    }
}

/// The command that kills this cluster's kubelet and starts it again, where there is one.
#[must_use]
pub fn kubelet_restart() -> Option<String> {
    std::env::var("E2E_RESTART_KUBELET").ok()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

fn node_of(pod: &Pod) -> Option<&String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())
}

fn asks_for_slices(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let resources = containers.filter_map(|container| container.resources.as_ref());
    resources
        .filter_map(|resources| resources.limits.as_ref())
        .flat_map(BTreeMap::keys)
        .any(|name| name.starts_with("nvidia.com/"))
}

/// The `nvidia.com/` part of a node's resources. A quantity that is no plain number becomes one that no scene has.
fn ours(resources: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, u64> {
    resources
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("nvidia.com/"))
        .map(|(name, quantity)| (name, quantity.0.parse().unwrap_or(u64::MAX)))
        .filter(|(_, count)| *count > 0)
        .collect()
}
