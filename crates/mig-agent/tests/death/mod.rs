//! What the tests of deaths have in common: a stream of pods that goes on through all of them, pods that were there before, and what
//! has to be so afterwards.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; a seed is printed"
)]

pub(crate) mod footprint;
pub(crate) mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use kubelet_sim::{Kubelet, Options, Pod, PodAllocation, ViolationKind};

use crate::node::{G1, G3, Node, listed};
use stream::{Stream, given};

pub(crate) const G2: &str = "nvidia.com/mig-2g.10gb";

/// The sockets of an agent that serves the demo scene.
pub(crate) const SOCKETS: [&str; 3] =
    ["mig-agent-mig-1g.5gb.sock", "mig-agent-mig-2g.10gb.sock", "mig-agent-mig-3g.20gb.sock"];

/// Chance of this run, told so that it can be had again: `DEATH_SEED=... cargo test`.
pub(crate) fn chance() -> Rng {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = std::env::var("DEATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    println!("DEATH_SEED={seed}");
    Rng::with_seed(seed)
}

/// A node cut as the demo scene, and pods on it that hold its only 2g.10gb and one of its nine 1g.5gb.
pub(crate) struct Scenery {
    pub(crate) node: Node,
    pub(crate) kubelet: Arc<Kubelet>,
    residents: Vec<(&'static str, PodAllocation)>,
}

impl Scenery {
    /// For tests in which agents or kubelets start by the dozen, which is no fault of theirs.
    pub(crate) async fn new() -> Self {
        let node = Node::new("demo");
        let options = Options { lists_per_second: 1000, registrations_per_second: 1000, ..Options::default() };
        let kubelet = Arc::new(Kubelet::start_with(node.kubelet_root(), options).await.unwrap());
        Self { node, kubelet, residents: Vec::new() }
    }

    /// All slices are listed; the residents move in.
    pub(crate) async fn inhabit(&mut self) {
        self.all_listed().await;
        for (name, resource) in [("resident-2g", G2), ("resident-1g", G1)] {
            let pod = self.kubelet.admit(Pod::new(name).container("main", [(resource, 1)])).await.unwrap();
            self.residents.push((name, pod));
        }
    }

    pub(crate) async fn all_listed(&self) {
        listed(&self.kubelet, G1, 9, 9).await;
        listed(&self.kubelet, G2, 1, 1).await;
        listed(&self.kubelet, G3, 1, 1).await;
    }

    /// Pods come and go until the stream is [stopped](Self::settle).
    pub(crate) fn stream(&self, rng: &mut Rng) -> Stream {
        let held = self.residents.iter().flat_map(|(_, pod)| given(pod)).collect();
        Stream::start(Arc::clone(&self.kubelet), rng.fork(), held)
    }

    /// After it all: every slice is there, the residents have theirs, and each of the others is given out once.
    pub(crate) async fn settle(&self, stream: Stream) {
        let book = stream.stop().await;
        println!("{book:?}");
        assert!(book.admitted > 0, "the stream was none: {book:?}");
        self.all_listed().await;
        self.residents_have_theirs().await;

        let mut held: BTreeSet<String> = self.residents.iter().flat_map(|(_, pod)| given(pod)).collect();
        for (resource, count) in [(G1, 8), (G3, 1)] {
            let pod = Pod::new("rest").container("main", [(resource, count)]);
            let pod = self.kubelet.admit(pod).await.unwrap_or_else(|error| panic!("{resource} is not back: {error}"));
            for uuid in given(&pod) {
                assert!(held.insert(uuid.clone()), "{uuid} is held twice");
            }
            self.kubelet.delete("rest").await;
        }
        let all: BTreeSet<String> =
            ["1g.5gb", "2g.10gb", "3g.20gb"].iter().flat_map(|profile| self.node.uuids(profile)).collect();
        assert_eq!(held, all);
        self.violations();
    }

    /// What a container of theirs is given when it starts again is what it had.
    pub(crate) async fn residents_have_theirs(&self) {
        for (name, pod) in &self.residents {
            let again = self.kubelet.restart_container(name, "main").await.unwrap();
            assert_eq!(again.envs, pod.containers["main"].envs, "{name}");
        }
        let allocated: BTreeSet<String> =
            self.kubelet.resources().into_values().flat_map(|resource| resource.allocated).collect();
        let theirs: BTreeSet<String> = self.residents.iter().flat_map(|(_, pod)| given(pod)).collect();
        assert_eq!(allocated, theirs, "the kubelet's book");
    }

    /// Nothing that would have harmed a kubelet; but an agent that is killed between Register and the kubelet's dial is dialled in vain.
    pub(crate) fn violations(&self) {
        let mut violations = self.kubelet.take_violations();
        violations.retain(|violation| violation.kind != ViolationKind::SocketDidNotAnswer);
        assert!(violations.is_empty(), "{violations:#?}");
    }
}
