//! Kubelets that do in another order, or on other connections, what the kubelet does today, and clients that are not Go's.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::device_plugin_client::DevicePluginClient;
use kubelet::deviceplugin::registration_server::{Registration, RegistrationServer};
use kubelet::deviceplugin::{Empty, RegisterRequest};
use node::{DEADLINE, G1, Node, listed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// Takes every registration, and leaves the rest to the test.
struct Taker {
    endpoints: mpsc::Sender<(String, bool)>,
    /// A connection that has to be gone before the next one.
    old: Old,
}

type Old = Arc<Mutex<Option<std::os::unix::net::UnixStream>>>;

impl Taker {
    fn is_still_open(&self) -> bool {
        let old = self.old.lock().unwrap();
        let Some(mut old) = old.as_ref() else { return false };
        let mut rest = [0; 4096];
        loop {
            match old.read(&mut rest) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

#[tonic::async_trait]
impl Registration for Taker {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let registration = (request.into_inner().endpoint, self.is_still_open());
        self.endpoints.send(registration).await.unwrap();
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

/// A node with one slice, and a kubelet that takes what is registered and does no more.
fn taking() -> (Node, mpsc::Receiver<(String, bool)>, Old) {
    let node = Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]\n");
    let folder = node.path("kubelet/device-plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
    let (sender, endpoints) = mpsc::channel(4);
    let old = Old::default();
    let registrations = RegistrationServer::new(Taker { endpoints: sender, old: Arc::clone(&old) });
    tokio::spawn(Server::builder().add_service(registrations).serve_with_incoming(UnixListenerStream::new(listener)));
    (node, endpoints, old)
}

async fn registered(endpoints: &mut mpsc::Receiver<(String, bool)>) -> String {
    let (endpoint, is_still_open) = timeout(DEADLINE, endpoints.recv()).await.unwrap().unwrap();
    assert!(!is_still_open, "rule 6: the old connection is still there");
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_first_and_dials_later_without_asking_for_options_is_served() {
    let (node, mut endpoints, _) = taking();
    let mut agent = node.agent(&[]);
    let endpoint = registered(&mut endpoints).await;
    let (status, body) = agent.get("/readyz");
    assert!(
        status.contains("503") && body.contains("it is being registered"),
        "rule 6: nobody reads the list yet: {body}"
    );
    let mut lists = dial(&node, &endpoint).await.list_and_watch(Empty {}).await.unwrap().into_inner();
    assert_eq!(lists.message().await.unwrap().unwrap().devices.len(), 1);
    agent.ready(|status, _| status.contains("200"));
    // When its stream has ended it is asked anew.
    drop(lists);
    registered(&mut endpoints).await;
}

/// Rule 6: registered is who is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_reads_the_list_is_asked_again() {
    let (node, mut endpoints, _) = taking();
    let mut agent = node.agent(&[]);
    registered(&mut endpoints).await;
    agent.ready(|status, body| {
        assert!(status.contains("503"), "{body}");
        body.contains("the kubelet took the registration but does not read the list")
    });
    registered(&mut endpoints).await;
}

/// Rule 6: a kubelet that still has an old connection when a plugin registers anew takes the new one down with it. This one
/// keeps it for as long as it can, with a call that it never finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_connection_is_gone_before_it_is_registered_again() {
    let (node, mut endpoints, old) = taking();
    let _agent = node.agent(&[]);
    let endpoint = registered(&mut endpoints).await;
    let socket = node.path("kubelet/device-plugins").join(&endpoint);
    let _lists = dial(&node, &endpoint).await.list_and_watch(Empty {}).await.unwrap().into_inner();
    let mut caller = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    caller.write_all(&call("/v1beta1.DevicePlugin/Allocate")).unwrap();
    caller.set_nonblocking(true).unwrap();
    *old.lock().unwrap() = Some(caller);
    std::fs::remove_file(&socket).unwrap();
    registered(&mut endpoints).await;
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// As gRPC's C core does, and with it Python's and C++'s clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_answered_that_names_the_sockets_path_as_the_authority() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    let socket = node.path("kubelet/device-plugins/mig-agent-mig-1g.5gb.sock");
    let mut client = UnixStream::connect(&socket).await.unwrap();
    client.write_all(&call("/v1beta1.DevicePlugin/GetDevicePluginOptions")).await.unwrap();
    client.write_all(&frame(0, 1, 1, &[0; 5])).await.unwrap();
    let answered = async {
        loop {
            let mut header = [0; 9];
            client.read_exact(&mut header).await.unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            client.read_exact(&mut payload).await.unwrap();
            if header[8] == 1 {
                return header[3];
            }
        }
    };
    assert_eq!(timeout(DEADLINE, answered).await.unwrap(), 1, "headers, and not the end of the stream");
}

/// A call that has begun, as C-core spells it: its message is still to come.
fn call(method: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 127);
        [name, &[length], value.as_bytes()].concat()
    };
    // Names are spelt, as C-core spells them; 0x83 is POST, 0x86 http in HPACK's table.
    let named = |name: &str, value: &str| [&[0x40], literal(&[], name).as_slice(), &literal(&[], value)].concat();
    let headers = [
        named(":path", method),
        named(":authority", "var%2Flib%2Fkubelet%2Fdevice-plugins%2Fa.sock"),
        vec![0x83, 0x86],
        named("content-type", "application/grpc"),
        named("te", "trailers"),
    ];
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers.concat())];
    begin.concat()
}
