//! What a pod holds is not given to another, whatever changes meanwhile: strategy, MIG mode, the agent, the kubelet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;

use std::fs;
use std::time::{Duration, Instant};

use kubelet_sim::{Pod, PodResourcesMode, What};
use node::{Agent, DEADLINE, G1, G3, Node, listed, variable};
use serde_json::Value;

const GPU: &str = "nvidia.com/gpu";
const ONE_GPU: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 1g.5gb}]}]\n";

fn configured(node: &Node, strategy: &str) -> String {
    let file = node.path("config.yaml");
    let new = node.path("new.yaml");
    fs::write(&new, format!("version: v1\nflags: {{migStrategy: {strategy}}}\n")).unwrap();
    fs::rename(new, &file).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What is said of who uses a slice.
fn usage(agent: &mut Agent, uuid: &str) -> Value {
    let inventory: Value = serde_json::from_str(&agent.get("/api/v1/inventory").1).unwrap();
    let slices = inventory["slices"].as_array().cloned().unwrap_or_default();
    slices.iter().find(|slice| slice["uuid"] == uuid).map(|slice| slice["use"].clone()).unwrap_or_default()
}

fn until(agent: &mut Agent, uuid: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = usage(agent, uuid);
        if is(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{uuid} is {now}\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_free(usage: &Value) -> bool {
    usage["state"] == "free"
}

#[tokio::test]
async fn the_parts_of_a_gpu_that_a_pod_holds_whole_are_not_given_nor_the_whole_whose_part_one_holds() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    let file = configured(&node, "none");
    let agent = node.agent(&["--config-file", &file, "--settle-time=50ms"]);
    listed(&kubelet, GPU, 1, 1).await;
    kubelet.admit(Pod::new("whole").container("main", [(GPU, 1)])).await.unwrap();
    configured(&node, "mixed");
    listed(&kubelet, G3, 1, 0).await;
    listed(&kubelet, G1, 1, 0).await;
    kubelet.delete("whole").await;
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("part").container("main", [(G3, 1)])).await.unwrap();
    configured(&node, "none");
    listed(&kubelet, GPU, 1, 0).await;
    kubelet.delete("part").await;
    listed(&kubelet, GPU, 1, 1).await;
    agent.kill();
}

/// The kubelet may start a pod anew with what it had, so that a slice that is no more keeps its GPU from others.
#[tokio::test]
async fn mig_mode_off_does_not_give_away_the_gpu_of_a_slice_that_a_pod_has() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--settle-time=50ms"]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("part").container("main", [(G3, 1)])).await.unwrap();
    node.recut("gpus: [{model: A100-SXM4-40GB, mig: false}]\n");
    let gpu = node.world().gpus[0].uuid.clone();
    listed(&kubelet, GPU, 1, 0).await;
    assert_eq!(usage(&mut agent, &gpu)["state"], "allocated");
    // An agent that has never seen the slice knows it by the notes of the one before.
    agent.kill();
    let mut agent = node.agent(&["--settle-time=50ms"]);
    listed(&kubelet, GPU, 1, 0).await;
    listed(&kubelet, G3, 1, 0).await;
    kubelet.delete("part").await;
    listed(&kubelet, GPU, 1, 1).await;
    until(&mut agent, &gpu, is_free);
    assert_eq!(kubelet.violations(), []);
}

#[tokio::test]
async fn what_was_given_out_a_moment_before_a_restart_of_the_agent_is_not_free() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    // Their pods are not listed yet.
    kubelet.set_podresources(PodResourcesMode::Empty);
    let agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let large = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    let small = node.uuids("1g.5gb").remove(0);
    let notes = node.path("run/given-out.json");
    let deadline = Instant::now() + DEADLINE;
    while !fs::read_to_string(&notes).unwrap_or_default().contains(&large) {
        assert!(Instant::now() < deadline, "nothing is noted");
        std::thread::sleep(Duration::from_millis(1));
    }
    agent.kill();
    let mut agent = node.agent(&["--settle-time=1s"]);
    until(&mut agent, &small, is_free);
    assert_eq!(usage(&mut agent, &large)["state"], "allocated");
    kubelet.set_podresources(PodResourcesMode::Answering);
    let held = until(&mut agent, &large, |usage| usage["containers"][0]["pod"] == "train");
    assert_eq!(held["state"], "allocated");
}

/// An upgrade that overlaps: the new agent has watched for long, and has never seen what the old one gave out last.
#[tokio::test]
async fn what_an_agent_gave_out_is_not_free_for_the_one_that_waited_for_its_end() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    kubelet.set_podresources(PodResourcesMode::Empty);
    let first = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let command = node.agent_command(&node::fake_library(), &["--settle-time=1s"]);
    let mut second = Agent::start(command, node.path("second.log"));
    second.ready(|status, body| status.contains("503") && body.matches("another mig-agent serves").count() == 2);
    let small = node.uuids("1g.5gb").remove(0);
    until(&mut second, &small, is_free);
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let large = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    let notes = node.path("run/given-out.json");
    let deadline = Instant::now() + DEADLINE;
    while !fs::read_to_string(&notes).unwrap_or_default().contains(&large) {
        assert!(Instant::now() < deadline, "nothing is noted");
        std::thread::sleep(Duration::from_millis(1));
    }
    first.kill();
    listed(&kubelet, G1, 1, 1).await;
    second.ready(|status, _| status.contains("200"));
    until(&mut second, &large, |usage| usage["state"] == "allocated");
    let (gpu, (instance, _)) = node.place(&large);
    node.lose_slice(gpu, instance);
    listed(&kubelet, G3, 1, 0).await;
    assert!(fs::read_to_string(&notes).unwrap().contains(&large), "and the one after it will know, too");
    assert_eq!(kubelet.violations(), []);
}

/// The kubelet never forgets a name, and its pod's id is missed under that name.
#[tokio::test]
async fn what_is_held_under_a_name_that_no_configuration_has_any_more_is_listed_there() {
    const LARGE: &str = "nvidia.com/large";
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    let file = configured(&node, "mixed");
    fs::write(&file, "version: v1\nresources: {mig: [{pattern: 3g.20gb, name: large}]}\n").unwrap();
    let mut agent = node.agent(&["--config-file", &file]);
    listed(&kubelet, LARGE, 1, 1).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(LARGE, 1)])).await.unwrap();
    let uuid = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    until(&mut agent, &uuid, |usage| usage["containers"][0]["pod"] == "train");
    agent.kill();
    configured(&node, "mixed");
    let mut agent = node.agent(&["--config-file", &file, "--settle-time=50ms"]);
    listed(&kubelet, G3, 1, 0).await;
    listed(&kubelet, LARGE, 1, 0).await;
    kubelet.delete("train").await;
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, LARGE, 0, 0).await;
    until(&mut agent, &uuid, is_free);
    assert_eq!(kubelet.violations(), []);
}

#[tokio::test]
async fn a_kubelet_that_does_not_know_its_pods_yet_frees_nothing() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&["--settle-time=1s"]);
    listed(&kubelet, G3, 1, 1).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let large = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    let small = node.uuids("1g.5gb").remove(0);
    until(&mut agent, &large, |usage| usage["containers"][0]["pod"] == "train");
    kubelet.set_podresources(PodResourcesMode::Empty);
    kubelet.restart().await.unwrap();
    until(&mut agent, &small, |usage| !is_free(usage));
    until(&mut agent, &small, is_free);
    assert_eq!(usage(&mut agent, &large)["state"], "unknown");
}

/// The kubelet (1.36.2) panics over an allocated id that a list lacks.
#[tokio::test]
async fn the_first_list_of_a_restarted_agent_has_what_pods_hold_though_podresources_does_not_answer() {
    let node = Node::written(ONE_GPU);
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let uuid = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    until(&mut agent, &uuid, |usage| usage["containers"][0]["pod"] == "train");
    let (gpu, (instance, _)) = node.place(&uuid);
    node.lose_slice(gpu, instance);
    listed(&kubelet, G3, 1, 0).await;
    kubelet.set_podresources(PodResourcesMode::Silent);
    let before = kubelet.events().len();
    agent.kill();
    let agent = node.agent(&[]);
    let is_whole =
        |what: &What| matches!(what, What::List { resource, devices: 1, healthy: 0, first: true } if resource == G3);
    kubelet.wait_for_event(before, is_whole, DEADLINE).await.unwrap();
    listed(&kubelet, G1, 1, 1).await;
    assert_eq!(kubelet.violations(), []);
    agent.kill();
}
