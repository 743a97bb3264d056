//! Two owners of one resource name: NVIDIA's plugin, another release of this agent, or a plugin that nobody knows. The
//! kubelet serves neither of two for long, so there must be no fight, and nothing else may suffer.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;
#[path = "../../../tests/kubelet-sim/tests/plugin/mod.rs"]
mod plugin;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::process::Command;

use kubelet_sim::{Kubelet, Pod, Resource, ViolationKind, What};
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};
use plugin::{Plugin, all};
use rustix::process::Signal;

const OURS: &str = "mig-agent-mig-1g.5gb.sock";
const NVIDIAS: &str = "nvidia-mig-1g.5gb.sock";

/// A plugin as NVIDIA's: it calls its socket so, and registers once.
fn nvidias(node: &Node) -> Plugin {
    let mut plugin = Plugin::new(&node.kubelet_root(), G1, all(&["MIG-theirs-1", "MIG-theirs-2"]));
    plugin.endpoint = NVIDIAS.to_owned();
    plugin
}

/// As another release would be: another pod, and so another log.
fn second_agent(node: &Node) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    command
        .env_clear()
        .env("FAKE_NVML_STATE", node.path("state"))
        .env("NVML_LIBRARY", fake_library())
        .env("POLL_INTERVAL", "50ms")
        .env("SETTLE_TIME", "50ms")
        .env("STATE_DIR", node.path("second"))
        .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--kubelet-root"])
        .arg(node.kubelet_root());
    Agent::start(command, node.path("second.log"))
}

fn registrations(kubelet: &Kubelet, wanted: &str) -> usize {
    let of = |what: &What| matches!(what, What::RegisterReceived { endpoint, .. } if endpoint == wanted);
    kubelet.events().iter().filter(|event| of(&event.what)).count()
}

fn in_service(resources: &BTreeMap<String, Resource>, name: &str, capacity: usize) -> bool {
    resources.get(name).is_some_and(|resource| resource.registered && resource.allocatable == capacity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nvidias_plugin_offers_is_left_to_it_until_it_is_gone() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut theirs = nvidias(&node);
    theirs.serve();
    theirs.register().await.unwrap();
    listed(&kubelet, G1, 2, 2).await;

    let mut agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let body =
        agent.ready(|status, body| status.contains("503") && body.contains(NVIDIAS) && body.lines().count() == 1);
    assert!(body.starts_with(G1) && body.contains("take it off this node"), "{body}");
    assert!(agent.get("/healthz").0.contains("200"), "a restart would not help");
    // Whatever happens in the kubelet's directory makes it look again, and no more than that.
    for number in 0..20 {
        std::fs::write(node.path("kubelet/device-plugins/something"), number.to_string()).unwrap();
        std::fs::remove_file(node.path("kubelet/device-plugins/something")).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(registrations(&kubelet, OURS), 0);
    assert_eq!(kubelet.resources()[G1].devices.len(), 2, "NVIDIA's plugin serves on");
    assert_eq!(agent.log().matches("another device plugin offers it").count(), 1, "{}", agent.log());

    // It goes as a crash goes: its socket stays.
    theirs.stop().await;
    assert!(node.path("kubelet/device-plugins").join(NVIDIAS).exists());
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
}

/// Nothing tells this agent of what another plugin gives out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_plugin_gave_out_is_known_when_its_name_is_taken_over() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut theirs = nvidias(&node);
    theirs.serve();
    theirs.register().await.unwrap();
    listed(&kubelet, G1, 2, 2).await;
    let mut agent = node.agent(&["--settle-time=50ms"]);
    agent.ready(|status, body| status.contains("503") && body.contains(NVIDIAS));
    // It knows that nobody holds anything, and sees no reason to look again.
    let started = std::time::Instant::now();
    while !agent.get("/api/v1/inventory").1.contains("\"free\"") {
        assert!(started.elapsed() < DEADLINE, "{}", agent.get("/api/v1/inventory").1);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    theirs.stop().await;
    // Theirs stays listed, as what a pod holds of what is not there.
    listed(&kubelet, G1, 10, 9).await;
    assert_eq!(kubelet.resources()[G1].allocated.len(), 1);
    kubelet.delete("train").await;
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_a_plugin_left_behind_is_no_obstacle() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    for name in [NVIDIAS, OURS, "nvidiaGPU-1.sock"] {
        drop(UnixListener::bind(node.path("kubelet/device-plugins").join(name)).unwrap());
    }
    let _agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    assert!(node.path("kubelet/device-plugins").join(NVIDIAS).exists(), "what is not ours is not removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nvidias_plugin_under_another_domain_is_no_rival() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut theirs = nvidias(&node);
    theirs.serve();
    theirs.register().await.unwrap();
    let mut agent = node.agent(&["--resource-domain", "example.org"]);
    listed(&kubelet, "example.org/mig-1g.5gb", 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
}

/// With the strategy single, slices are offered as GPUs, and GKE's own plugin does so too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gkes_plugin_is_known_by_its_sockets_name() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut theirs = Plugin::new(&node.kubelet_root(), "nvidia.com/gpu", all(&["nvidia0/gi1"]));
    theirs.endpoint = "nvidiaGPU-1700000000.sock".to_owned();
    theirs.serve();
    theirs.register().await.unwrap();
    listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
    let mut agent = node.agent(&["--mig-strategy", "single"]);
    agent.ready(|status, body| status.contains("503") && body.contains("nvidiaGPU-1700000000.sock"));
    assert_eq!(kubelet.resources()["nvidia.com/gpu"].registrations, 1);
    theirs.stop().await;
    listed(&kubelet, "nvidia.com/gpu", 7, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_comes_later_is_not_fought_and_what_it_leaves_is_taken_up() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;

    let mut theirs = nvidias(&node);
    theirs.serve();
    theirs.register().await.unwrap();
    agent.ready(|status, body| status.contains("503") && body.contains(NVIDIAS));
    listed(&kubelet, G1, 2, 2).await;
    // A list from here would replace theirs, and pods would be given what their plugin does not know.
    node.recut("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]");
    listed(&kubelet, "nvidia.com/mig-2g.10gb", 0, 0).await;
    assert_eq!(kubelet.resources()[G1].devices.len(), 2);
    // Nor may the stream end: the kubelet would take it for theirs, which it then disconnects.
    let ended = |what: &What| matches!(what, What::StreamEnded { resource, .. } if resource == G1);
    assert!(!kubelet.events().iter().any(|event| ended(&event.what)));

    theirs.stop().await;
    node.recut("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}]");
    kubelet.wait_for(|now| now[G1].registrations == 3 && in_service(now, G1, 1), DEADLINE).await.unwrap();
    agent.ready(|status, _| status.contains("200"));
    let violations = kubelet.take_violations();
    assert_eq!(violations.len(), 1, "theirs, over our open stream: {violations:?}");
    assert_eq!(violations[0].kind, ViolationKind::RegisteredOverOpenStream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_the_second_waits_for_the_first_to_go() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let first = node.agent(&[]);
    let all_three =
        |now: &BTreeMap<String, Resource>| now.len() == 3 && now.values().all(|resource| resource.registered);
    kubelet.wait_for(all_three, DEADLINE).await.unwrap();

    let mut second = second_agent(&node);
    let body =
        second.ready(|status, body| status.contains("503") && body.matches("another mig-agent serves").count() == 3);
    assert!(body.contains(OURS) && body.contains("uninstall one of the two"), "{body}");
    assert_eq!(registrations(&kubelet, OURS), 1);
    assert!(kubelet.resources().values().all(|resource| resource.registrations == 1));

    // The kubelet starts anew, and wipes every socket: whoever of the two is first has it, and the other one waits.
    for _ in 0..20 {
        kubelet.restart().await.unwrap();
        listed(&kubelet, G1, 9, 9).await;
        listed(&kubelet, G3, 1, 1).await;
        assert_eq!(kubelet.violations(), []);
    }

    // As a crash, and then as a pod that is deleted.
    first.kill();
    kubelet.wait_for(all_three, DEADLINE).await.unwrap();
    listed(&kubelet, G1, 9, 9).await;
    second.ready(|status, _| status.contains("200"));
    let third = node.agent(&[]);
    let mut third = third;
    third.ready(|status, body| status.contains("503") && body.contains(OURS));
    second.send(Signal::TERM);
    assert_eq!(second.ended().code(), Some(0));
    listed(&kubelet, G1, 9, 9).await;
    third.ready(|status, _| status.contains("200"));
}

/// They share no socket, and yet one could give a whole GPU to a pod, and the other a slice of it to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_that_offer_other_names_do_not_serve_one_kubelet() {
    for other in [["--mig-strategy", "none"], ["--resource-domain", "example.org"]] {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let first = node.agent(&[]);
        listed(&kubelet, G1, 9, 9).await;
        let mut second = Agent::start(node.agent_command(&fake_library(), &other), node.path("second.log"));
        second.ready(|status, body| status.contains("503") && body.contains("another mig-agent serves"));
        assert_eq!(kubelet.resources().len(), 3, "it offers nothing");
        first.kill();
        second.ready(|status, _| status.contains("200"));
        assert!(kubelet.resources().len() > 3);
        second.send(Signal::TERM);
        assert_eq!(second.ended().code(), Some(0));
        assert!(!node.path("kubelet/device-plugins/mig-agent.lock").exists(), "nothing of it is left");
        assert_eq!(kubelet.violations(), []);
    }
}

/// A kubelet that lets go of the agent each time is one that listens to somebody else, whose name is not known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_rival_is_met_with_patience() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let _theirs = UnixListener::bind(node.path("kubelet/device-plugins/acme-gpus.sock")).unwrap();
    let mut times = 0;
    while !agent.log().contains("tries ever more seldom") {
        listed(&kubelet, G1, 9, 9).await;
        assert!(kubelet.hang_up(G1));
        times += 1;
        assert!(times < 10, "it was never told");
        let registered = registrations(&kubelet, OURS);
        kubelet.wait_for(|now| now[G1].registrations > registered || !now[G1].registered, DEADLINE).await.unwrap();
    }
    let line = agent.line("tries ever more seldom");
    assert!(line.contains("acme-gpus.sock") && line.contains(G1), "{line}");
    // Once is chance, and so is twice.
    assert!(times > 2, "{times}");
    listed(&kubelet, G3, 1, 1).await;
    assert_eq!(kubelet.resources()[G3].registrations, 1, "the others are left alone");
    // It goes on trying, and what holds is believed.
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
}
