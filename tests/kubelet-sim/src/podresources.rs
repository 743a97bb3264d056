//! The podresources API: who holds which device.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kubelet::podresources::{
    ContainerDevices, ContainerResources, ListRequest, ListResponse, PodResources,
    pod_resources_lister_server::PodResourcesLister,
};
use tonic::{Request, Response, Status};

use crate::{
    event::What,
    node::{Node, State},
};

/// How podresources answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodResourcesMode {
    /// As it should.
    #[default]
    Answering,
    /// With no pods, as a kubelet that has not heard of its pods yet.
    Empty,
    /// With an error.
    Failing,
    /// Rightly, but late.
    Slow(Duration),
    /// Never.
    Silent,
}

/// Answers at pod-resources/kubelet.sock.
#[derive(Debug)]
pub(crate) struct Lister {
    node: Arc<Node>,
    limit: Mutex<Bucket>,
}

impl Lister {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, limit: Mutex::new(Bucket { tokens: BURST, filled: Instant::now() }) }
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        if !self.limit.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        let mode = self.node.lock().podresources;
        match mode {
            PodResourcesMode::Answering => {}
            PodResourcesMode::Empty => {
                self.node.note(&mut self.node.lock(), What::PodResourcesListed { pods: 0, answered: true });
                return Ok(Response::new(ListResponse { pods: Vec::new() }));
            }
            PodResourcesMode::Slow(delay) => tokio::time::sleep(delay).await,
            PodResourcesMode::Silent => std::future::pending().await,
            PodResourcesMode::Failing => {
                self.node.note(&mut self.node.lock(), What::PodResourcesListed { pods: 0, answered: false });
                return Err(Status::internal("podresources was made to fail"));
            }
        }
        let mut state = self.node.lock();
        let pods = pods(&state);
        self.node.note(&mut state, What::PodResourcesListed { pods: pods.len(), answered: true });
        Ok(Response::new(ListResponse { pods }))
    }
}

/// Every pod that has not ended, with or without devices. Init containers are left out, whether they run or not.
fn pods(state: &State) -> Vec<PodResources> {
    let container = |pod: &str, container: &str| {
        let held = state.allocations.of(pod, container).into_iter().flatten();
        // One entry for each device, and for each of its NUMA nodes if it has several.
        let devices = held.flat_map(|(resource, held)| {
            let entry =
                |id: &String| ContainerDevices { resource_name: resource.clone(), device_ids: vec![id.clone()] };
            held.by_numa.values().flatten().map(entry).collect::<Vec<_>>()
        });
        ContainerResources { name: container.to_owned(), devices: devices.collect() }
    };
    let pods = state.pods.values().map(|pod| PodResources {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        containers: pod.containers.iter().map(|of| container(&pod.name, &of.name)).collect(),
    });
    pods.collect()
}

/// The real kubelet's limit: 100 calls a second, of which 10 may come at once.
const BURST: f64 = 10.0;
const PER_SECOND: f64 = 100.0;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + gained).min(BURST);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}
