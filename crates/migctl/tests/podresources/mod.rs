//! A kubelet that only says which pods hold what.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kubelet::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use kubelet::podresources::{ContainerDevices, ContainerResources, ListRequest, ListResponse, PodResources};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Answers for as long as it is kept.
pub(crate) struct PretendedKubelet {
    _runtime: Runtime,
}

struct Lister {
    /// How often there are no pods yet.
    early: AtomicUsize,
    /// How often it has been asked too often.
    busy: AtomicUsize,
    pods: Option<Vec<PodResources>>,
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let before = |early: usize| early.checked_sub(1);
        if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, before).is_ok() {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        if self.early.fetch_update(Ordering::SeqCst, Ordering::SeqCst, before).is_ok() {
            return Ok(Response::new(ListResponse { pods: Vec::new() }));
        }
        match &self.pods {
            Some(pods) => Ok(Response::new(ListResponse { pods: pods.clone() })),
            None => Err(Status::resource_exhausted("rejected by rate limit")),
        }
    }
}

impl PretendedKubelet {
    /// Pods by name, and the devices that each holds; without pods, one that refuses to say.
    pub(crate) fn start(root: &Path, pods: Option<&[(&str, &str)]>) -> Self {
        Self::start_late(root, 0, pods)
    }

    /// The same, but the first `early` answers have no pods.
    pub(crate) fn start_late(root: &Path, early: usize, pods: Option<&[(&str, &str)]>) -> Self {
        Self::begin(root, early, 0, pods)
    }

    /// The same, but so many times it has been asked too often.
    pub(crate) fn start_busy(root: &Path, busy: usize, pods: &[(&str, &str)]) -> Self {
        Self::begin(root, 0, busy, Some(pods))
    }

    fn begin(root: &Path, early: usize, busy: usize, pods: Option<&[(&str, &str)]>) -> Self {
        let folder = root.join("pod-resources");
        std::fs::create_dir_all(&folder).unwrap();
        let pods = pods.map(|pods| pods.iter().map(|(name, device)| pod(name, device)).collect());
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        let service = PodResourcesListerServer::new(Lister {
            early: AtomicUsize::new(early),
            busy: AtomicUsize::new(busy),
            pods,
        });
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        drop(inside);
        Self { _runtime: runtime }
    }
}

fn pod(name: &str, device: &str) -> PodResources {
    let devices =
        ContainerDevices { resource_name: "nvidia.com/mig-1g.5gb".to_owned(), device_ids: vec![device.to_owned()] };
    let container = ContainerResources { name: "main".to_owned(), devices: vec![devices] };
    PodResources { name: name.to_owned(), namespace: "default".to_owned(), containers: vec![container] }
}
