//! Who may hold what. The kubelet never says that a device is free again, so it is worked out from two sources: what
//! podresources lists, and what this agent has given out. What is unknown counts as held.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kubelet::{Holding, causes, list_holdings};
use mig_model::{ResourceDomain, ResourceName};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// After an Allocate the pod appears in podresources at once; the first look is soon, so that pods that live for
/// seconds are seen too.
const SOON: Duration = Duration::from_millis(200);
/// While a vanished device waits to be let go.
const WAITING: Duration = Duration::from_secs(1);
/// While nothing changes, and while podresources can't be read.
const SELDOM: Duration = Duration::from_secs(30);

/// How many settle times a device counts as held that was given out and never seen in podresources. Its pod may have
/// lived too briefly, or failed; or an init container has it, which podresources never lists.
const UNSEEN: u32 = 12;

/// What is known of the devices' holders.
#[derive(Debug)]
pub(crate) struct Usage {
    settle: Duration,
    state: Mutex<State>,
    given_out: Notify,
    readings: watch::Sender<u64>,
    /// Whether podresources was tried at all, with success or without.
    tried: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// When this agent started: what was given out before is not in `records`.
    started: Instant,
    records: HashMap<String, Record>,
    /// The last two readings of podresources, newest last.
    readings: Vec<Reading>,
    /// Whether some roster keeps ids only because they may be held.
    wanted: bool,
}

/// One device that this agent has given out.
#[derive(Debug)]
struct Record {
    at: Instant,
    /// Seen in podresources since.
    sighted: bool,
}

#[derive(Debug)]
struct Reading {
    began: Instant,
    held: HashMap<ResourceName, HashSet<String>>,
}

impl Record {
    /// From when on its absence from podresources means something.
    fn settled(&self, settle: Duration) -> Instant {
        self.at + if self.sighted { settle } else { settle * UNSEEN }
    }
}

impl State {
    /// Two readings in a row, begun after a point in time, lack the id.
    fn lacks(&self, id: &str, since: Instant) -> bool {
        self.readings.len() == 2 && self.readings.iter().all(|reading| reading.began >= since && !reading.holds(id))
    }
}

impl Reading {
    fn holds(&self, id: &str) -> bool {
        self.held.values().any(|ids| ids.contains(id))
    }
}

impl Usage {
    pub(crate) fn new(settle: Duration) -> Self {
        let state = State { started: Instant::now(), records: HashMap::new(), readings: Vec::new(), wanted: false };
        Self {
            settle,
            state: Mutex::new(state),
            given_out: Notify::new(),
            readings: watch::Sender::new(0),
            tried: watch::Sender::new(false),
        }
    }

    /// Nothing is done under the lock that can fail half-way, so its content is good even after a panic elsewhere.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocate has given these out.
    pub(crate) fn record<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let at = Instant::now();
        let mut state = self.state();
        state.records.extend(ids.map(|id| (id.to_owned(), Record { at, sighted: false })));
        drop(state);
        self.given_out.notify_one();
    }

    /// Whether no pod holds the id any more: two readings of podresources in a row lack it, both begun a settle time
    /// after the agent's start and after the id was last given out; much longer, if it was never seen there.
    pub(crate) fn is_free(&self, id: &str) -> bool {
        let state = self.state();
        let since = match state.records.get(id) {
            None => state.started + self.settle,
            Some(Record { at, sighted: true }) => *at + self.settle,
            Some(Record { at, sighted: false }) => *at + self.settle * UNSEEN,
        };
        state.readings.len() == 2 && state.readings.iter().all(|reading| reading.began >= since && !reading.holds(id))
    }

    /// What the last reading says pods hold of a resource.
    pub(crate) fn held(&self, resource: &ResourceName) -> Vec<String> {
        let state = self.state();
        let last = state.readings.last().and_then(|reading| reading.held.get(resource));
        last.map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    /// The resources of which pods hold something.
    pub(crate) fn held_resources(&self) -> Vec<ResourceName> {
        self.state().readings.last().map(|reading| reading.held.keys().cloned().collect()).unwrap_or_default()
    }

    /// Tells whether some roster waits for an answer of `is_free`.
    pub(crate) fn want(&self, wanted: bool) {
        let mut state = self.state();
        let news = wanted && !state.wanted;
        state.wanted = wanted;
        drop(state);
        if news {
            self.given_out.notify_one();
        }
    }

    /// Goes up with each reading.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.readings.subscribe()
    }

    /// Waits until podresources was tried once.
    pub(crate) async fn tried(&self) {
        // The sender lives as long as `self`.
        let _ = self.tried.subscribe().wait_for(|tried| *tried).await;
    }

    fn learn(&self, began: Instant, holdings: Vec<Holding>, domain: &ResourceDomain) {
        let mut held: HashMap<ResourceName, HashSet<String>> = HashMap::new();
        for holding in holdings {
            if let Some(resource) = ResourceName::recognise(&holding.resource, domain) {
                held.entry(resource).or_default().extend(holding.ids);
            }
        }
        let reading = Reading { began, held };
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
        records.retain(|id, record| !state.lacks(id, record.settled(self.settle)));
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
        let unsighted = state.records.values().any(|record| !record.sighted);
        unsighted.then_some(pause)
    }

    /// Reads podresources for as long as there is something to learn from it.
    pub(crate) async fn watch(&self, socket: PathBuf, domain: ResourceDomain) {
        let mut pause = SOON;
        let mut told = false;
        loop {
            let began = Instant::now();
            match list_holdings(&socket).await {
                Ok(holdings) => {
                    self.learn(began, holdings, &domain);
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
                    // Nobody is harmed by waiting: what is unknown counts as held.
                    pause = pause.max(WAITING);
                }
            }
            self.tried.send_replace(true);
            let more_often = self.given_out.notified();
            let look = match (told, self.next_look(pause)) {
                (true, _) => Some(pause),
                (false, next) => next,
            };
            let woken = async {
                match look {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = woken => pause = (pause * 2).min(SELDOM),
                () = more_often => {
                    pause = SOON;
                    sleep(pause).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(5);

    fn holding(id: &str) -> Vec<Holding> {
        let text = |text: &str| text.to_owned();
        vec![Holding {
            namespace: text("default"),
            pod: text("train"),
            container: text("main"),
            resource: text("nvidia.com/mig-1g.5gb"),
            ids: vec![text(id)],
        }]
    }

    impl Usage {
        /// Lets the settle time pass and reads twice that nobody holds anything.
        pub(crate) async fn certainly_free_now(&self, settle: Duration) {
            sleep(settle).await;
            learn(self, vec![]);
            learn(self, vec![]);
        }
    }

    fn learn(usage: &Usage, holdings: Vec<Holding>) {
        usage.learn(Instant::now(), holdings, &ResourceDomain::default());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_free_before_two_readings_and_the_settle_time() {
        let usage = Usage::new(SETTLE);
        learn(&usage, vec![]);
        learn(&usage, vec![]);
        assert!(!usage.is_free("MIG-a"), "both readings began too soon after the start");
        sleep(SETTLE).await;
        learn(&usage, vec![]);
        assert!(!usage.is_free("MIG-a"), "one good reading is not enough");
        learn(&usage, vec![]);
        assert!(usage.is_free("MIG-a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_out_is_free_when_it_was_seen_and_is_no_more() {
        let usage = Usage::new(SETTLE);
        usage.record(["MIG-a"].into_iter());
        sleep(SETTLE).await;
        learn(&usage, holding("MIG-a"));
        learn(&usage, vec![]);
        assert!(!usage.is_free("MIG-a"));
        learn(&usage, vec![]);
        assert!(usage.is_free("MIG-a"));
        assert!(usage.state().records.is_empty(), "what is free needs no record");
        usage.record(["MIG-a"].into_iter());
        assert!(!usage.is_free("MIG-a"), "given out again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_out_and_never_seen_counts_as_held_for_long() {
        let usage = Usage::new(SETTLE);
        usage.record(["MIG-a"].into_iter());
        sleep(SETTLE * (UNSEEN - 1)).await;
        learn(&usage, vec![]);
        learn(&usage, vec![]);
        assert!(!usage.is_free("MIG-a"), "an init container may hold it");
        sleep(SETTLE).await;
        learn(&usage, vec![]);
        learn(&usage, vec![]);
        assert!(usage.is_free("MIG-a"));
    }

    #[tokio::test(start_paused = true)]
    async fn other_peoples_resources_are_not_ours_to_list() {
        let usage = Usage::new(SETTLE);
        let foreign = Holding { resource: "example.com/mig-1g.5gb".to_owned(), ..holding("MIG-x").remove(0) };
        learn(&usage, [holding("MIG-a"), vec![foreign]].concat());
        let resource = ResourceName::mig(&ResourceDomain::default(), &"1g.5gb".parse().unwrap());
        assert_eq!(usage.held(&resource), ["MIG-a"]);
        assert_eq!(usage.held_resources(), [resource]);
    }
}
