//! One run of the kubelet, from its start to its end.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kubelet::{
    deviceplugin::registration_server::RegistrationServer,
    podresources::pod_resources_lister_server::PodResourcesListerServer,
};
use tokio::{
    net::UnixListener,
    runtime::{Builder, Runtime},
    task::{JoinHandle, spawn_blocking},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    checkpoint,
    devices::{Endpoint, Known, Lists},
    event::What,
    node::{Node, State},
    podresources::Lister,
    registration::{self, Registrations},
};

/// A running kubelet. It has a runtime of its own: its end is the end of all its tasks and connections.
#[derive(Debug)]
pub(crate) struct Life {
    node: Arc<Node>,
    runtime: Option<Runtime>,
    podresources: Option<JoinHandle<()>>,
    /// Cancelled once it is over.
    over: CancellationToken,
}

impl Life {
    /// Wipes the sockets of plugins, remembers the checkpoint, and serves.
    pub(crate) fn start(node: &Arc<Node>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("kubelet-sim").enable_all().build()?;
        let over = CancellationToken::new();
        let mut life = Self { node: Arc::clone(node), runtime: Some(runtime), podresources: None, over: over.clone() };
        let device_plugins = node.device_plugins();
        create_directory(&device_plugins)?;
        {
            let mut state = node.lock();
            let remembered = checkpoint::read(&device_plugins).unwrap_or_else(|error| {
                node.note(&mut state, What::CheckpointNotRead { reason: error.to_string() });
                None
            });
            state.remember(remembered.unwrap_or_default());
            state.lives += 1;
            state.life = Some(state.lives);
        }
        wipe_sockets(&device_plugins)?;
        life.serve_podresources()?;

        let service = RegistrationServer::new(Registrations { node: Arc::clone(node), life: over });
        let enter = life.runtime.as_ref().map(Runtime::enter);
        let listener = UnixListener::bind(device_plugins.join("kubelet.sock"))?;
        // Told before the first plugin can be heard of.
        node.note(&mut node.lock(), What::Started);
        tokio::spawn(async move {
            // Accepting fails only with the socket, and nothing is left to be told then.
            let _ended =
                Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)).await;
        });
        drop(enter);
        Ok(life)
    }

    /// Serves pod-resources/kubelet.sock, in place of one that is there already.
    pub(crate) fn serve_podresources(&mut self) -> io::Result<()> {
        self.refuse_podresources();
        let socket = podresources_socket(&self.node.root);
        create_directory(socket.parent().unwrap_or(&self.node.root))?;
        remove(&socket)?;
        let service = PodResourcesListerServer::new(Lister::new(Arc::clone(&self.node)));
        let _enter = self.runtime.as_ref().map(Runtime::enter);
        let listener = UnixListener::bind(socket)?;
        self.podresources = Some(tokio::spawn(async move {
            let _ended =
                Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)).await;
        }));
        Ok(())
    }

    /// Takes no new connections of podresources; the socket stays where it is.
    pub(crate) fn refuse_podresources(&mut self) {
        if let Some(server) = self.podresources.take() {
            server.abort();
        }
    }

    /// Ends as the real process does, on SIGTERM as on SIGKILL: every connection breaks, the sockets stay behind.
    pub(crate) async fn kill(mut self) {
        self.end(false).await;
    }

    /// Hangs up on every plugin first and removes kubelet.sock.
    pub(crate) async fn stop(mut self) {
        {
            let mut state = self.node.lock();
            let clients = state.clients.drain().collect::<Vec<_>>();
            for (resource, connection) in clients {
                registration::disconnect(&self.node, &mut state, &resource, &connection);
            }
        }
        // It may be gone with its directory.
        let _gone = fs::remove_file(self.node.device_plugins().join("kubelet.sock"));
        self.end(true).await;
    }

    async fn end(&mut self, in_order: bool) {
        // From here on what its calls come to is nobody's fault.
        self.node.lock().life = None;
        if let Some(runtime) = self.runtime.take() {
            // Blocks until each task is dropped, and with it its sockets; a panic in there has been reported already.
            let _ended = spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await;
        }
        // The calls of a process die with it. Those that were just made when its connections went may never end otherwise.
        self.over.cancel();
        let mut state = self.node.lock();
        state.forget();
        self.node.note(&mut state, What::Stopped { in_order });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// What a start of the kubelet makes of its checkpoint.
    fn remember(&mut self, remembered: checkpoint::Remembered) {
        self.forget();
        self.allocations = remembered.allocations;
        // The API server tells which pods there still are. One that was never heard of in this process comes from a
        // checkpoint that an earlier one has left; it is believed.
        let deleted = |pod: &String| self.deleted.contains(pod);
        self.allocations.pods.retain(|pod, _| !deleted(pod));
        for (pod, containers) in &self.allocations.pods {
            self.pods.entry(pod.clone()).or_insert_with(|| {
                let containers = containers.iter().map(|(name, held)| {
                    let limits = held.iter().map(|(resource, held)| (resource.clone(), held.ids().len()));
                    crate::Container::new(name, limits)
                });
                crate::Pod { containers: containers.collect(), ..crate::Pod::new(pod) }
            });
        }
        self.restore_allocated();
        for resource in remembered.resources {
            let lists = Some(Lists::default());
            self.resources.insert(resource, Known { lists, endpoint: Some(Endpoint::remembered()) });
        }
    }

    /// What the end of a process takes with it.
    fn forget(&mut self) {
        self.resources.clear();
        self.clients.clear();
        self.streams.clear();
        self.in_flight.clear();
        self.reusable = Default::default();
        self.list_rates.clear();
        self.registration_rates.clear();
    }
}

pub(crate) fn podresources_socket(root: &Path) -> PathBuf {
    root.join("pod-resources").join("kubelet.sock")
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)
}

fn wipe_sockets(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Follows links, as the real one does.
        if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
