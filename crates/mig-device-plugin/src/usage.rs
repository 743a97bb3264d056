//! Who may hold what. The kubelet never says that a device is free again, so it is worked out from what podresources
//! lists, what this agent has given out, and what the driver sees running. What is unknown counts as held.

mod state;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kubelet::{Holding, SocketIdentity, causes, list_holdings};
use mig_model::{Device, GivenOut, Holder, NodeInventory, Pods, ResourceDomain, ResourceName, Use, uuid_of};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::ground::Ground;
use crate::metrics::Metrics;
use crate::mixture::mixtures;
pub use state::Earlier;
pub(crate) use state::{Elsewhere, is_ours};
use state::{Reading, Record, Sight, State, UNSEEN, is_uuid};

/// After an Allocate the pod appears in podresources at once; the first look is soon, so that pods that live for
/// seconds are seen too.
const SOON: Duration = Duration::from_millis(200);
/// After a failure; a kubelet serves podresources a moment before or after its registration.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// While a vanished device waits to be let go.
const WAITING: Duration = Duration::from_secs(1);
/// While nothing changes, and while podresources can't be read.
const SELDOM: Duration = Duration::from_secs(30);

/// An answer is on its way by then.
const NOTE_AFTER: Duration = Duration::from_millis(2);
/// The notes of an earlier agent are a small file.
const NOTES_DEADLINE: Duration = Duration::from_millis(250);

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
    /// What is given out may have changed since it was handed on.
    unnoted: Notify,
    /// There may be something to see right now.
    at_once: Notify,
    readings: watch::Sender<u64>,
    /// What may be held, for the agent that comes after this one.
    noted: watch::Sender<Vec<GivenOut>>,
    earlier: Earlier,
    /// Something was given out, and is not noted yet.
    is_behind: AtomicBool,
    /// What is known of other agents may be old.
    pub(crate) taken_over: Notify,
    /// When the last good reading of podresources began.
    read: watch::Sender<Option<Instant>>,
}

impl Usage {
    pub(crate) fn new(
        domain: ResourceDomain,
        settle: Duration,
        inventory: watch::Receiver<Option<Arc<NodeInventory>>>,
        mut earlier: Earlier,
        noted: watch::Sender<Vec<GivenOut>>,
    ) -> Self {
        Self {
            ground: Ground::default(),
            state: Mutex::new(State::new(earlier.take_first(), &domain)),
            domain,
            settle,
            inventory,
            news: Notify::new(),
            unnoted: Notify::new(),
            at_once: Notify::new(),
            readings: watch::Sender::new(0),
            noted,
            earlier,
            is_behind: AtomicBool::new(false),
            taken_over: Notify::new(),
            read: watch::Sender::new(None),
        }
    }

    /// Nothing is done under the lock that can fail half-way, so its content is good even after a panic elsewhere.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocate has given these out.
    pub(crate) fn record<'a>(&self, resource: &ResourceName, devices: impl Iterator<Item = &'a Device>) {
        let (at, name) = (Instant::now(), resource.to_string());
        let mut state = self.state();
        let mut is_new = false;
        for Device { id, gpu, .. } in devices {
            state.place(id, gpu);
            let record = Record { resource: name.clone(), at, sight: Sight::Never, given: true };
            let before = state.records.insert(id.clone(), record);
            is_new |= before.is_none_or(|before| before.resource != name || before.sight != Sight::Never);
        }
        drop(state);
        if is_new {
            self.is_behind.store(true, Ordering::Relaxed);
            self.unnoted.notify_one();
        }
        self.news.notify_one();
    }

    /// Hands on what is given out whenever it may have changed: after the answer, which is not to wait for it, and once for
    /// calls that come together.
    pub(crate) async fn keep_noted(&self) {
        loop {
            self.unnoted.notified().await;
            sleep(NOTE_AFTER).await;
            self.note();
        }
    }

    /// At the end: what was given out last is in no note yet. No more than that, since another agent may serve by now.
    pub(crate) fn note_the_last(&self) {
        if self.is_behind.load(Ordering::Relaxed) {
            self.note();
        }
    }

    /// Hands on what is given out, if that is news.
    fn note(&self) {
        let state = self.state();
        // An agent that waits for another must not write its own view over what that one gives out.
        if !state.serves {
            return;
        }
        let now = state.given_out(&self.domain);
        drop(state);
        self.is_behind.store(false, Ordering::Relaxed);
        self.noted.send_if_modified(|noted| {
            let changed = *noted != now;
            if changed {
                *noted = now;
            }
            changed
        });
    }

    /// Looks on which GPUs the held devices are, as long as there is somebody to tell.
    pub(crate) fn locate(&self) {
        let inventory = self.inventory.borrow().clone();
        let mut state = self.state();
        state.locate(inventory.as_deref());
        self.unnoted.notify_one();
    }

    /// The GPU that a held device is, or was, a part of; empty if it is not known.
    pub(crate) fn gpu_of(&self, id: &str) -> String {
        self.state().gpu_of(id).unwrap_or_default().to_owned()
    }

    /// The pods that hold the id, as far as is known at present. Good enough to be shown, not to drop an id: see
    /// [`Self::is_free`].
    pub(crate) fn pods_with(&self, id: &str) -> Pods {
        self.state().pods_with(id, self.settle)
    }

    /// The pods that hold the slice of that UUID, as whichever share and under whatever name.
    pub(crate) fn pods_on(&self, uuid: &str) -> Pods {
        self.state().pods_where(|own| uuid_of(own) == uuid, self.settle)
    }

    /// Whether a pod seems to hold the id, as [`Self::pods_with`] knows it, without asking which: good enough to choose by.
    pub(crate) fn is_held(&self, id: &str) -> Option<bool> {
        let state = self.state();
        let given_out = state.records.get(id).is_some_and(|record| record.sight == Sight::Never);
        let listed = state.readings.last().is_some_and(|reading| reading.holders.contains_key(id));
        let earlier = state.records.get(id).is_some_and(|record| record.sight == Sight::Earlier);
        let is_known = !state.failing && state.is_settled(self.settle) && !earlier;
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
            state.meet(kubelet, &self.domain);
            self.at_once.notify_one();
        }
        state.met
    }

    /// This agent has a resource from now on, and notes what is given out.
    pub(crate) fn serves(&self) {
        if !std::mem::replace(&mut self.state().serves, true) {
            self.unnoted.notify_one();
            // Who waits for this looks again.
            self.readings.send_modify(|count| *count += 1);
        }
    }

    /// Another agent, or plugin, may have had a resource since this kubelet was met. What it noted is learnt, as far as a
    /// disk that may hang lets us, and nothing counts as free before the settle time has passed again.
    pub(crate) async fn take_over(&self) {
        let earlier = self.earlier.clone();
        let read = spawn_blocking(move || earlier.read());
        let before = timeout(NOTES_DEADLINE, read).await.ok().and_then(Result::ok).unwrap_or_default();
        self.state().take_over(before, &self.domain);
        self.taken_over.notify_one();
    }

    /// Whether this agent has, or had, a resource.
    pub(crate) fn is_serving(&self) -> bool {
        self.state().serves
    }

    /// Has podresources read at once: what is known may be of any age. Gives the time since when it is to be known.
    pub(crate) fn ask_again(&self) -> Instant {
        self.at_once.notify_one();
        Instant::now()
    }

    /// Waits until podresources was read since then.
    pub(crate) async fn read_since(&self, since: Instant) {
        // The sender lives as long as `self`.
        let _ = self.read.subscribe().wait_for(|began| began.is_some_and(|began| began >= since)).await;
    }

    /// What the last reading says pods hold of a resource, and what was given out before that it need not know of.
    pub(crate) fn held(&self, resource: &ResourceName) -> Vec<String> {
        let (state, name) = (self.state(), resource.to_string());
        let listed = state.readings.last().and_then(|reading| reading.held.get(&name)).into_iter().flatten();
        let held: BTreeSet<&String> = listed.chain(state.of_earlier(&name)).collect();
        held.into_iter().cloned().collect()
    }

    /// The ids of a resource that pods seem to hold as such.
    pub(crate) fn held_here(&self, resource: &ResourceName) -> HashSet<String> {
        let (state, name) = (self.state(), resource.to_string());
        let listed = state.readings.last().and_then(|reading| reading.held.get(&name)).into_iter().flatten();
        // What was listed, and is no more, was just let go.
        let is_held = |record: &Record| record.resource == name && record.sight != Sight::Listed;
        let given_out = state.records.iter().filter(|(_, record)| is_held(record)).map(|(id, _)| id);
        listed.chain(given_out).cloned().collect()
    }

    /// What pods seem to hold otherwise than as one of these ids of this resource.
    pub(crate) fn held_otherwise(&self, resource: &ResourceName, own: &HashSet<String>) -> Elsewhere {
        let state = self.state();
        state.elsewhere(state.readings.last(), &resource.to_string(), own)
    }

    /// Whether no pod holds the device otherwise any more, as surely as [`Self::is_free`] says it of an id.
    pub(crate) fn is_let_go(&self, resource: &ResourceName, own: &HashSet<String>, device: &Device) -> bool {
        let (state, name) = (self.state(), resource.to_string());
        let since = state.met + self.settle * UNSEEN;
        let lacks =
            |reading: &Reading| reading.began >= since && !state.elsewhere(Some(reading), &name, own).has(device);
        state.readings.len() == 2 && state.readings.iter().all(lacks)
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

    /// Our resources of which pods hold something. A name that a configuration has given is known to be ours by who gave
    /// the device out; it may be in no configuration any more.
    pub(crate) fn held_resources(&self) -> Vec<ResourceName> {
        let state = self.state();
        let listed = state.readings.last().into_iter().flat_map(|reading| reading.held.keys());
        let listed = listed.filter_map(|name| ResourceName::recognise(name, &self.domain));
        let recorded = state.records.values().filter_map(|record| match record.given {
            true => ResourceName::parse(&record.resource, &self.domain).ok(),
            false => ResourceName::recognise(&record.resource, &self.domain),
        });
        listed.chain(recorded).collect::<BTreeSet<_>>().into_iter().collect()
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
            if reading.holds(id) {
                record.sight = Sight::Listed;
            }
        }
        if state.readings.len() == 2 {
            state.readings.remove(0);
        }
        state.readings.push(reading);
        // What is free needs no record: UUIDs of slices long destroyed would add up.
        let mut records = std::mem::take(&mut state.records);
        records.retain(|id, record| !state.lacks(id, Some(record), self.settle));
        state.records = records;
        state.locate(self.inventory.borrow().as_deref());
        drop(state);
        self.unnoted.notify_one();
        self.readings.send_modify(|count| *count += 1);
    }

    /// Until when nothing more is to be learnt, if so.
    fn next_look(&self, pause: Duration) -> Option<Duration> {
        let state = self.state();
        if state.wanted || state.readings.len() < 2 {
            return Some(pause.min(WAITING));
        }
        let last = state.readings.last();
        let lists = |id: &String| last.is_some_and(|reading| reading.holds(id));
        let is_certain = |(id, record): (&String, &Record)| record.sight == Sight::Listed && lists(id);
        if !state.is_settled(self.settle) || !state.records.iter().all(is_certain) {
            return Some(pause);
        }
        // One reading without it is not enough.
        let lacks = |id: &str| last.is_some_and(|reading| !reading.holds(id));
        if state.readings.first().is_some_and(|first| first.holders.keys().any(|id| lacks(id))) {
            return Some(pause);
        }
        // Only for those who want to see what is allocated: nothing tells when a pod lets go.
        let is_held = state.listed(&self.domain).next().is_some();
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
                () = self.at_once.notified() => {
                    pause = SOON;
                    retry = FIRST_RETRY;
                }
                () = self.news.notified(), if !told => {
                    pause = SOON;
                    let _ = timeout(pause, self.at_once.notified()).await;
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
