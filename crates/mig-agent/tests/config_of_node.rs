//! The node's own configuration, which its label names in a folder of several.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod api;
mod node;

use std::fs;

use api::{ApiServer, Mood};
use kubelet_sim::{Kubelet, Pod};
use node::{Agent, G1, Node, fake_library, listed};

const NAME: &str = "node-a";
const LABEL: &str = "nvidia.com/device-plugin.config";
const WHOLE: &str = "nvidia.com/gpu";

fn shares(replicas: usize) -> String {
    format!("version: v1\nsharing: {{timeSlicing: {{resources: [{{name: {G1}, replicas: {replicas}}}]}}}}\n")
}

/// A folder with three configurations, and an agent that is to choose.
fn choosing(node: &Node, server: &ApiServer, arguments: &[&str]) -> Agent {
    let folder = node.path("configs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("twice"), shares(2)).unwrap();
    fs::write(folder.join("thrice"), shares(3)).unwrap();
    fs::write(folder.join("default"), "version: v1\n").unwrap();
    let kubeconfig = node.path("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let folder = folder.display().to_string();
    let own = ["--node-name", NAME, "--config-file-srcdir", &folder, "--settle-time=50ms"];
    let mut command = node.agent_command(&fake_library(), &[&own, arguments].concat());
    command.env("KUBECONFIG", kubeconfig);
    Agent::start(command, node.path("agent.log"))
}

async fn offered(kubelet: &Kubelet, count: usize) {
    listed(kubelet, G1, count, count).await;
}

#[tokio::test]
async fn the_nodes_label_names_its_configuration() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "twice")]);
    let kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    offered(&kubelet, 18).await;
    // Another, under way; and none, which is the default.
    let pod = kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    server.set(LABEL, Some("thrice"));
    offered(&kubelet, 27).await;
    server.set(LABEL, None);
    agent.line("the configuration is in force");
    let held = kubelet.resources()[G1].allocated.clone();
    assert_eq!(held.len(), 1, "the pod has what it had: {pod:?}");
    // Its share stays, Unhealthy, and its slice is not given to another meanwhile.
    listed(&kubelet, G1, 10, 8).await;
    kubelet.delete("train").await;
    offered(&kubelet, 9).await;
    assert!(
        !agent.log().contains("unable to watch"),
        "it is watched, and not asked for again and again:\n{}",
        agent.log()
    );
}

#[tokio::test]
async fn an_unknown_name_keeps_the_last_good_one_and_says_so() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "twice")]);
    let kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    offered(&kubelet, 18).await;
    for name in ["fourfold", "..", "twice/../thrice"] {
        server.set(LABEL, Some(name));
        let line = agent.line(&format!("the node's label names {name:?}").replace('"', "\\\""));
        assert!(line.contains("the last good one stays in force") && line.contains("default, thrice, twice"), "{line}");
    }
    offered(&kubelet, 18).await;
    assert!(agent.get("/readyz").0.contains("200"));
    // A file of that name may come later: a ConfigMap is updated in its own time.
    fs::write(node.path("configs/fourfold"), shares(4)).unwrap();
    server.set(LABEL, Some("fourfold"));
    offered(&kubelet, 36).await;
}

#[tokio::test]
async fn before_the_label_is_known_nothing_is_offered_and_the_agent_says_why() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "twice")]);
    server.becomes(Mood::Forbids);
    let kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    let body = agent.ready(|status, body| status.contains("503") && body.contains("get and watch on nodes"));
    assert!(body.contains("configuration: "), "{body}");
    assert!(kubelet.resources().is_empty());
    server.becomes(Mood::Obliges);
    offered(&kubelet, 18).await;
    // Once it is known it holds, whatever becomes of the API server.
    server.becomes(Mood::Fails);
    agent.line("unable to watch the label");
    offered(&kubelet, 18).await;
    agent.ready(|status, _| status.contains("200"));
    server.set(LABEL, Some("thrice"));
    server.becomes(Mood::Obliges);
    offered(&kubelet, 27).await;
}

#[tokio::test]
async fn who_may_not_watch_asks_ever_more_seldom_and_says_so_once() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "twice")]);
    server.becomes(Mood::ForbidsWatches);
    let kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    offered(&kubelet, 18).await;
    server.set(LABEL, Some("thrice"));
    offered(&kubelet, 27).await;
    // Three attempts, of two requests each.
    while server.count("GET") < 6 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    agent.line("get and watch on nodes");
    let log = agent.log();
    assert_eq!(log.matches("unable to watch").count(), 1, "{log}");
    assert!(!log.contains("watched again"), "{log}");
    server.becomes(Mood::Obliges);
    agent.line("watched again");
}

/// An XID is told once, and the rules by which it counts may come later.
#[tokio::test]
async fn an_xid_from_before_the_configuration_counts_by_it() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "strict")]);
    server.becomes(Mood::Forbids);
    fs::create_dir_all(node.path("configs")).unwrap();
    let strict = "version: v1\nhealth: {xids: [{numbers: [31], policy: unhealthy}]}\n";
    fs::write(node.path("configs/strict"), strict).unwrap();
    let kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    agent.ready(|status, body| status.contains("503") && body.contains("get and watch on nodes"));
    let (gpu, part) = node.place(&node.uuids("1g.5gb")[0]);
    node.xid(gpu, 31, Some(part));
    agent.line("XID 31");
    server.becomes(Mood::Obliges);
    listed(&kubelet, G1, 9, 8).await;
}

#[tokio::test]
async fn another_label_a_default_and_no_configuration_at_all() {
    let node = Node::new("demo");
    let server = ApiServer::start(NAME, &[(LABEL, "thrice"), ("example.com/mig", "twice")]);
    let kubelet = node.kubelet().await;
    let agent = choosing(&node, &server, &["--node-label", "example.com/mig"]);
    offered(&kubelet, 18).await;
    drop(agent);
    server.set(LABEL, None);
    let agent = choosing(&node, &server, &["--default-config=thrice"]);
    offered(&kubelet, 27).await;
    drop(agent);
    let _agent = choosing(&node, &server, &["--fallback-strategies=single,empty", "--mig-strategy=none"]);
    listed(&kubelet, WHOLE, 2, 2).await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let node = Node::new("demo");
    let server = ApiServer::start("node-b", &[(LABEL, "twice")]);
    let _kubelet = node.kubelet().await;
    let mut agent = choosing(&node, &server, &[]);
    let body = agent.ready(|status, body| status.contains("503") && body.contains("shows no Node"));
    assert!(body.contains("node-a") && body.contains("--node-name"), "{body}");
}
