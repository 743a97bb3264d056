//! The Registration service, and the life of each connection that a registration starts.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kubelet::deviceplugin::{DevicePluginOptions, Empty, RegisterRequest, registration_server::Registration};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    connection::{Connection, Plugin},
    event::What,
    node::{Node, State},
    resource_name,
    violation::{Violation, ViolationKind},
};

/// What the kubelet makes of plugins that come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistrationMode {
    /// What it should.
    #[default]
    Answering,
    /// Register fails.
    Refusing,
    /// Register is not answered, nor the plugin dialled, for as long as this lasts.
    Silent,
    /// Register succeeds, and the list's stream is closed as soon as a list has come.
    HangingUp,
}

/// How soon an end of [`RegistrationMode::Silent`] is seen.
const SILENCE: Duration = Duration::from_millis(5);

/// Answers plugins at kubelet.sock.
#[derive(Debug)]
pub(crate) struct Registrations {
    pub(crate) node: Arc<Node>,
    /// Cancelled when the kubelet has died.
    pub(crate) life: CancellationToken,
}

#[tonic::async_trait]
impl Registration for Registrations {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let RegisterRequest { version, endpoint, resource_name: resource, .. } = request.into_inner();
        let node = &self.node;
        self.judge(&version, &endpoint, &resource);
        while node.registration() == RegistrationMode::Silent {
            sleep(SILENCE).await;
        }
        let outcome = if node.registration() == RegistrationMode::Refusing {
            Err("the kubelet was made to refuse every plugin".to_owned())
        } else if version != "v1beta1" {
            Err(format!(
                "requested API version {version:?} is not supported by kubelet. Supported version is [v1beta1]"
            ))
        } else if !resource_name::is_extended(&resource) {
            Err(format!("the ResourceName {resource:?} is invalid"))
        } else {
            // Joined without a look at it: a path that leads elsewhere is followed, as the real kubelet does.
            self.connect(&resource, &node.device_plugins().join(&endpoint)).await
        };
        let mut state = node.lock();
        match outcome {
            Ok(options) => {
                let preferred_allocation = options.preferred_allocation_available;
                let pre_start = options.pre_start_required;
                node.note(&mut state, What::Registered { resource, endpoint, preferred_allocation, pre_start });
                Ok(Response::new(Empty {}))
            }
            Err(reason) => {
                let what = What::RegistrationFailed { resource, endpoint, reason: reason.clone() };
                node.note(&mut state, what);
                // What Go's gRPC makes of a plain error.
                Err(Status::unknown(reason))
            }
        }
    }
}

impl Registrations {
    fn judge(&self, version: &str, endpoint: &str, resource: &str) {
        let node = &self.node;
        let mut state = node.lock();
        let what = What::RegisterReceived { resource: resource.to_owned(), endpoint: endpoint.to_owned() };
        node.note(&mut state, what);
        let mut report = |kind, detail| {
            node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
        };
        if version != "v1beta1" {
            report(ViolationKind::BadVersion, format!("registered with version {version:?}"));
        }
        if !resource_name::is_extended(resource) {
            report(ViolationKind::BadResourceName, format!("{resource:?} is no name of an extended resource"));
        }
        if matches!(endpoint, "" | "." | "..") || endpoint.contains('/') {
            let detail = format!("the endpoint {endpoint:?} is not the name of a file beside kubelet.sock");
            report(ViolationKind::BadEndpoint, detail);
        }
        let limit = node.options.registrations_per_second;
        if state.registration_rates.entry(resource.to_owned()).or_default().passes(limit) {
            let detail = format!("more than {limit} registrations within a second");
            let kind = ViolationKind::TooManyRegistrations;
            node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
        }
    }

    /// Dials the plugin back and starts to watch its list, all before Register is answered.
    async fn connect(&self, resource: &str, path: &Path) -> Result<DevicePluginOptions, String> {
        let node = &self.node;
        let connection = Arc::new(Connection::new(&self.life));
        let mut pending = self.enter(resource, &connection).await;

        let deadline = Instant::now() + node.options.dial_timeout;
        let plugin = self.dial(resource, path, &connection, deadline).await?;
        let mut asked = plugin.clone();
        let options = match timeout_at(deadline, asked.get_device_plugin_options(Empty {})).await {
            Ok(Ok(options)) => options.into_inner(),
            Ok(Err(status)) => return Err(format!("failed to get device plugin options: {status}")),
            Err(_) => {
                self.unanswered(resource, path, "it took the connection, and answers no call");
                return Err("failed to dial device plugin: context deadline exceeded".to_owned());
            }
        };

        node.plugin_connected(resource, plugin.clone(), options, &connection);
        pending.done = true;
        tokio::spawn(watch(Arc::clone(node), resource.to_owned(), plugin, connection));
        Ok(options)
    }

    /// Makes this the resource's connection, before it is dialled.
    async fn enter(&self, resource: &str, connection: &Arc<Connection>) -> Pending {
        let node = &self.node;
        let open = |state: &State| {
            let of_resource = state.streams.iter().filter(|(name, old)| name == resource && old.is_streaming());
            of_resource.map(|(_, old)| Arc::clone(old)).collect::<Vec<_>>()
        };
        let before = open(&node.lock());
        let patience = Instant::now() + Duration::from_millis(100);
        while before.iter().any(|old| old.is_streaming() && old.is_busy()) && Instant::now() < patience {
            sleep(Duration::from_millis(1)).await;
        }
        let mut state = node.lock();
        // Of what is not read yet nobody can say that it was not the end: that the kubelet was slow is no fault of a plugin,
        // and one whose predecessor was killed does not know of its stream.
        if open(&state).iter().any(|old| !old.is_busy()) {
            let detail = "registered while its earlier ListAndWatch was open; when that ends, the real kubelet \
                          disconnects the new registration"
                .to_owned();
            let kind = ViolationKind::RegisteredOverOpenStream;
            node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
        }
        state.clients.insert(resource.to_owned(), Arc::clone(connection));
        Pending { node: Arc::clone(node), resource: resource.to_owned(), done: false }
    }

    /// Dials until the deadline, with the pauses that Go's gRPC makes.
    async fn dial(
        &self,
        resource: &str,
        path: &Path,
        connection: &Arc<Connection>,
        deadline: Instant,
    ) -> Result<Plugin, String> {
        let mut pause = Duration::from_secs(1);
        loop {
            let error = match timeout_at(deadline, connection.dial(path)).await {
                Ok(Ok(plugin)) => return Ok(plugin),
                Ok(Err(error)) => root_cause(&error),
                Err(_) => "no answer".to_owned(),
            };
            self.unanswered(resource, path, &error);
            if Instant::now() + pause >= deadline {
                tokio::time::sleep_until(deadline).await;
                return Err(format!("failed to dial device plugin: context deadline exceeded ({error})"));
            }
            sleep(pause).await;
            pause = pause.mul_f64(1.6);
        }
    }

    fn unanswered(&self, resource: &str, path: &Path, error: &str) {
        let name = path.file_name().unwrap_or(path.as_os_str()).display();
        let detail = format!("the socket {name} was registered before it answered: {error}");
        let kind = ViolationKind::SocketDidNotAnswer;
        self.node.accuse(&mut self.node.lock(), Violation { kind, resource: resource.to_owned(), detail });
    }
}

/// A registration under way. If it fails, or its caller gives up, the name has no connection any more, not even an
/// older one whose stream is still open: the end of that stream then goes unnoticed, as in the real kubelet.
struct Pending {
    node: Arc<Node>,
    resource: String,
    done: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            self.node.lock().clients.remove(&self.resource);
        }
    }
}

/// Reads lists until the stream ends, then disconnects whatever connection the resource has by then. That may be a
/// newer one than the one that ended: kubernetes#135437, which 1.36.2 has.
async fn watch(node: Arc<Node>, resource: String, plugin: Plugin, connection: Arc<Connection>) {
    let reason = tokio::select! {
        reason = read_lists(&node, &resource, plugin, &connection) => reason,
        () = connection.closed.cancelled() => "the kubelet hung up".to_owned(),
    };
    let mut state = node.lock();
    connection.streaming.store(false, Ordering::Release);
    state.streams.retain(|(_, open)| !Arc::ptr_eq(open, &connection));
    node.note(&mut state, What::StreamEnded { resource: resource.clone(), reason });
    if let Some(current) = state.clients.get(&resource).cloned() {
        if !Arc::ptr_eq(&current, &connection) {
            node.note(&mut state, What::NewRegistrationKilled { resource: resource.clone() });
        }
        disconnect(&node, &mut state, &resource, &current);
    }
}

async fn read_lists(node: &Node, resource: &str, mut plugin: Plugin, connection: &Arc<Connection>) -> String {
    {
        // From here on the plugin has a stream of ours to end before it registers again.
        let mut state = node.lock();
        connection.streaming.store(true, Ordering::Release);
        state.streams.push((resource.to_owned(), Arc::clone(connection)));
    }
    let mut stream = match plugin.list_and_watch(Empty {}).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.to_string(),
    };
    node.note(&mut node.lock(), What::StreamOpened { resource: resource.to_owned() });
    let mut first = true;
    loop {
        match stream.message().await {
            Ok(Some(list)) => node.list_received(resource, list.devices, first),
            Ok(None) => return "the plugin ended it".to_owned(),
            Err(status) => return status.to_string(),
        }
        first = false;
        if node.registration() == RegistrationMode::HangingUp {
            return "the kubelet was made to hang up".to_owned();
        }
    }
}

/// Closes the connection and marks the resource's devices unhealthy.
pub(crate) fn disconnect(node: &Node, state: &mut State, resource: &str, connection: &Connection) {
    state.clients.remove(resource);
    connection.close();
    node.plugin_disconnected(state, resource);
}

/// tonic says "transport error"; what happened is at the end of the chain.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
