//! One resource's socket: serve, register, and start over when the kubelet does.
//!
//! ```text
//!   wait for kubelet.sock -> bind, serve -> Register -> stream opens: registered
//!            ^                                               |
//!            |     new kubelet.sock, our socket gone, or the stream ended
//!            +---- end our streams, stop the server <--------+
//! ```
//! A kubelet that still reads an old stream when a plugin registers anew takes the new one down with it, so the old
//! server is gone before the next Register.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kubelet::deviceplugin::device_plugin_server::DevicePluginServer;
use kubelet::{CallError, DirectoryState, KubeletPaths, Registration, SocketIdentity, causes, register};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::outlet::Outlet;
use crate::service::{PluginService, options};
use crate::status::Status;

/// A socket file appears a moment before its kubelet listens.
const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// A kubelet opens its stream within milliseconds of Register.
const STREAM_DEADLINE: Duration = Duration::from_secs(5);
/// Streams end at once when told to; what is left after this is cut off.
const STOP_DEADLINE: Duration = Duration::from_millis(500);
/// A kubelet that is there answers within milliseconds; one that hangs must not hold us up.
const READING_DEADLINE: Duration = Duration::from_secs(1);
/// Where podresources has no socket at all, it may come a moment later, or not be mounted here.
const ABSENCE_DEADLINE: Duration = Duration::from_millis(250);
/// A registration that held this long was a good one, and the next failure starts with the shortest pause again.
const GOOD: Duration = Duration::from_secs(10);

/// What each resource's server needs.
pub(crate) struct Serving {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) paths: KubeletPaths,
    pub(crate) directory: watch::Receiver<DirectoryState>,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
}

/// Why a server could not be, or no longer can be, registered.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("no kubelet at {}: is it running, and is --kubelet-root its root directory?", .0.display())]
    NoKubelet(PathBuf),
    #[error("unable to make sockets in {} (it must be the kubelet's own directory, mounted read-write, with a path short enough for sockets)", directory.display())]
    Bind {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Register(#[from] CallError),
    #[error("the kubelet took the registration but does not read the list")]
    NoStream,
    #[error("the kubelet has closed the list's stream")]
    StreamEnded,
    #[error("somebody has removed the agent's socket")]
    SocketLost,
    #[error("another has taken the place of the agent's socket: does a second mig-agent run on this node?")]
    SocketTaken,
    #[error("the kubelet has started anew")]
    KubeletRestarted,
}

impl Obstacle {
    /// A word for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoKubelet(_) => "NoKubelet",
            Self::Bind { .. } => "Bind",
            Self::Register(_) => "Register",
            Self::NoStream => "NoStream",
            Self::StreamEnded => "StreamEnded",
            Self::SocketLost => "SocketLost",
            Self::SocketTaken => "SocketTaken",
            Self::KubeletRestarted => "KubeletRestarted",
        }
    }
}

/// Keeps one resource registered until told to stop.
pub(crate) async fn keep_registered(serving: Serving) {
    let Serving { outlet, paths, mut directory, status, stop } = serving;
    let mut retry = FIRST_RETRY;
    loop {
        // The first look at the directory may still be to come.
        let looked = directory.wait_for(|state| state.changes > 0).await.map(|state| state.kubelet);
        if let Ok(None) = looked {
            let why = Obstacle::NoKubelet(paths.registration_socket());
            // Whoever watches the directory logs it, once for all resources.
            status.obstructed(&outlet.resource, &why.to_string());
            outlet.meter.obstructed(why.reason());
        }
        let kubelet = tokio::select! {
            () = stop.cancelled() => return,
            present = directory.wait_for(|state| state.kubelet.is_some()) => present.ok().and_then(|state| state.kubelet),
        };
        let Some(kubelet) = kubelet else { return };
        // The first list must have what pods hold from before: leaving it out would be dropping it.
        let met = outlet.usage.meet(kubelet);
        let has_podresources = SocketIdentity::of(&paths.pod_resources_socket()).is_some();
        let patience = if has_podresources { READING_DEADLINE } else { ABSENCE_DEADLINE };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timeout(patience, outlet.usage.read_since(met)) => {}
        }
        outlet.refresh();
        let began = Instant::now();
        let session = Session { outlet: &outlet, paths: &paths, status: &status, stop: &stop, kubelet };
        let obstacle = match session.run(&mut directory).await {
            Ok(()) => return,
            Err(obstacle) => obstacle,
        };
        note(&status, &outlet, &obstacle);
        if matches!(obstacle, Obstacle::SocketTaken) {
            // Whoever it is would do the same to us.
            retry = LAST_RETRY;
        } else if began.elapsed() >= GOOD {
            retry = FIRST_RETRY;
        }
        // A new kubelet is worth an attempt at once.
        let renewed = directory.wait_for(|state| state.kubelet.is_some_and(|now| now != kubelet));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
            _ = renewed => retry = FIRST_RETRY,
        }
    }
}

/// Tells the log once, and those who ask whether we are ready.
fn note(status: &Status, outlet: &Outlet, obstacle: &Obstacle) {
    let why = causes(obstacle);
    outlet.meter.obstructed(obstacle.reason());
    if status.obstructed(&outlet.resource, &why) {
        match obstacle {
            Obstacle::KubeletRestarted | Obstacle::StreamEnded | Obstacle::SocketLost => {
                tracing::info!(resource = %outlet.resource, "registering again: {why}");
            }
            _ => tracing::warn!(resource = %outlet.resource, "not registered: {why}"),
        }
    }
}

/// From bind to the end of one registration.
struct Session<'a> {
    outlet: &'a Arc<Outlet>,
    paths: &'a KubeletPaths,
    status: &'a Status,
    stop: &'a CancellationToken,
    kubelet: SocketIdentity,
}

impl Session<'_> {
    /// Ends with an obstacle, or without one when told to stop. The server is gone by then.
    async fn run(&self, directory: &mut watch::Receiver<DirectoryState>) -> Result<(), Obstacle> {
        // Changes up to here are known; what comes after, our own socket included, is looked at.
        directory.mark_unchanged();
        let endpoint = format!("mig-agent-{}.sock", self.outlet.resource.name());
        let Socket { listener, guard } = Socket::bind(self.paths.device_plugins(), &endpoint)?;
        let streams = watch::Sender::new(0);
        let ends = CancellationToken::new();
        let service = PluginService::new(Arc::clone(self.outlet), streams.clone(), ends.clone());
        let down = ends.clone();
        let server: JoinHandle<_> = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            Server::builder()
                .serve_with_incoming_shutdown(DevicePluginServer::new(service), incoming, down.cancelled_owned())
                .await
        });
        let outcome = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            obstacle = self.register_and_watch(endpoint, &guard, streams.subscribe(), directory) => Err(obstacle),
        };
        ends.cancel();
        let abort = server.abort_handle();
        match timeout(STOP_DEADLINE, server).await {
            Ok(Ok(Err(error))) => {
                tracing::warn!(resource = %self.outlet.resource, error = causes(&error), "the server failed");
            }
            Ok(_) => {}
            Err(_) => abort.abort(),
        }
        drop(guard);
        outcome
    }

    async fn register_and_watch(
        &self,
        endpoint: String,
        guard: &SocketGuard,
        mut streams: watch::Receiver<usize>,
        directory: &mut watch::Receiver<DirectoryState>,
    ) -> Obstacle {
        let registration =
            Registration { endpoint, resource_name: self.outlet.resource.to_string(), options: options() };
        let registered = async {
            register(&self.paths.registration_socket(), registration).await?;
            match timeout(STREAM_DEADLINE, streams.wait_for(|open| *open > 0)).await {
                Ok(Ok(_)) => Ok(()),
                _ => Err(Obstacle::NoStream),
            }
        };
        // A kubelet that hangs may be replaced by one that does not.
        let another = directory.wait_for(|state| state.kubelet.is_some_and(|kubelet| kubelet != self.kubelet));
        tokio::select! {
            registered = registered => if let Err(obstacle) = registered {
                return obstacle;
            },
            _ = another => return Obstacle::KubeletRestarted,
        }
        self.status.serving(&self.outlet.resource);
        self.outlet.meter.registered();
        tracing::info!(resource = %self.outlet.resource, "registered");
        loop {
            tokio::select! {
                _ = streams.wait_for(|open| *open == 0) => return Obstacle::StreamEnded,
                changed = directory.changed() => {
                    let kubelet = directory.borrow_and_update().kubelet;
                    if changed.is_err() || kubelet.is_some_and(|kubelet| kubelet != self.kubelet) {
                        return Obstacle::KubeletRestarted;
                    }
                    if !guard.is_in_place() {
                        let taken = SocketIdentity::of(&guard.path).is_some();
                        return if taken { Obstacle::SocketTaken } else { Obstacle::SocketLost };
                    }
                }
            }
        }
    }
}

struct Socket {
    listener: UnixListener,
    guard: SocketGuard,
}

impl Socket {
    fn bind(directory: PathBuf, file: &str) -> Result<Self, Obstacle> {
        let path = directory.join(file);
        // A socket that answers is not a leftover.
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(Obstacle::SocketTaken);
        }
        let bound = remove_stale(&path).and_then(|()| UnixListener::bind(&path));
        let listener = bound.map_err(|source| Obstacle::Bind { directory, source })?;
        let identity = SocketIdentity::of(&path);
        Ok(Self { listener, guard: SocketGuard { path, identity } })
    }
}

/// Only a socket is removed: whatever else has this name was not left by us.
fn remove_stale(path: &Path) -> io::Result<()> {
    match SocketIdentity::of(path) {
        Some(_) => std::fs::remove_file(path),
        None => Ok(()),
    }
}

/// Removes the socket on every way out, unless another has taken its place.
struct SocketGuard {
    path: PathBuf,
    identity: Option<SocketIdentity>,
}

impl SocketGuard {
    fn is_in_place(&self) -> bool {
        self.identity.is_some() && SocketIdentity::of(&self.path) == self.identity
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if self.is_in_place() {
            // If it can't be removed, the next start does it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
