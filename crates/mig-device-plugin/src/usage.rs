//! Who may hold what. The kubelet never says that a device is free again, so it is worked out from what podresources
//! lists, what this agent has given out, and what the driver sees running. What is unknown counts as held.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kubelet::{Holding, SocketIdentity, causes, list_holdings};
use mig_model::{Device, Holder, NodeInventory, Pods, ResourceDomain, ResourceName, Use, uuid_of};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::ground::Ground;
use crate::metrics::Metrics;
use crate::mixture::mixtures;

/// After an Allocate the pod appears in podresources at once; the first look is soon, so that pods that live for
/// seconds are seen too.
const SOON: Duration = Duration::from_millis(200);
/// After a failure; a kubelet serves podresources a moment before or after its registration.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// While a vanished device waits to be let go.
const WAITING: Duration = Duration::from_secs(1);
/// While nothing changes, and while podresources can't be read.
const SELDOM: Duration = Duration::from_secs(30);

/// For how many settle times absence from podresources means nothing: after a kubelet was met, which may have started a
/// moment ago and not know its pods yet; and for a device that was given out and never seen there. Its pod may have lived
/// too briefly, or failed; or an init container has it, which podresources never lists.
const UNSEEN: u32 = 12;

/// Of settle times, how often to look while pods hold something and nothing else is to be learnt.
const HELD: u32 = 6;

/// What is known of the devices' holders.
#[derive(Debug)]
pub(crate) struct Usage {
    /// What they could hold.
    pub(crate) ground: Ground,
    domain: ResourceDomain,
    settle: Duration,
    /// The last reading of the GPUs, for the processes on them.
    inventory: watch::Receiver<Option<Arc<NodeInventory>>>,
    state: Mutex<State>,
    /// There will soon be something to see.
    news: Notify,
    /// There may be something to see right now.
    another_kubelet: Notify,
    readings: watch::Sender<u64>,
    /// When the last good reading of podresources began.
    read: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    /// The kubelet that was met last, and when; before any, when this agent started. What was given out before that is
    /// not in `records`.
    kubelet: Option<SocketIdentity>,
    met: Instant,
    records: HashMap<String, Record>,
    /// The last two readings of podresources, newest last.
    readings: Vec<Reading>,
    /// Podresources could not be read when it was last tried.
    failing: bool,
    /// Whether some roster keeps ids only because they may be held.
    wanted: bool,
}

/// One device that this agent has given out.
#[derive(Debug)]
struct Record {
    resource: Option<ResourceName>,
    at: Instant,
    /// Seen in podresources since.
    sighted: bool,
}

#[derive(Debug)]
struct Reading {
    began: Instant,
    /// By resource, as the kubelet names it, other people's too.
    held: HashMap<String, HashSet<String>>,
    /// By id, of whichever resource.
    holders: HashMap<String, Vec<Holder>>,
    mixtures: BTreeSet<(String, Vec<String>)>,
}

impl State {
    /// The pods that hold one of these ids. That none does is known once podresources was read twice, the last time a
    /// settle time after the agent's start or its kubelet's.
    fn pods(&self, settle: Duration, is_one: impl Fn(&str) -> bool) -> Pods {
        let last = self.readings.last();
        let listed = last.into_iter().flat_map(|reading| &reading.holders).filter(|(id, _)| is_one(id));
        let mut holders: Vec<Holder> = listed.flat_map(|(_, holders)| holders).cloned().collect();
        let mut records = self.records.iter().filter(|(id, _)| is_one(id));
        if !holders.is_empty() || records.any(|(_, record)| !record.sighted) {
            holders.sort();
            holders.dedup();
            return Pods::Hold(holders);
        }
        if self.failing || !self.is_settled(settle) { Pods::Unknown } else { Pods::None }
    }

    /// Whether what podresources does not list is nothing.
    fn is_settled(&self, settle: Duration) -> bool {
        let late = |reading: &Reading| reading.began >= self.met + settle;
        self.readings.len() == 2 && self.readings.last().is_some_and(late)
    }

    /// Whether two readings in a row lack the id that mean something.
    fn lacks(&self, id: &str, record: Option<&Record>, settle: Duration) -> bool {
        let given_out = record.map(|record| record.at + if record.sighted { settle } else { settle * UNSEEN });
        let since = given_out.into_iter().fold(self.met + settle * UNSEEN, Instant::max);
        self.readings.len() == 2 && self.readings.iter().all(|reading| reading.began >= since && !reading.holds(id))
    }
}

impl Record {
    fn is_otherwise(&self, id: &str, resource: &ResourceName, own: &HashSet<String>) -> bool {
        self.resource.as_ref().is_some_and(|other| other != resource) || !own.contains(id)
    }
}

impl Reading {
    /// All ids that are held, but not these of this resource.
    fn otherwise<'r>(&'r self, resource: &'r str, own: &'r HashSet<String>) -> impl Iterator<Item = &'r String> {
        let ids = self.held.iter().flat_map(|(name, ids)| ids.iter().map(move |id| (name, id)));
        ids.filter(move |(name, id)| *name != resource || !own.contains(*id)).map(|(_, id)| id)
    }

    fn holds(&self, id: &str) -> bool {
        self.held.values().any(|ids| ids.contains(id))
    }
}

impl Usage {
    pub(crate) fn new(
        domain: ResourceDomain,
        settle: Duration,
        inventory: watch::Receiver<Option<Arc<NodeInventory>>>,
    ) -> Self {
        let met = Instant::now();
        let state =
            State { kubelet: None, met, records: HashMap::new(), readings: Vec::new(), failing: false, wanted: false };
        Self {
            ground: Ground::default(),
            domain,
            settle,
            inventory,
            state: Mutex::new(state),
            news: Notify::new(),
            another_kubelet: Notify::new(),
            readings: watch::Sender::new(0),
            read: watch::Sender::new(None),
        }
    }

    /// Nothing is done under the lock that can fail half-way, so its content is good even after a panic elsewhere.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocate has given these out.
    pub(crate) fn record<'a>(&self, resource: &ResourceName, ids: impl Iterator<Item = &'a str>) {
        let at = Instant::now();
        let mut state = self.state();
        let record = || Record { resource: Some(resource.clone()), at, sighted: false };
        state.records.extend(ids.map(|id| (id.to_owned(), record())));
        drop(state);
        self.news.notify_one();
    }

    /// The pods that hold the id, as far as is known at present. Good enough to be shown, not to drop an id: see
    /// [`Self::is_free`].
    pub(crate) fn pods_with(&self, id: &str) -> Pods {
        self.state().pods(self.settle, |own| own == id)
    }

    /// The pods that hold the slice of that UUID, as whichever share and under whatever name.
    pub(crate) fn pods_on(&self, uuid: &str) -> Pods {
        self.state().pods(self.settle, |own| uuid_of(own) == uuid)
    }

    /// Whether a pod seems to hold the id, as [`Self::pods_with`] knows it, without asking which: good enough to choose by.
    pub(crate) fn is_held(&self, id: &str) -> Option<bool> {
        let state = self.state();
        let given_out = state.records.get(id).is_some_and(|record| !record.sighted);
        let listed = state.readings.last().is_some_and(|reading| reading.holders.contains_key(id));
        let is_known = !state.failing && state.is_settled(self.settle);
        if given_out || listed { Some(true) } else { is_known.then_some(false) }
    }

    /// Whether no pod holds the id any more: two readings of podresources in a row lack it, both begun a settle time
    /// after it was last given out; much longer, if it was never seen there, and after the kubelet was met.
    pub(crate) fn is_free(&self, id: &str) -> bool {
        let state = self.state();
        state.lacks(id, state.records.get(id), self.settle)
    }

    /// Whether the id of a device that is offered no more can be forgotten: no pod holds it, and nothing runs on it but what
    /// belongs to a pod that holds it under another id.
    pub(crate) fn is_abandoned(&self, device: &Device) -> bool {
        if !self.is_free(&device.id) {
            return false;
        }
        let running = self.inventory.borrow().as_ref().and_then(|inventory| inventory.running_on(device));
        match Use::of(self.pods_on(&device.uuid), running) {
            Use::Free | Use::Allocated { .. } => true,
            Use::Outside { .. } | Use::Unknown { .. } => false,
        }
    }

    /// This kubelet is there. Gives the time since when it is known.
    pub(crate) fn meet(&self, kubelet: SocketIdentity) -> Instant {
        let mut state = self.state();
        if state.kubelet != Some(kubelet) {
            state.kubelet = Some(kubelet);
            state.met = Instant::now();
            self.another_kubelet.notify_one();
        }
        state.met
    }

    /// Waits until podresources was read since then.
    pub(crate) async fn read_since(&self, since: Instant) {
        // The sender lives as long as `self`.
        let _ = self.read.subscribe().wait_for(|began| began.is_some_and(|began| began >= since)).await;
    }

    /// What the last reading says pods hold of a resource.
    pub(crate) fn held(&self, resource: &ResourceName) -> Vec<String> {
        let state = self.state();
        let last = state.readings.last().and_then(|reading| reading.held.get(&resource.to_string()));
        last.map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    /// UUIDs that pods hold in another way than as one of these ids of this resource: after a change of strategy, names or
    /// sharing, what is held under the old name, or as another share, must not be given out under the new one.
    pub(crate) fn held_otherwise(&self, resource: &ResourceName, own: &HashSet<String>) -> HashSet<String> {
        let (state, name) = (self.state(), resource.to_string());
        let last = state.readings.last().into_iter().flat_map(|reading| reading.otherwise(&name, own));
        let given_out = state.records.iter().filter(|(id, record)| record.is_otherwise(id, resource, own));
        last.chain(given_out.map(|(id, _)| id)).map(|id| uuid_of(id).to_owned()).collect()
    }

    /// Whether no pod holds that UUID otherwise any more, as surely as [`Self::is_free`] says it of an id.
    pub(crate) fn is_let_go(&self, resource: &ResourceName, own: &HashSet<String>, uuid: &str) -> bool {
        let (state, name) = (self.state(), resource.to_string());
        let since = state.met + self.settle * UNSEEN;
        let lacks =
            |reading: &Reading| reading.began >= since && reading.otherwise(&name, own).all(|id| uuid_of(id) != uuid);
        let records = || state.records.iter().filter(|(id, _)| uuid_of(id) == uuid);
        let given_out = records().any(|(id, record)| record.is_otherwise(id, resource, own));
        state.readings.len() == 2 && state.readings.iter().all(lacks) && !given_out
    }

    /// Whether no pod holds that UUID in any way any more.
    pub(crate) fn is_unused(&self, uuid: &str) -> bool {
        let state = self.state();
        let since = state.met + self.settle * UNSEEN;
        let lacks =
            |reading: &Reading| reading.began >= since && reading.held.values().flatten().all(|id| uuid_of(id) != uuid);
        let mut given_out = state.records.iter().filter(|(id, _)| uuid_of(id) == uuid);
        state.readings.len() == 2
            && state.readings.iter().all(lacks)
            && given_out.all(|(id, record)| state.lacks(id, Some(record), self.settle))
    }

    /// Our resources of which pods hold something.
    pub(crate) fn held_resources(&self) -> Vec<ResourceName> {
        let state = self.state();
        let last = state.readings.last().into_iter().flat_map(|reading| reading.held.keys());
        last.filter_map(|name| ResourceName::recognise(name, &self.domain)).collect()
    }

    /// Containers that the last reading says have devices of several of our resources.
    pub(crate) fn mixtures(&self) -> BTreeSet<(String, Vec<String>)> {
        self.state().readings.last().map(|reading| reading.mixtures.clone()).unwrap_or_default()
    }

    /// Tells whether some roster waits for an answer of `is_free`.
    pub(crate) fn want(&self, wanted: bool) {
        let mut state = self.state();
        let news = wanted && !state.wanted;
        state.wanted = wanted;
        drop(state);
        if news {
            self.news.notify_one();
        }
    }

    /// Goes up with each reading.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.readings.subscribe()
    }

    fn learn(&self, began: Instant, holdings: Vec<Holding>) {
        let mixtures = mixtures(&holdings, &self.domain);
        let mut held: HashMap<String, HashSet<String>> = HashMap::new();
        let mut holders: HashMap<String, Vec<Holder>> = HashMap::new();
        for Holding { namespace, pod, container, resource, ids } in holdings {
            let holder = Holder { namespace, pod, container };
            // Other people's devices are nobody's slices.
            for id in ids.iter().filter(|id| is_uuid(uuid_of(id))) {
                holders.entry(id.clone()).or_default().push(holder.clone());
            }
            held.entry(resource).or_default().extend(ids);
        }
        let reading = Reading { began, held, holders, mixtures };
        let mut state = self.state();
        for (id, record) in &mut state.records {
            record.sighted |= reading.holds(id);
        }
        if state.readings.len() == 2 {
            state.readings.remove(0);
        }
        state.readings.push(reading);
        // What is free needs no record: UUIDs of slices long destroyed would add up.
        let mut records = std::mem::take(&mut state.records);
        records.retain(|id, record| !state.lacks(id, Some(record), self.settle));
        state.records = records;
        drop(state);
        self.readings.send_modify(|count| *count += 1);
    }

    /// Until when nothing more is to be learnt, if so.
    fn next_look(&self, pause: Duration) -> Option<Duration> {
        let state = self.state();
        if state.wanted || state.readings.len() < 2 {
            return Some(pause.min(WAITING));
        }
        if !state.is_settled(self.settle) || state.records.values().any(|record| !record.sighted) {
            return Some(pause);
        }
        // Only for those who want to see what is allocated: nothing tells when a pod lets go.
        let last = state.readings.last().into_iter().flat_map(|reading| reading.held.keys());
        let is_held = last.into_iter().any(|name| ResourceName::recognise(name, &self.domain).is_some());
        is_held.then_some(self.settle * HELD)
    }

    /// Reads podresources for as long as there is something to learn from it.
    pub(crate) async fn watch(&self, socket: PathBuf, metrics: &Metrics) {
        let mut pause = SOON;
        let mut retry = FIRST_RETRY;
        let mut told = false;
        loop {
            let began = Instant::now();
            let read = list_holdings(&socket).await;
            metrics.podresources_read(read.is_ok());
            self.state().failing = read.is_err();
            match read {
                Ok(holdings) => {
                    self.learn(began, holdings);
                    self.read.send_replace(Some(began));
                    retry = FIRST_RETRY;
                    if told {
                        tracing::info!("podresources can be read again");
                        told = false;
                    }
                }
                Err(error) => {
                    if !told {
                        told = true;
                        tracing::warn!(
                            error = causes(&error),
                            "unable to read podresources: devices that vanish stay listed as Unhealthy until it can be read"
                        );
                    }
                }
            }
            // A list may wait for it at first; later nobody is harmed, since what is unknown counts as held.
            let look = if told { Some(retry) } else { self.next_look(pause) };
            let woken = async {
                match look {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = woken => {
                    pause = (pause * 2).min(SELDOM);
                    retry = (retry * 2).min(SELDOM);
                }
                () = self.another_kubelet.notified() => {
                    pause = SOON;
                    retry = FIRST_RETRY;
                }
                () = self.news.notified(), if !told => {
                    pause = SOON;
                    sleep(pause).await;
                }
            }
        }
    }
}

/// Whether it may be a GPU's or a MIG device's: of a cluster's many devices most are not.
fn is_uuid(id: &str) -> bool {
    id.starts_with("MIG-") || id.starts_with("GPU-")
}

#[cfg(test)]
pub(crate) mod tests;
