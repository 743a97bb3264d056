//! The labels of a node, as the API server is asked for them: a small one, which does with a Node what the real one does.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod api;
mod node;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use api::{ApiServer, Mood};
use node::{Agent, DEADLINE, G1, Node, fake_library, listed};
use rustix::process::Signal;

const NAME: &str = "node-a";

/// An agent that knows the way to the API server.
fn labelling(node: &Node, server: &ApiServer) -> Agent {
    let kubeconfig = node.path("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let arguments = ["--node-labels", "node", "--node-name", NAME];
    let mut command = node.agent_command(&fake_library(), &arguments);
    command.env("KUBECONFIG", kubeconfig);
    Agent::start(command, node.path("agent.log"))
}

fn until<T>(what: &str, agent: &Agent, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Until the node has the label so.
fn label(server: &ApiServer, agent: &Agent, name: &str, value: Option<&str>) -> BTreeMap<String, String> {
    let what = format!("{name} to be {value:?}");
    until(&what, agent, || {
        let labels = server.labels();
        (labels.get(name).map(String::as_str) == value).then_some(labels)
    })
}

const COUNT: &str = "nvidia.com/mig-1g.5gb.count";
const PRODUCT: &str = "nvidia.com/gpu.product";

#[tokio::test]
async fn labels_follow_the_layout_and_stay_when_the_agent_goes() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[("kubernetes.io/hostname", NAME), ("nvidia.com/gpu.present", "true")]);
    let kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    let labels = label(&server, &agent, COUNT, Some("9"));
    assert_eq!(labels["nvidia.com/mig.strategy"], "mixed");
    assert_eq!(labels["kubernetes.io/hostname"], NAME);
    agent.line("labels are on the node");

    // What is gone from the GPUs is gone from the node, whoever wrote it there: this agent or the one before.
    drop(agent);
    node.recut("gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 7g.40gb }] }]");
    let mut agent = labelling(&node, &server);
    let labels = label(&server, &agent, COUNT, None);
    assert!(!labels.keys().any(|name| name.contains("mig-1g.5gb") || name.contains("mig-3g")), "{labels:?}");
    assert_eq!(
        (labels["nvidia.com/mig-7g.40gb.count"].as_str(), labels["nvidia.com/gpu.present"].as_str()),
        ("1", "true")
    );
    node.recut("gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 1g.5gb }] }]");
    label(&server, &agent, COUNT, Some("1"));

    agent.send(Signal::TERM);
    assert!(agent.ended().success());
    assert_eq!(server.labels()[COUNT], "1");
    drop(kubelet);
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[]);
    let _kubelet = node.kubelet().await;
    let agent = labelling(&node, &server);
    label(&server, &agent, COUNT, Some("9"));
    let gets = server.count("GET");
    until("two looks at the node", &agent, || (server.count("GET") >= gets + 2).then_some(()));
    assert_eq!(server.count("PATCH"), 1);
    // Only somebody who took a label away is answered.
    server.set(COUNT, None);
    label(&server, &agent, COUNT, Some("9"));
    assert_eq!(server.count("PATCH"), 2);
}

#[tokio::test]
async fn labels_of_others_are_left_to_them() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(PRODUCT, "ours"), ("nvidia.com/gpu.family", "other")]);
    let _kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    let labels = label(&server, &agent, COUNT, Some("9"));
    assert_eq!((labels[PRODUCT].as_str(), labels["nvidia.com/gpu.family"].as_str()), ("ours", "other"));
    let line = agent.line("somebody else has set labels");
    assert!(line.contains("nvidia.com/gpu.family, nvidia.com/gpu.product"), "{line}");
    let patches = server.count("PATCH");
    let gets = server.count("GET");
    until("two looks at the node", &agent, || (server.count("GET") >= gets + 2).then_some(()));
    assert_eq!(server.count("PATCH"), patches, "they are fought over");
    server.set(PRODUCT, None);
    label(&server, &agent, PRODUCT, Some("NVIDIA-A100-SXM4-40GB"));
    assert_eq!(agent.log().matches("somebody else has set labels").count(), 1, "{}", agent.log());
    assert_eq!(server.labels()["nvidia.com/gpu.family"], "other");
}

#[tokio::test]
async fn where_gfd_runs_our_labels_go_and_come_back_after_it() {
    const GFDS: &str = "nvidia.com/gfd.timestamp";
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(GFDS, "1700000000")]);
    let kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    agent.line("no labels: NVIDIA's gpu-feature-discovery writes them");
    assert_eq!(server.labels().len(), 1);
    listed(&kubelet, G1, 9, 9).await;
    server.set(GFDS, None);
    label(&server, &agent, COUNT, Some("9"));
    server.set(GFDS, Some("1700000001"));
    label(&server, &agent, COUNT, None);
    assert_eq!(server.labels().len(), 1);
}

/// Whatever the API server does, the kubelet is served, and the log has one line for each reason.
#[tokio::test]
async fn an_api_server_that_refuses_is_asked_again_and_told_of_once() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[]);
    server.becomes(Mood::Forbids);
    let kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    let line = agent.line("labels are not written");
    assert!(line.contains(r#""level":"WARN""#) && line.contains("get and patch on nodes"), "{line}");
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    until("another attempt", &agent, || (server.count("GET") >= 2).then_some(()));
    assert_eq!(agent.log().matches("labels are not written").count(), 1, "{}", agent.log());

    server.becomes(Mood::Fails);
    until("the other reason", &agent, || (agent.log().matches("labels are not written").count() == 2).then_some(()));
    assert!(agent.log().contains("the API server answers 500"), "{}", agent.log());
    server.becomes(Mood::Obliges);
    label(&server, &agent, COUNT, Some("9"));
    agent.line("labels are on the node");
    // Of the client's own lines none is seen.
    assert!(!agent.log().contains("failed with"), "{}", agent.log());
}

#[tokio::test]
async fn an_api_server_that_is_away_or_hangs_keeps_nobody_waiting() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[]);
    server.becomes(Mood::Hangs);
    let kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    until("a request", &agent, || (server.count("GET") >= 1).then_some(()));
    listed(&kubelet, G1, 9, 9).await;
    kubelet.admit(kubelet_sim::Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    agent.ready(|status, _| status.contains("200"));
    agent.line("the API server has not answered for");
    agent.send(Signal::TERM);
    assert!(agent.ended().success());

    drop(server);
    let away = ApiServer::gone(NAME);
    let mut agent = labelling(&node, &away);
    agent.line("labels are not written");
    assert!(agent.log().contains("Connection refused"), "{}", agent.log());
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test]
async fn who_has_no_way_to_the_api_server_is_told_what_is_missing() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--node-labels", "node", "--node-name", NAME]);
    let line = agent.line("labels are not written");
    assert!(line.contains("automountServiceAccountToken") && line.contains("KUBECONFIG"), "{line}");
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
}

#[tokio::test]
async fn the_name_must_be_a_nodes() {
    let node = Node::new("demo");
    let server = ApiServer::start("another", &[]);
    let _kubelet = node.kubelet().await;
    let mut agent = labelling(&node, &server);
    let line = agent.line("labels are not written");
    assert!(line.contains("answers 404") && line.contains("--node-name"), "{line}");
}
