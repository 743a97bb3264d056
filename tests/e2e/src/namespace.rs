//! A fresh namespace for each test, and the pods in it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace as Resource, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, LogParams, ObjectMeta, PostParams};

use crate::cluster::{Cluster, is_ready};
use crate::pod::{Container, PRINTED, Running};
use crate::wait::{Look, wait_for};

/// How long a pod may take to start, to be refused or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace on the cluster that this test has for itself.
pub struct Namespace<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    pub(crate) name: String,
    pub(crate) pods: Api<Pod>,
}

impl<'a> Namespace<'a> {
    /// Creates one and waits until pods can be created in it.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn create(cluster: &'a Cluster) -> Result<Self> {
        let namespaces: Api<Resource> = Api::all(cluster.client.clone());
        let wanted = Resource {
            metadata: ObjectMeta { generate_name: Some("mig-agent-e2e-".to_owned()), ..ObjectMeta::default() },
            ..Resource::default()
        };
        let name = namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .context("failed to create a namespace")?
            .name_any();
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), &name);
        // Until it is there, pods are refused.
        wait_for("the namespace's service account", PATIENCE, async || {
            Ok(match accounts.get_opt("default").await? {
                Some(_) => Look::Found(()),
                None => Look::Instead("it is not there".to_owned()),
            })
        })
        .await?;
        let pods = Api::namespaced(cluster.client.clone(), &name);
        Ok(Self { cluster, name, pods })
    }

    /// Deletes every pod, waits until all are gone, and lets the namespace go by itself.
    ///
    /// # Errors
    /// When a pod stays.
    pub async fn delete(self) -> Result<()> {
        self.delete_pods().await?;
        let namespaces: Api<Resource> = Api::all(self.cluster.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.context("failed to delete the namespace")?;
        Ok(())
    }

    /// Deletes every pod, and waits until all are gone.
    ///
    /// # Errors
    /// When a pod stays.
    pub async fn delete_pods(&self) -> Result<()> {
        self.pods
            .delete_collection(&DeleteParams::default(), &kube::api::ListParams::default())
            .await
            .context("failed to delete the test's pods")?;
        wait_for("the test's pods to be gone", PATIENCE, async || {
            let left = self.pods.list(&kube::api::ListParams::default()).await?;
            let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
            Ok(if left.is_empty() { Look::Found(()) } else { Look::Instead(format!("still there: {left:?}")) })
        })
        .await
    }

    /// Creates a pod, for the cluster's node.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create_pod(&self, mut pod: Pod) -> Result<()> {
        self.cluster.place(&mut pod);
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("failed to create pod {}", pod.name_any()))?;
        Ok(())
    }

    /// Waits until a pod runs and has printed its environment.
    ///
    /// # Errors
    /// When it fails, or does not run in time.
    pub async fn running(&self, name: &str) -> Result<Running> {
        let pod = wait_for(&format!("pod {name} to run"), PATIENCE, async || {
            let pod = self.pods.get(name).await?;
            let status = pod.status.clone().unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            // A pod that the kubelet refused (UnexpectedAdmissionError) is never tried again.
            ensure!(
                phase != "Failed",
                "pod {name} failed: {}: {}",
                status.reason.unwrap_or_default(),
                status.message.unwrap_or_default()
            );
            Ok(if is_ready(&pod) { Look::Found(pod) } else { Look::Instead(format!("it is {phase}")) })
        })
        .await?;
        let mut containers = std::collections::BTreeMap::new();
        for status in statuses(&pod) {
            let container = self.container(name, status).await?;
            containers.insert(status.name.clone(), container);
        }
        Ok(Running { name: name.to_owned(), uid: pod.uid().unwrap_or_default(), containers })
    }

    /// A pod as [`running`](Self::running) shows it, if it runs already.
    ///
    /// # Errors
    /// When it does not.
    pub async fn running_now(&self, name: &str) -> Result<Running> {
        let pod = self.pods.get(name).await?;
        ensure!(is_ready(&pod), "pod {name} does not run");
        self.running(name).await
    }

    /// Creates a pod and waits until it runs.
    ///
    /// # Errors
    /// As `create_pod` and `running`.
    pub async fn run(&self, pod: Pod) -> Result<Running> {
        let name = pod.name_any();
        self.create_pod(pod).await?;
        self.running(&name).await
    }

    /// Waits until the scheduler has said why it can't place a pod, and returns its words.
    ///
    /// # Errors
    /// When it says nothing in time.
    pub async fn unschedulable(&self, name: &str) -> Result<String> {
        let what = format!("the scheduler to refuse pod {name}");
        wait_for(&what, PATIENCE, async || {
            let status = self.pods.get(name).await?.status.unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            let refused = status.conditions.into_iter().flatten().find(|condition| {
                condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
            });
            Ok(match refused {
                Some(condition) if phase == "Pending" => Look::Found(condition.message.unwrap_or_default()),
                _ => Look::Instead(format!("it is {phase}")),
            })
        })
        .await
    }

    /// Deletes a pod and waits until it is gone.
    ///
    /// # Errors
    /// When it stays.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        self.pods
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("failed to delete pod {name}"))?;
        wait_for(&format!("pod {name} to be gone"), PATIENCE, async || {
            Ok(match self.pods.get_opt(name).await? {
                Some(_) => Look::Instead("it is still there".to_owned()),
                None => Look::Found(()),
            })
        })
        .await
    }

    /// Checks that a pod is as it was seen: the same pod, each container's same run of it, ready.
    ///
    /// # Errors
    /// When it is not.
    pub async fn untouched(&self, seen: &Running) -> Result<()> {
        let name = &seen.name;
        let pod = self.pods.get(name).await.with_context(|| format!("pod {name} should be untouched"))?;
        ensure!(pod.uid().as_ref() == Some(&seen.uid), "pod {name} was replaced");
        ensure!(is_ready(&pod), "pod {name} is not ready any more");
        for status in statuses(&pod) {
            let before = seen
                .containers
                .get(&status.name)
                .with_context(|| format!("pod {name} has a new container {}", status.name))?;
            ensure!(
                status.container_id.as_ref() == Some(&before.id) && status.restart_count == before.restarts,
                "container {} of pod {name} was restarted: it was {} ({} restarts), it is {:?} ({})",
                status.name,
                before.id,
                before.restarts,
                status.container_id,
                status.restart_count
            );
        }
        Ok(())
    }

    async fn container(&self, pod: &str, status: &ContainerStatus) -> Result<Container> {
        let parameters = LogParams { container: Some(status.name.clone()), ..LogParams::default() };
        let what = format!("container {} of pod {pod} to print", status.name);
        let log = wait_for(&what, PATIENCE, async || {
            // The log is read through the kubelet, which may be just starting.
            Ok(match self.pods.logs(pod, &parameters).await {
                Ok(log) if log.lines().any(|line| line == PRINTED) => Look::Found(log),
                Ok(log) => Look::Instead(format!("it printed {log:?}")),
                Err(error) => Look::Instead(format!("its log can't be read: {error}")),
            })
        })
        .await?;
        let environment = log
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Container {
            id: status.container_id.clone().unwrap_or_default(),
            restarts: status.restart_count,
            environment,
            log,
        })
    }
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    let status = pod.status.as_ref();
    status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}
