//! The configuration file, on the agent as a process: what it says comes into force while pods hold slices, and what is
//! bad changes nothing.

mod node;
mod scrape;

use std::fs;
use std::os::unix::fs::symlink;

use kubelet_sim::Pod;
use node::{G1, G3, Node, listed, variable};
use rustix::process::Signal;
use scrape::Scrape;

const SHARED: &str = "nvidia.com/mig-1g.5gb.shared";
const RELOADED: &str = "mig_agent_config_last_reload_successful";
const PLAIN: &str = "version: v1\n";
const TWICE: &str = "version: v1\nsharing:\n  timeSlicing:\n    renameByDefault: true\n    failRequestsGreaterThanOne: true\n    \
                     resources:\n      - {name: nvidia.com/mig-1g.5gb, replicas: 2}\n";

#[tokio::test]
async fn shares_come_and_go_while_a_pod_holds_one() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    fs::write(&file, TWICE).unwrap();
    let mut agent = node.agent(&["--config-file", file.to_str().unwrap(), "--settle-time=10ms"]);
    listed(&kubelet, SHARED, 18, 18).await;
    listed(&kubelet, G3, 1, 1).await;
    let pod = kubelet.admit(Pod::new("one").container("main", [(SHARED, 1)])).await.unwrap();
    let uuid = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    assert!(node.uuids("1g.5gb").contains(&uuid), "{uuid} is a slice's own");
    let refused = kubelet.admit(Pod::new("greedy").container("main", [(SHARED, 2)])).await.unwrap_err();
    assert!(format!("{refused:?}").contains("failRequestsGreaterThanOne"), "{refused:?}");

    // Whole again, but not the slice of which a pod has a share; the other resource's stream is not touched.
    fs::write(&file, PLAIN).unwrap();
    listed(&kubelet, G1, 9, 8).await;
    kubelet.admit(Pod::new("rest").container("main", [(G1, 8)])).await.unwrap();
    kubelet.admit(Pod::new("more").container("main", [(G1, 1)])).await.unwrap_err();
    let log = agent.log();
    let registered = log.lines().filter(|line| line.contains(G3) && line.contains("registered")).count();
    assert_eq!(registered, 1, "{log}");
    kubelet.delete("one").await;
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|_, _| true);
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_is_told() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    // As a ConfigMap is mounted: the file is a link through a link that is swapped.
    for (version, text) in [("..1", TWICE), ("..2", "version: v1\nflags:\n  migStrategi: single\n"), ("..3", PLAIN)] {
        fs::create_dir_all(node.path(version)).unwrap();
        fs::write(node.path(version).join("config.yaml"), text).unwrap();
    }
    let swap = |version: &str| {
        symlink(version, node.path("..tmp")).unwrap();
        fs::rename(node.path("..tmp"), node.path("..data")).unwrap();
    };
    swap("..1");
    symlink("..data/config.yaml", node.path("config.yaml")).unwrap();
    let mut agent = node.agent(&["--config-file", node.path("config.yaml").to_str().unwrap()]);
    listed(&kubelet, SHARED, 18, 18).await;
    swap("..2");
    let line = agent.line("the last good one stays in force");
    assert!(line.contains("line 3") && line.contains("migStrategi"), "{line}");
    // Still ready, and told to whoever asks.
    let told = |body: &str| body.contains("the last good one stays in force") && body.contains("line 3");
    agent.ready(|status, body| status.contains("200") && body.contains("ready: ") && told(body));
    assert!(told(&agent.get("/").1));
    Scrape::until(&mut agent, "it is counted as bad", |scrape| scrape.sum(RELOADED, &[]) == Some(0.0));
    fs::remove_file(node.path("..data")).unwrap();
    agent.line("No such file");
    listed(&kubelet, SHARED, 18, 18).await;
    swap("..3");
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, body| status.contains("200") && body.lines().count() == 1);
    assert!(!told(&agent.get("/").1));
    Scrape::until(&mut agent, "it is good again", |scrape| scrape.sum(RELOADED, &[]) == Some(1.0));
    // The same as before the mistake: nothing changes, and yet the log's last word is not the mistake.
    agent.lines("the configuration is in force", 2);
    swap("..2");
    agent.lines("the last good one stays in force", 3);
    swap("..3");
    agent.lines("the configuration is in force", 3);
}

#[tokio::test]
async fn without_a_good_file_nothing_is_offered_and_the_reason_is_said() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    // A directory in its place.
    fs::create_dir(&file).unwrap();
    let mut agent = node.agent(&["--config-file", file.to_str().unwrap()]);
    agent.ready(|_, body| body.contains("configuration: ") && body.contains("it is not a file"));
    for (text, words) in [
        ("version: v2\n", "unknown version"),
        ("", "it is empty"),
        ("sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n", "there is no MPS here"),
        ("sharing: {timeSlicing: {resources: [{name: amd.com/gpu, replicas: 2}]}}\n", "another domain"),
    ] {
        let _ = fs::remove_dir(&file);
        fs::write(&file, text).unwrap();
        agent.ready(|_, body| body.contains(words));
    }
    assert!(kubelet.resources().is_empty(), "nothing is offered");
    fs::write(&file, PLAIN).unwrap();
    listed(&kubelet, G1, 9, 9).await;
}

#[tokio::test]
async fn the_command_line_goes_before_the_file() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    let text = "version: v1\nflags: {migStrategy: none, failOnInitError: true, plugin: {deviceListStrategy: [volume-mounts]}}\n\
                resources: {mig: [{pattern: '3g.*', name: nvidia.com/large}]}\n";
    fs::write(&file, text).unwrap();
    let mut agent = node.agent(&["--config-file", file.to_str().unwrap(), "--mig-strategy=mixed"]);
    listed(&kubelet, "nvidia.com/large", 1, 1).await;
    listed(&kubelet, G1, 9, 9).await;
    let pod = kubelet.admit(Pod::new("one").container("main", [("nvidia.com/large", 1)])).await.unwrap();
    assert_eq!(variable(&pod, "main", "NVIDIA_VISIBLE_DEVICES"), "/var/run/nvidia-container-devices");
    agent.line("have no effect here: flags.failOnInitError");
}

/// NVIDIA's config-manager sends it, and their plugin starts over.
#[tokio::test]
async fn a_hangup_reads_the_file_anew_and_ends_nothing() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    fs::write(&file, PLAIN).unwrap();
    let mut agent = node.agent(&["--config-file", file.to_str().unwrap()]);
    listed(&kubelet, G1, 9, 9).await;
    // Told again, though nothing has changed.
    agent.lines("the configuration is in force", 1);
    agent.send(Signal::HUP);
    agent.lines("the configuration is in force", 2);
    fs::write(&file, "version: v2\n").unwrap();
    agent.lines("the last good one stays in force", 1);
    agent.send(Signal::HUP);
    agent.lines("the last good one stays in force", 2);
    listed(&kubelet, G1, 9, 9).await;
    let log = agent.log();
    assert_eq!(log.matches("registered").count(), 3, "no stream begins anew: {log}");
    drop(agent);

    let mut agent = node.agent(&[]);
    agent.line("serving HTTP");
    agent.send(Signal::HUP);
    agent.line("SIGHUP: no configuration file is set");
    agent.send(Signal::QUIT);
    assert_eq!(agent.ended().code(), Some(0));
}
