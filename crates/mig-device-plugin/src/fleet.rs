//! All resources of the node: each gets a server of its own, and a change of one leaves the others alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubelet::{DirectoryLost, DirectoryState, KubeletPaths, watch_directory};
use mig_model::{GivenOut, NodeInventory, Offers, ResourceDomain, ResourceName, Unhealthy};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::claim::Claim;
use crate::container::ContainerSettings;
use crate::follow::follow;
use crate::metrics::Metrics;
use crate::mixture::tell_of_mixtures;
use crate::outlet::Outlet;
use crate::prepare::{Prepare, Prepared, leftover};
use crate::server::{Serving, keep_registered};
use crate::status::Status;
use crate::usage::{Earlier, Usage};

/// What is offered at one moment, and what containers get of it: one snapshot, so that no Allocate sees half of two
/// configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The node's devices by resource.
    pub offers: Offers,
    /// What containers get.
    pub container: Arc<ContainerSettings>,
}

/// How the node's resources are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the kubelet is.
    pub paths: KubeletPaths,
    /// Under which domain resources are offered.
    pub domain: ResourceDomain,
    /// How long after an Allocate, and after the agent's start, nothing counts as free.
    pub settle: Duration,
    /// How long a resource that is offered no more, and that nobody holds, keeps its server; for ever if nothing. The
    /// kubelet lists a resource in the node's status for as long as its plugin is there.
    pub retire: Option<Duration>,
    /// Where requests and registrations are counted and timed.
    pub metrics: Metrics,
    /// What an earlier agent has given out.
    pub before: Earlier,
    /// Takes what the agent that comes after this one will have to know of that.
    pub given_out: watch::Sender<Vec<GivenOut>>,
    /// Takes which devices are Unhealthy, and why.
    pub unhealthy: watch::Sender<Vec<Unhealthy>>,
}

/// Serves what is offered until told to stop, or until the kubelet can't be reached any more; then every stream has ended
/// and every socket is gone. `inventory` is looked at for what runs on the devices, and wakes nobody.
pub async fn run(
    settings: Settings,
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    inventory: watch::Receiver<Option<Arc<NodeInventory>>>,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), DirectoryLost> {
    let mut background = JoinSet::new();
    let (sender, directory) = watch::channel(DirectoryState { kubelet: None, changes: 0 });
    let mut directory_watch = tokio::spawn(watch_directory(settings.paths.clone(), sender));
    background.spawn(tell_of_the_kubelet(directory.clone(), settings.paths.clone()));
    let (before, given_out) = (settings.before.clone(), settings.given_out.clone());
    let usage = Arc::new(Usage::new(settings.domain.clone(), settings.settle, inventory, before, given_out));
    background.spawn(meet_kubelets(directory.clone(), Arc::clone(&usage)));
    background.spawn({
        let usage = Arc::clone(&usage);
        async move { usage.keep_noted().await }
    });
    let mut readings = usage.subscribe();
    let (sender, mut prepared) = watch::channel(None);
    let prepare = Arc::new(Prepare::new());
    background.spawn(tell_of_mixtures(Arc::clone(&usage), wanted.clone()));
    background.spawn(leftover::keep_up(Arc::clone(&prepare), wanted.clone(), Arc::clone(&usage)));
    background.spawn(follow(prepare, wanted, Arc::clone(&usage), Arc::clone(&status), sender));
    background.spawn({
        let usage = Arc::clone(&usage);
        let socket = settings.paths.pod_resources_socket();
        let metrics = settings.metrics.clone();
        async move { usage.watch(socket, &metrics).await }
    });
    let claim = Arc::new(Claim::new(&settings.paths.device_plugins()));
    let mut fleet = Fleet {
        claim,
        settings,
        status,
        directory,
        usage,
        stop: stop.clone(),
        resources: BTreeMap::new(),
        servers: JoinSet::new(),
        tells: false,
    };

    let mut lost = None;
    let mut goes_on = tokio::select! {
        () = stop.cancelled() => false,
        known = prepared.wait_for(Option::is_some) => known.is_ok(),
    };
    while goes_on {
        let now = prepared.borrow_and_update().clone();
        fleet.update(&now.unwrap_or_default());
        let due = fleet.retire();
        goes_on = tokio::select! {
            () = stop.cancelled() => false,
            changed = prepared.changed() => changed.is_ok(),
            changed = readings.changed() => changed.is_ok(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
            Some(Ok(retired)) = fleet.servers.join_next() => {
                fleet.forget(&retired);
                true
            }
            end = &mut directory_watch => {
                lost = end.ok().and_then(Result::err);
                false
            }
        };
    }
    stop.cancel();
    directory_watch.abort();
    while fleet.servers.join_next().await.is_some() {}
    fleet.usage.note_the_last();
    background.shutdown().await;
    lost.map_or(Ok(()), Err)
}

/// What is known of the devices' holders is as old as the kubelet that told it.
async fn meet_kubelets(mut directory: watch::Receiver<DirectoryState>, usage: Arc<Usage>) {
    loop {
        if let Some(kubelet) = directory.borrow_and_update().kubelet {
            usage.meet(kubelet);
        }
        if directory.changed().await.is_err() {
            return;
        }
    }
}

/// One line when the kubelet is missing, and one when it is there.
async fn tell_of_the_kubelet(mut directory: watch::Receiver<DirectoryState>, paths: KubeletPaths) {
    let socket = paths.registration_socket();
    let socket = socket.display();
    loop {
        if directory.wait_for(|state| state.changes > 0 && state.kubelet.is_none()).await.is_err() {
            return;
        }
        tracing::warn!(
            "no kubelet at {socket}: waiting for it (is it running, and is --kubelet-root its root directory?)"
        );
        if directory.wait_for(|state| state.kubelet.is_some()).await.is_err() {
            return;
        }
        tracing::info!("the kubelet is at {socket}");
    }
}

struct Fleet {
    settings: Settings,
    status: Arc<Status>,
    directory: watch::Receiver<DirectoryState>,
    usage: Arc<Usage>,
    stop: CancellationToken,
    resources: BTreeMap<ResourceName, Served>,
    servers: JoinSet<ResourceName>,
    /// What is Unhealthy was told.
    tells: bool,
    claim: Arc<Claim>,
}

/// A resource that has a server.
struct Served {
    outlet: Arc<Outlet>,
    /// Since when it is neither offered nor held.
    idle: Option<Instant>,
    stop: CancellationToken,
}

impl Fleet {
    /// Brings every list up to date, and starts a server for each resource that is new. A resource that is offered no
    /// more keeps its server, with an empty list in the end: it may come back.
    fn update(&mut self, prepared: &Prepared) {
        self.usage.ground.update(prepared);
        self.usage.locate();
        let held = self.usage.held_resources();
        let offered =
            prepared.resources.iter().filter(|(_, devices)| !devices.is_empty()).map(|(resource, _)| resource);
        for resource in offered.chain(&held) {
            if !self.resources.contains_key(resource) {
                self.start(resource, prepared);
            }
        }
        let mut waiting = prepared.keeps;
        for (resource, served) in &mut self.resources {
            let offered = prepared.resources.get(resource).map(Vec::as_slice).unwrap_or_default();
            waiting |= served.outlet.update(&prepared.container, offered);
            let has_use =
                !offered.is_empty() || held.contains(resource) || !served.outlet.roster().entries().is_empty();
            served.idle = if has_use { None } else { served.idle.or_else(|| Some(Instant::now())) };
        }
        self.usage.want(waiting);
        self.tell_of_the_unhealthy();
        self.status.begin();
    }

    fn tell_of_the_unhealthy(&mut self) {
        // An agent that waits for another leaves the word to that one; then it has it whatever was said before.
        if !self.usage.is_serving() {
            return;
        }
        let is_first = !std::mem::replace(&mut self.tells, true);
        let mut now: Vec<Unhealthy> =
            self.resources.values().flat_map(|served| served.outlet.roster().unhealthy().collect::<Vec<_>>()).collect();
        // The shares of a slice are one.
        now.sort();
        now.dedup();
        self.settings.unhealthy.send_if_modified(|told| {
            let changed = is_first || *told != now;
            *told = now;
            changed
        });
    }

    fn start(&mut self, resource: &ResourceName, prepared: &Prepared) {
        let meter = self.settings.metrics.of(resource);
        let outlet = Arc::new(Outlet::new(resource.clone(), Arc::clone(&self.usage), self.settings.settle, meter));
        // Before it serves, so that the first list is the right one.
        outlet.update(&prepared.container, prepared.resources.get(resource).map(Vec::as_slice).unwrap_or_default());
        self.status.add(Arc::clone(&outlet), "it is being registered");
        let stop = self.stop.child_token();
        let serving = Serving {
            outlet: Arc::clone(&outlet),
            paths: self.settings.paths.clone(),
            directory: self.directory.clone(),
            status: Arc::clone(&self.status),
            claim: Arc::clone(&self.claim),
            stop: stop.clone(),
        };
        let name = resource.clone();
        self.servers.spawn(async move {
            keep_registered(serving).await;
            name
        });
        self.resources.insert(resource.clone(), Served { outlet, idle: None, stop });
    }

    /// Stops the servers that have been idle for long, and says when the next one will have been.
    fn retire(&self) -> Option<Instant> {
        let patience = self.settings.retire?;
        let now = Instant::now();
        let mut next = None;
        for served in self.resources.values().filter(|served| !served.stop.is_cancelled()) {
            let Some(due) = served.idle.map(|since| since + patience) else { continue };
            if due > now {
                next = next.into_iter().chain([due]).min();
                continue;
            }
            tracing::info!(resource = %served.outlet.resource, "no longer registered: the node has none of it any more");
            served.stop.cancel();
        }
        next
    }

    /// Its server has ended, and with it what is said of the resource. If it is wanted again by now, it gets another.
    fn forget(&mut self, retired: &ResourceName) {
        self.resources.remove(retired);
        self.status.remove(retired);
    }
}
