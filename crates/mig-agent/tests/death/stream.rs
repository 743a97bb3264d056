//! Pods that come and go without a pause, and a book of who has which slice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kubelet_sim::{AdmissionError, Kubelet, Pod, PodAllocation};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::node::{DEADLINE, G1, G3};

/// So many pods at a time.
const MOST: usize = 5;

pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicUsize>,
    /// What goes on, for those who wonder why nothing does.
    now: Arc<Mutex<String>>,
    kubelet: Arc<Kubelet>,
    task: JoinHandle<Book>,
}

/// What has happened in a stream.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) admitted: usize,
    /// What pods that were refused were told, and how often.
    pub(crate) refused: BTreeMap<String, usize>,
}

/// The slices that a pod was given, by the variables of its containers.
pub(crate) fn given(pod: &PodAllocation) -> Vec<String> {
    let variables = pod.containers.values().flat_map(|container| &container.envs);
    let of_profiles = variables.filter(|(name, _)| name.starts_with("MIG_DEVICES_"));
    of_profiles.flat_map(|(_, value)| value.split(',')).map(str::to_owned).collect()
}

impl Stream {
    /// `held` are slices that others have for all the time.
    pub(crate) fn start(kubelet: Arc<Kubelet>, rng: Rng, held: BTreeSet<String>) -> Self {
        let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let now = Arc::new(Mutex::new(String::new()));
        let task = tokio::spawn(run(
            Arc::clone(&kubelet),
            rng,
            held,
            Arc::clone(&stop),
            Arc::clone(&admitted),
            Arc::clone(&now),
        ));
        Self { stop, admitted, now, kubelet, task }
    }

    /// Waits until another so many pods were admitted.
    pub(crate) async fn admits(&self, more: usize) {
        let goal = self.admitted.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + DEADLINE;
        while self.admitted.load(Ordering::Relaxed) < goal {
            assert!(!self.task.is_finished(), "the stream has failed");
            if Instant::now() > deadline {
                let one = self.now.lock().unwrap().clone();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let two = self.now.lock().unwrap().clone();
                let events = self.kubelet.events();
                let last = &events[events.len().saturating_sub(20)..];
                panic!("no pod is admitted any more: {one}; {two}; {last:#?} {:#?}", self.kubelet.resources());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Its pods are gone afterwards.
    pub(crate) async fn stop(self) -> Book {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(
    kubelet: Arc<Kubelet>,
    mut rng: Rng,
    held: BTreeSet<String>,
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicUsize>,
    now: Arc<Mutex<String>>,
) -> Book {
    let mut book = Book::default();
    let mut pods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        if pods.len() >= MOST || (!pods.is_empty() && rng.bool()) {
            let leaves = rng.choice(pods.keys()).unwrap().clone();
            *now.lock().unwrap() = format!("{leaves} is deleted");
            kubelet.delete(&leaves).await;
            pods.remove(&leaves);
        } else {
            number += 1;
            let name = format!("stream-{number}");
            *now.lock().unwrap() = format!("{name} is admitted");
            match kubelet.admit(demand(&name, &mut rng)).await {
                Ok(pod) => {
                    let mine: BTreeSet<String> = given(&pod).into_iter().collect();
                    for (other, theirs) in &pods {
                        assert!(mine.is_disjoint(theirs), "{name} was given {mine:?}, and {other} has {theirs:?}");
                    }
                    assert!(mine.is_disjoint(&held), "{name} was given {mine:?}, and residents have {held:?}");
                    pods.insert(name, mine);
                    book.admitted += 1;
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    *now.lock().unwrap() = format!("{name} was refused: {error}");
                    judge(&error);
                    *book.refused.entry(kind(&error)).or_default() += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_micros(rng.u64(0..2000))).await;
    }
    for pod in pods.keys() {
        kubelet.delete(pod).await;
    }
    book
}

fn demand(name: &str, rng: &mut Rng) -> Pod {
    let pod = Pod::new(name);
    match rng.u8(0..6) {
        0 => pod.container("main", [(G3, 1)]),
        1 => pod.container("main", [(G3, 1), (G1, 1)]),
        2 => pod.container("one", [(G1, 1)]).container("two", [(G1, 2)]),
        count => pod.container("main", [(G1, usize::from(count) - 2)]),
    }
}

/// While agents and kubelets die, pods fail; but not for these reasons.
fn judge(error: &AdmissionError) {
    let never = match error {
        AdmissionError::Panic { .. } | AdmissionError::NoAnswer => true,
        AdmissionError::Allocate(status) | AdmissionError::Preferred(status) => {
            matches!(status.code(), Code::InvalidArgument | Code::Internal | Code::Unimplemented)
                && std::error::Error::source(status).is_none()
        }
        _ => false,
    };
    assert!(!never, "{error}");
}

fn kind(error: &AdmissionError) -> String {
    let text = error.to_string();
    text.split([':', '.', ';']).next().unwrap_or_default().chars().take(60).collect()
}
