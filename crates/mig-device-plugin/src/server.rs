//! One resource's socket: serve, register, and start over when the kubelet does.
//!
//! ```text
//!   wait for kubelet.sock -> nobody else has it -> bind, serve -> Register -> stream opens: registered
//!            ^                                                                    |
//!            |              new kubelet.sock, our socket gone, the stream ended, or another plugin came and went
//!            +---- end our streams, stop the server <-----------------------------+
//! ```
//! A kubelet that still reads an old stream when a plugin registers anew takes the new one down with it, so the old
//! server is gone before the next Register. For the same reason a registration that another plugin has taken over is held
//! until that one goes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kubelet::deviceplugin::device_plugin_server::DevicePluginServer;
use kubelet::{CallError, DirectoryState, KubeletPaths, Registration, SocketIdentity, causes, is_plugin, register};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use crate::callers::admit;
use crate::claim::Claim;
use crate::outlet::Outlet;
use crate::pause::{Pause, Setback};
use crate::rival;
use crate::service::{Contact, PluginService, Streams, note_caller, options};
use crate::socket::{Place, Socket, SocketGuard};
use crate::status::Status;

/// A kubelet opens its stream within milliseconds of Register.
const STREAM_DEADLINE: Duration = Duration::from_secs(5);
/// The kubelet asks for the options before it answers Register, and opens its stream on the same connection. Another, which
/// does not, has whichever stream was opened since.
const RECOGNITION_DEADLINE: Duration = Duration::from_millis(500);
/// Streams end at once when told to; what is left after this is cut off.
const STOP_DEADLINE: Duration = Duration::from_millis(500);
/// A kubelet that is there answers within milliseconds; one that hangs must not hold us up.
const READING_DEADLINE: Duration = Duration::from_millis(500);
/// Where podresources has no socket at all, it may come a moment later, or not be mounted here.
const ABSENCE_DEADLINE: Duration = Duration::from_millis(250);
/// Between looks at a plugin that is in the way.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
/// The kubelet's longest request names every device of a resource: this is room for ninety thousand, shares of slices among them.
const LONGEST_REQUEST: usize = 4 << 20;
/// The kubelet has a stream and a call or two under way.
const MOST_CALLS: u32 = 32;
const LONGEST_HEADERS: u32 = 8 << 10;

/// What each resource's server needs.
pub(crate) struct Serving {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) paths: KubeletPaths,
    pub(crate) directory: watch::Receiver<DirectoryState>,
    pub(crate) status: Arc<Status>,
    pub(crate) claim: Arc<Claim>,
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
    #[error(
        "another mig-agent serves {socket}, or took its place: this node has two, and this one leaves the resource to it (uninstall one of the two releases, or keep them apart by nodeSelector)"
    )]
    SocketTaken { socket: String },
    #[error(
        "another mig-agent serves this kubelet: this node has two, and this one offers nothing while the other is there (uninstall one of the two releases, or keep them apart by nodeSelector)"
    )]
    NodeTaken,
    #[error(
        "another device plugin offers it: {socket} answers in {}. Of two owners of one name the kubelet serves neither for long, so this agent leaves it alone until that plugin is gone (take it off this node: NVIDIA's chart by nodeSelector, the GPU operator's by devicePlugin.enabled=false, GKE's by the node's label gke-no-default-nvidia-gpu-device-plugin=true)",
        directory.display()
    )]
    Owned { socket: String, directory: PathBuf },
    #[error("the other device plugin is gone")]
    OwnerGone,
    #[error(
        "the kubelet closes the list's stream again and again, though it goes on itself: another device plugin seems to register this name, and this agent tries ever more seldom (in {}: {others})",
        directory.display()
    )]
    Expelled { others: String, directory: PathBuf },
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
            Self::SocketTaken { .. } => "SocketTaken",
            Self::NodeTaken => "NodeTaken",
            Self::Owned { .. } => "Owned",
            Self::OwnerGone => "OwnerGone",
            Self::Expelled { .. } => "Expelled",
            Self::KubeletRestarted => "KubeletRestarted",
        }
    }

    /// Whether another plugin may have the resource until it is registered here again.
    fn leaves_it_to_others(&self) -> bool {
        match self {
            Self::SocketTaken { .. }
            | Self::NodeTaken
            | Self::Owned { .. }
            | Self::OwnerGone
            | Self::Expelled { .. } => true,
            Self::NoKubelet(_)
            | Self::Bind { .. }
            | Self::Register(_)
            | Self::NoStream
            | Self::StreamEnded
            | Self::SocketLost
            | Self::KubeletRestarted => false,
        }
    }

    fn setback(&self) -> Setback {
        match self {
            Self::KubeletRestarted | Self::OwnerGone => Setback::None,
            Self::SocketTaken { .. } | Self::NodeTaken | Self::Owned { .. } => Setback::Taken,
            Self::StreamEnded | Self::NoStream | Self::Expelled { .. } => Setback::Expelled,
            // Its socket is there a moment before it listens.
            Self::Register(CallError::Connect { .. }) => Setback::Absence,
            Self::NoKubelet(_) | Self::Bind { .. } | Self::Register(_) | Self::SocketLost => Setback::Failure,
        }
    }
}

/// Keeps one resource registered until told to stop.
pub(crate) async fn keep_registered(serving: Serving) {
    let Serving { outlet, paths, mut directory, status, claim, stop } = serving;
    let mut pause = Pause::default();
    let mut known = None;
    // Somebody else may have had the resource since it was registered last, or since this agent waits for it.
    let mut given_up = false;
    let mut let_go = false;
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
        let before = known.replace(kubelet);
        // What the last one did says nothing of this one.
        if before.is_some_and(|before| before != kubelet) {
            pause = Pause::default();
        }
        // The first list must have what pods hold from before: leaving it out would be dropping it. Who did not say it of
        // this kubelet is not waited for at every attempt.
        let met = outlet.usage.meet(kubelet);
        let is_new = before != Some(kubelet);
        if is_new {
            tokio::select! {
                () = stop.cancelled() => return,
                () = learn_holders(&outlet, &paths, met) => {}
            }
        }
        // A kubelet that goes on, and let go of us, listens to somebody else; one that dies does so too.
        given_up |= std::mem::take(&mut let_go) && !is_new;
        let began = Instant::now();
        let session =
            Session { outlet: &outlet, paths: &paths, status: &status, claim: &claim, stop: &stop, kubelet, is_new };
        let mut obstacle = match session.run(&mut directory, &mut given_up).await {
            Ok(()) => return,
            Err(obstacle) => obstacle,
        };
        let setback = obstacle.setback();
        given_up |= obstacle.leaves_it_to_others();
        let_go = matches!(obstacle, Obstacle::StreamEnded);
        let rest = pause.after(setback, began.elapsed());
        if setback == Setback::Expelled && pause.is_a_fight() {
            let directory = paths.device_plugins();
            obstacle = Obstacle::Expelled { others: rival::others(&directory), directory };
        }
        note(&status, &outlet, &obstacle);
        if setback == Setback::Taken {
            // What is gone may leave its socket behind, so this looks from time to time.
            tokio::select! {
                () = stop.cancelled() => return,
                () = next_look(&mut directory, rest) => {}
            }
            continue;
        }
        // A new kubelet is worth an attempt at once.
        let renewed = directory.wait_for(|state| state.kubelet.is_some_and(|now| now != kubelet));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(rest) => {}
            _ = renewed => pause = Pause::default(),
        }
    }
}

/// Waits until it is known what pods hold since then, or nobody says.
async fn learn_holders(outlet: &Outlet, paths: &KubeletPaths, since: Instant) {
    let has_podresources = SocketIdentity::of(&paths.pod_resources_socket()).is_some();
    let patience = if has_podresources { READING_DEADLINE } else { ABSENCE_DEADLINE };
    let _ = timeout(patience, outlet.usage.read_since(since)).await;
    outlet.refresh();
}

/// After a pause, or when something has changed in the directory, though not at every change: some come by the hundred.
async fn next_look(directory: &mut watch::Receiver<DirectoryState>, pause: Duration) {
    sleep(SHORTEST_LOOK).await;
    // Without a directory to watch, the pause remains.
    if let Ok(Err(_)) = timeout(pause, directory.changed()).await {
        sleep(pause).await;
    }
}

/// Tells the log once, and those who ask whether we are ready.
fn note(status: &Status, outlet: &Outlet, obstacle: &Obstacle) {
    let why = causes(obstacle);
    outlet.meter.obstructed(obstacle.reason());
    if status.obstructed(&outlet.resource, &why) {
        match obstacle {
            Obstacle::KubeletRestarted | Obstacle::StreamEnded | Obstacle::SocketLost | Obstacle::OwnerGone => {
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
    claim: &'a Claim,
    stop: &'a CancellationToken,
    kubelet: SocketIdentity,
    /// It was not met before: what is known of pods is its own word, and fresh.
    is_new: bool,
}

impl Session<'_> {
    /// Ends with an obstacle, or without one when told to stop. The server is gone by then.
    async fn run(&self, directory: &mut watch::Receiver<DirectoryState>, given_up: &mut bool) -> Result<(), Obstacle> {
        // Changes up to here are known; what comes after, our own socket included, is looked at.
        directory.mark_unchanged();
        let endpoint = format!("mig-agent-{}.sock", self.outlet.resource.name());
        let begun = async {
            match self.rival().await {
                Some(obstacle) => Err(obstacle),
                None => self.bind(&endpoint).await,
            }
        };
        // Sockets whose owners hang are waited for, one by one; the end of the pod is not put off by them.
        let Socket { listener, guard } = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            begun = begun => begun?,
        };
        let contact = Arc::new(Contact::default());
        let service = PluginService::new(Arc::clone(self.outlet), Arc::clone(&contact));
        let ends = contact.stop.clone();
        // The last word: callers that say nothing do not notice that the server wants to stop.
        let cut = CancellationToken::new();
        let (callers, incoming) = mpsc::channel(1);
        tokio::spawn(admit(listener, callers, cut.clone()));
        let server: JoinHandle<_> = tokio::spawn(async move {
            let service = DevicePluginServer::new(service).max_decoding_message_size(LONGEST_REQUEST);
            Server::builder()
                .max_concurrent_streams(MOST_CALLS)
                .http2_max_header_list_size(LONGEST_HEADERS)
                .serve_with_incoming_shutdown(
                    InterceptedService::new(service, note_caller),
                    ReceiverStream::new(incoming),
                    ends.cancelled_owned(),
                )
                .await
        });
        let outcome = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            obstacle = self.register_and_watch(endpoint, &guard, &contact, directory, given_up) => Err(obstacle),
        };
        contact.stop.cancel();
        let abort = server.abort_handle();
        match timeout(STOP_DEADLINE, server).await {
            Ok(Ok(Err(error))) => {
                tracing::warn!(resource = %self.outlet.resource, error = causes(&error), "the server failed");
            }
            Ok(_) => {}
            Err(_) => abort.abort(),
        }
        cut.cancel();
        drop(guard);
        outcome
    }

    /// Another plugin that has the resource.
    async fn rival(&self) -> Option<Obstacle> {
        let directory = self.paths.device_plugins();
        let socket = rival::find(&directory, &self.outlet.resource).await?;
        Some(Obstacle::Owned { socket, directory })
    }

    async fn bind(&self, endpoint: &str) -> Result<Socket, Obstacle> {
        let directory = self.paths.device_plugins();
        match self.claim.take() {
            Ok(true) => {}
            Ok(false) if is_plugin(&directory.join(endpoint)).await => {
                return Err(Obstacle::SocketTaken { socket: endpoint.to_owned() });
            }
            Ok(false) => return Err(Obstacle::NodeTaken),
            Err(source) => return Err(Obstacle::Bind { directory, source }),
        }
        match Socket::bind(&directory, endpoint).await {
            Ok(Some(socket)) => Ok(socket),
            Ok(None) => Err(Obstacle::SocketTaken { socket: endpoint.to_owned() }),
            Err(source) => Err(Obstacle::Bind { directory, source }),
        }
    }

    async fn register_and_watch(
        &self,
        endpoint: String,
        guard: &SocketGuard,
        contact: &Contact,
        directory: &mut watch::Receiver<DirectoryState>,
        given_up: &mut bool,
    ) -> Obstacle {
        let mut streams = contact.streams.subscribe();
        let registration = Registration {
            endpoint: endpoint.clone(),
            resource_name: self.outlet.resource.to_string(),
            options: options(),
        };
        // Now that the name is ours: what another plugin gave out is not in the last reading, which may be of any age.
        if std::mem::take(given_up) {
            self.outlet.usage.take_over().await;
            if !self.is_new {
                learn_holders(self.outlet, self.paths, self.outlet.usage.ask_again()).await;
            }
            self.outlet.refresh();
        }
        // A kubelet that has just started has wiped it: there is nothing to register.
        if let Some(loss) = loss(guard, &endpoint) {
            return loss;
        }
        let registered = async {
            contact.registering.store(true, Ordering::Relaxed);
            contact.asked.store(true, Ordering::Relaxed);
            let answer = register(&self.paths.registration_socket(), registration).await;
            contact.registering.store(false, Ordering::Relaxed);
            answer?;
            if timeout(RECOGNITION_DEADLINE, streams.wait_for(|open| open.kubelet > 0)).await.is_ok() {
                return Ok(true);
            }
            match timeout(STREAM_DEADLINE, streams.wait_for(|open| open.any() > 0)).await {
                Ok(Ok(open)) => Ok(open.kubelet > 0),
                _ => Err(Obstacle::NoStream),
            }
        };
        // A kubelet that hangs may be replaced by one that does not.
        let another = directory.wait_for(|state| state.kubelet.is_some_and(|kubelet| kubelet != self.kubelet));
        let is_recognised = tokio::select! {
            registered = registered => match registered {
                Ok(is_recognised) => is_recognised,
                Err(obstacle) => return obstacle,
            },
            _ = another => return Obstacle::KubeletRestarted,
        };
        let has_ended = |open: &Streams| if is_recognised { open.kubelet == 0 } else { open.any() == 0 };
        self.outlet.usage.serves();
        self.status.serving(&self.outlet.resource);
        self.outlet.meter.registered();
        tracing::info!(resource = %self.outlet.resource, "registered");
        // It may have gone while the kubelet was asked: that news has been taken for one of the kubelet's own socket.
        if let Some(loss) = loss(guard, &endpoint) {
            return loss;
        }
        let mut pause = Pause::default();
        let mut yielded = false;
        loop {
            let look = async {
                if yielded {
                    next_look(directory, pause.after(Setback::Taken, Duration::ZERO)).await;
                } else {
                    let _ = directory.changed().await;
                }
            };
            tokio::select! {
                _ = streams.wait_for(has_ended) => return Obstacle::StreamEnded,
                () = look => {}
            }
            let watched = directory.has_changed().is_ok();
            let kubelet = directory.borrow_and_update().kubelet;
            if !watched || kubelet.is_some_and(|kubelet| kubelet != self.kubelet) {
                return Obstacle::KubeletRestarted;
            }
            if let Some(loss) = loss(guard, &endpoint) {
                return loss;
            }
            match self.rival().await {
                // It has come after us, and has the resource now. Our stream stays open, see above, and says nothing.
                Some(obstacle) if !yielded => {
                    yielded = true;
                    contact.silent.cancel();
                    note(self.status, self.outlet, &obstacle);
                }
                None if yielded => return Obstacle::OwnerGone,
                _ => {}
            }
        }
    }
}

/// What has become of a socket that should be there.
fn loss(guard: &SocketGuard, endpoint: &str) -> Option<Obstacle> {
    match guard.place() {
        Place::Ours => None,
        Place::Taken => Some(Obstacle::SocketTaken { socket: endpoint.to_owned() }),
        Place::Empty => Some(Obstacle::SocketLost),
    }
}
