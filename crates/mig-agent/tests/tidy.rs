//! The tidying of the node's status: the names of resources that are gone, which the kubelet leaves there for ever (#240).

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod api;
mod node;

use std::fs;
use std::time::{Duration, Instant};

use api::{ApiServer, Mood};
use kubelet_sim::Pod;
use node::{Agent, DEADLINE, G1, G3, Node, fake_library, listed};

const NAME: &str = "node-a";
const G7: &str = "nvidia.com/mig-7g.40gb";
const LISTS: [&str; 2] = ["capacity", "allocatable"];
const ONE_3G: &str = "gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 3g.20gb }] }]";
const BOTH: &str = "gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 3g.20gb }, { profile: 1g.5gb }] }]";
/// What is not ours, or may be somebody else's.
const OTHERS: [&str; 4] = ["nvidia.com/gpu", "nvidia.com/hostdev", "example.com/mig-1g.5gb", "cpu"];

fn tidying(node: &Node, server: &ApiServer, arguments: &[&str]) -> Agent {
    let kubeconfig = node.path("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let own = ["--tidy-node-status", "--tidy-node-status-after=300ms", "--node-name", NAME, "--settle-time=50ms"];
    let mut command = node.agent_command(&fake_library(), &[&own, arguments].concat());
    command.env("KUBECONFIG", kubeconfig);
    Agent::start(command, node.path("agent.log"))
}

fn until(what: &str, agent: &Agent, is: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has(server: &ApiServer, name: &str) -> bool {
    LISTS.iter().all(|list| server.amounts(list).contains_key(name))
}

fn lacks(server: &ApiServer, name: &str) -> bool {
    LISTS.iter().all(|list| !server.amounts(list).contains_key(name))
}

/// Long enough for several looks.
fn looks_on(server: &ApiServer, agent: &Agent) {
    // One name that is due a whole time from now.
    server.amount("nvidia.com/mig-2g.10gb", "0");
    until("the next name to go", agent, || lacks(server, "nvidia.com/mig-2g.10gb"));
}

/// A node that has been cut otherwise before, by whomever.
fn server() -> ApiServer {
    let server = ApiServer::start(NAME, &[]);
    for name in OTHERS {
        server.amount(name, "0");
    }
    server.amount(G7, "0");
    server
}

#[tokio::test]
async fn what_an_earlier_layout_has_left_is_taken_out_and_nothing_else() {
    let node = Node::written(ONE_3G);
    let server = server();
    let kubelet = node.kubelet().await;
    // Served, though the kubelet has not written its number yet.
    server.amount(G3, "0");
    let mut agent = tidying(&node, &server, &[]);
    listed(&kubelet, G3, 1, 1).await;
    until("the name to go", &agent, || lacks(&server, G7));
    agent.line("taken out of the status of the node node-a: nvidia.com/mig-7g.40gb");
    for name in OTHERS.iter().chain([&G3]) {
        assert!(has(&server, name), "{name}");
    }
    // Then there is nothing to do, and nothing is asked.
    let asked = server.count("GET");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((server.count("GET"), server.count("PATCH")), (asked, 1));
}

#[tokio::test]
async fn a_resource_that_goes_loses_its_server_and_then_its_name_and_may_come_back() {
    let node = Node::written(BOTH);
    let server = server();
    let kubelet = node.kubelet().await;
    let mut agent = tidying(&node, &server, &[]);
    for name in [G1, G3] {
        listed(&kubelet, name, 1, 1).await;
        server.amount(name, "1");
    }
    node.recut(ONE_3G);
    listed(&kubelet, G1, 0, 0).await;
    agent.line("no longer registered");
    until("its server to end", &agent, || !kubelet.resources()[G1].registered);
    // The kubelet writes its 0 later, and before that its name stays.
    looks_on(&server, &agent);
    assert!(has(&server, G1));
    server.amount(G1, "0");
    until("the name to go", &agent, || lacks(&server, G1));
    assert!(has(&server, G3));

    node.recut(BOTH);
    listed(&kubelet, G1, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    agent.ready(|status, _| status.contains("200"));
    // The other one has not noticed.
    assert_eq!((kubelet.resources()[G1].registrations, kubelet.resources()[G3].registrations), (2, 1));
}

#[tokio::test]
async fn what_a_pod_holds_keeps_its_server_and_its_name() {
    let node = Node::written(BOTH);
    let server = server();
    let kubelet = node.kubelet().await;
    let mut agent = tidying(&node, &server, &[]);
    listed(&kubelet, G1, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    node.recut(ONE_3G);
    listed(&kubelet, G1, 1, 0).await;
    server.amount(G1, "0");
    looks_on(&server, &agent);
    assert!(has(&server, G1) && kubelet.resources()[G1].registered);
    kubelet.delete("train").await;
    agent.line("no longer registered");
    until("the name to go", &agent, || lacks(&server, G1));
}

/// Between the look and the change the kubelet may write another number: the whole change is refused, and made anew.
#[tokio::test]
async fn a_name_that_is_not_0_any_more_stays() {
    let node = Node::written(ONE_3G);
    let server = server();
    let _kubelet = node.kubelet().await;
    server.amount("nvidia.com/mig-1g.10gb", "0");
    server.amount_before_patch(G7, "1");
    let agent = tidying(&node, &server, &[]);
    until("the other name to go", &agent, || lacks(&server, "nvidia.com/mig-1g.10gb"));
    assert!(has(&server, G7));
    assert!(!agent.log().contains("is not tidied"), "{}", agent.log());
}

#[tokio::test]
async fn who_may_not_is_told_once_and_serves_on() {
    let node = Node::written(ONE_3G);
    let server = server();
    server.becomes(Mood::Forbids);
    let kubelet = node.kubelet().await;
    let mut agent = tidying(&node, &server, &[]);
    let line = agent.line("is not tidied");
    assert!(line.contains(r#""level":"WARN""#) && line.contains("patch on nodes/status"), "{line}");
    listed(&kubelet, G3, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));
    until("another attempt", &agent, || server.count("GET") >= 2);
    assert_eq!(agent.log().matches("is not tidied").count(), 1, "{}", agent.log());

    server.becomes(Mood::Denies);
    until("the other reason", &agent, || agent.log().matches("is not tidied").count() == 2);
    assert!(agent.log().contains("an admission policy or a webhook forbids it"), "{}", agent.log());
    assert!(has(&server, G7));
    server.becomes(Mood::Obliges);
    until("the name to go", &agent, || lacks(&server, G7));
    agent.line("can be tidied again");
}

/// Before the GPUs have been read nothing is served, and every name would look like one that is gone.
#[tokio::test]
async fn nothing_is_tidied_while_the_gpus_cannot_be_read() {
    let node = Node::written(ONE_3G);
    let server = server();
    server.amount(G3, "0");
    node.add_fault("nvmlInit_v2", Some("DRIVER_NOT_LOADED"), None);
    let kubelet = node.kubelet().await;
    let mut agent = tidying(&node, &server, &["--poll-interval=50ms"]);
    agent.ready(|status, _| status.contains("503"));
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(server.count("GET") + server.count("PATCH"), 0);
    node.clear_faults();
    listed(&kubelet, G3, 1, 1).await;
    until("the name to go", &agent, || lacks(&server, G7));
    assert!(has(&server, G3));
}
