//! Kubelets that do in another order, or on other connections, what the kubelet does today.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::device_plugin_client::DevicePluginClient;
use kubelet::deviceplugin::registration_server::{Registration, RegistrationServer};
use kubelet::deviceplugin::{Empty, RegisterRequest};
use node::{DEADLINE, Node};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// Takes every registration, and leaves the rest to the test.
struct Taker(mpsc::Sender<String>);

#[tonic::async_trait]
impl Registration for Taker {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0.send(request.into_inner().endpoint).await.unwrap();
        Ok(Response::new(Empty {}))
    }
}

async fn dial(node: &Node, endpoint: &str) -> DevicePluginClient<Channel> {
    let path = node.path("kubelet/device-plugins").join(endpoint);
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    DevicePluginClient::new(Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_first_and_dials_later_without_asking_for_options_is_served() {
    let node = Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]\n");
    let folder = node.path("kubelet/device-plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
    let (sender, mut endpoints) = mpsc::channel(4);
    let registrations = RegistrationServer::new(Taker(sender));
    tokio::spawn(Server::builder().add_service(registrations).serve_with_incoming(UnixListenerStream::new(listener)));
    let mut agent = node.agent(&[]);
    let endpoint = timeout(DEADLINE, endpoints.recv()).await.unwrap().unwrap();
    let mut lists = dial(&node, &endpoint).await.list_and_watch(Empty {}).await.unwrap().into_inner();
    assert_eq!(lists.message().await.unwrap().unwrap().devices.len(), 1);
    agent.ready(|status, _| status.contains("200"));
    // When its stream has ended it is asked anew.
    drop(lists);
    timeout(DEADLINE, endpoints.recv()).await.unwrap().unwrap();
}
