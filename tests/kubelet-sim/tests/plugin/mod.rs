//! A small device plugin, good unless told otherwise.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device,
    DevicePluginOptions, Empty, ListAndWatchResponse, NumaNode, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest, TopologyInfo,
    device_plugin_server::{DevicePlugin, DevicePluginServer},
    registration_client::RegistrationClient,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// From what is available, sorted, to what is preferred.
pub(crate) type Preference = fn(&[String]) -> Result<Vec<String>, Status>;

/// What makes a plugin bad.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) answers_per_request: Option<usize>,
    pub(crate) preferred: Option<Preference>,
    /// Allocate waits for it.
    pub(crate) gate: Option<Arc<Notify>>,
}

struct Service {
    options: DevicePluginOptions,
    devices: watch::Receiver<Vec<Device>>,
    faults: Arc<Mutex<Faults>>,
    streams_end: CancellationToken,
    resource: String,
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.options))
    }

    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (send, receive) = mpsc::channel(1);
        let (mut devices, end) = (self.devices.clone(), self.streams_end.clone());
        tokio::spawn(async move {
            loop {
                let devices_now = devices.borrow_and_update().clone();
                if send.send(Ok(ListAndWatchResponse { devices: devices_now })).await.is_err() {
                    return;
                }
                tokio::select! {
                    news = devices.changed() => if news.is_err() { return },
                    () = end.cancelled() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let request = request.into_inner().containers.remove(0);
        let mut ids = request.available_ids;
        ids.sort();
        let preferred = self.faults.lock().unwrap().preferred;
        let ids = match preferred {
            Some(preferred) => preferred(&ids)?,
            None => {
                ids.retain(|id| !request.must_include_ids.contains(id));
                let size = usize::try_from(request.size).unwrap();
                request.must_include_ids.into_iter().chain(ids).take(size).collect()
            }
        };
        let containers = vec![ContainerPreferredAllocationResponse { ids }];
        Ok(Response::new(PreferredAllocationResponse { containers }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let gate = self.faults.lock().unwrap().gate.clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let requests = request.into_inner().containers;
        let count = self.faults.lock().unwrap().answers_per_request.unwrap_or(1);
        let mut containers = Vec::new();
        for request in requests {
            let known = self.devices.borrow().iter().map(|device| device.id.clone()).collect::<Vec<_>>();
            if let Some(id) = request.ids.iter().find(|id| !known.contains(id)) {
                return Err(Status::not_found(format!("there is no {id}")));
            }
            let mut ids = request.ids;
            ids.sort();
            let cdi_devices = ids.iter().map(|id| kubelet::deviceplugin::CdiDevice { name: format!("x/y={id}") });
            let envs = [("DEVICES".to_owned(), ids.join(",")), (format!("OF_{}", self.resource), ids.join(","))];
            let answer = ContainerAllocateResponse {
                envs: envs.into(),
                cdi_devices: cdi_devices.collect(),
                ..ContainerAllocateResponse::default()
            };
            containers.extend(std::iter::repeat_n(answer, count));
        }
        Ok(Response::new(AllocateResponse { containers }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

pub(crate) struct Plugin {
    pub(crate) root: PathBuf,
    pub(crate) resource: String,
    pub(crate) endpoint: String,
    pub(crate) devices: watch::Sender<Vec<Device>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    streams_end: CancellationToken,
    server_ends: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Plugin {
    /// Not served, not registered.
    pub(crate) fn new(root: &Path, resource: &str, devices: Vec<Device>) -> Self {
        Self {
            root: root.to_owned(),
            resource: resource.to_owned(),
            endpoint: format!("{}.sock", resource.replace('/', "-")),
            devices: watch::Sender::new(devices),
            faults: Arc::default(),
            streams_end: CancellationToken::new(),
            server_ends: CancellationToken::new(),
            server: None,
        }
    }

    /// Serves on a new socket and registers.
    pub(crate) async fn started(root: &Path, resource: &str, devices: Vec<Device>) -> Self {
        let mut plugin = Self::new(root, resource, devices);
        plugin.serve();
        plugin.register().await.unwrap();
        plugin
    }

    pub(crate) fn serve(&mut self) {
        let path = self.root.join("device-plugins").join(&self.endpoint);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        self.streams_end = CancellationToken::new();
        self.server_ends = CancellationToken::new();
        let service = Service {
            options: DevicePluginOptions { preferred_allocation_available: true, pre_start_required: false },
            devices: self.devices.subscribe(),
            faults: Arc::clone(&self.faults),
            streams_end: self.streams_end.clone(),
            resource: self.resource.clone(),
        };
        let end = self.server_ends.clone();
        self.server = Some(tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            let server = Server::builder().add_service(DevicePluginServer::new(service));
            server.serve_with_incoming_shutdown(incoming, end.cancelled()).await.unwrap();
        }));
    }

    pub(crate) async fn register(&self) -> Result<(), Status> {
        let request = RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: self.endpoint.clone(),
            resource_name: self.resource.clone(),
            // The kubelet does not look at these.
            options: None,
        };
        register(&self.root, request).await
    }

    pub(crate) fn list(&self, devices: Vec<Device>) {
        self.devices.send_replace(devices);
    }

    /// Ends the streams, then the server, and waits for that.
    pub(crate) async fn stop(&mut self) {
        self.streams_end.cancel();
        self.server_ends.cancel();
        if let Some(server) = self.server.take() {
            server.await.unwrap();
        }
    }

    /// Ends the streams alone.
    pub(crate) fn end_streams(&self) {
        self.streams_end.cancel();
    }
}

pub(crate) async fn register(root: &Path, request: RegisterRequest) -> Result<(), Status> {
    let path = root.join("device-plugins/kubelet.sock");
    let connect = move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap();
    RegistrationClient::new(channel).register(request).await.map(drop)
}

pub(crate) fn healthy(id: &str) -> Device {
    Device { id: id.to_owned(), health: "Healthy".to_owned(), topology: None }
}

pub(crate) fn unhealthy(id: &str) -> Device {
    Device { health: "Unhealthy".to_owned(), ..healthy(id) }
}

pub(crate) fn on_numa(id: &str, node: i64) -> Device {
    Device { topology: Some(TopologyInfo { nodes: vec![NumaNode { id: node }] }), ..healthy(id) }
}

pub(crate) fn all(ids: &[&str]) -> Vec<Device> {
    ids.iter().map(|id| healthy(id)).collect()
}
