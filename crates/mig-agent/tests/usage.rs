//! Who uses what: pods, what was given out, and processes, in one answer for each slice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod node;

use std::time::{Duration, Instant};

use kubelet_sim::{Pod, PodResourcesMode};
use node::{Agent, DEADLINE, G1, G3, Node, listed};
use serde_json::{Value, json};

const SETTLED: &str = "--settle-time=50ms";

/// What the agent says of a slice; nothing before it has read the GPUs.
fn slice(agent: &mut Agent, uuid: &str) -> Value {
    let inventory: Value = serde_json::from_str(&agent.get("/api/v1/inventory").1).unwrap();
    let Some(slices) = inventory["slices"].as_array() else { return Value::Null };
    slices.iter().find(|slice| slice["uuid"] == uuid).unwrap_or_else(|| panic!("no {uuid} in {inventory}")).clone()
}

fn becomes(agent: &mut Agent, uuid: &str, usage: &Value) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = slice(agent, uuid);
        if now["use"] == *usage {
            return;
        }
        assert!(Instant::now() < deadline, "expected {usage}, but it is {now}\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free() -> Value {
    json!({"state": "free"})
}

fn held_by(pods: &[&str]) -> Value {
    let container = |pod: &&str| json!({"namespace": "default", "pod": pod, "container": "main"});
    json!({"state": "allocated", "containers": pods.iter().map(container).collect::<Vec<_>>()})
}

fn used_by(pid: u32, (instance, compute): (u32, u32)) -> Value {
    let process =
        json!({"pid": pid, "gpu_instance": instance, "compute_instance": compute, "memory_bytes": null, "name": null});
    json!({"state": "outside", "processes": [process]})
}

#[tokio::test]
async fn a_slice_is_free_a_pods_or_a_programs() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    becomes(&mut agent, &uuid, &free());
    let (gpu, part) = node.place(&uuid);
    node.run_process(gpu, 4711, Some(part));
    becomes(&mut agent, &uuid, &used_by(4711, part));
    assert_eq!(slice(&mut agent, &uuid)["state"], "outside");
    // Then it is the pod's, as far as anybody can tell.
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    becomes(&mut agent, &uuid, &held_by(&["train"]));
    node.end_process(4711);
    kubelet.delete("train").await;
    becomes(&mut agent, &uuid, &free());
}

/// Programs come and go by the second; the kubelet is not told.
#[tokio::test]
async fn processes_are_no_news_to_the_kubelet() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    becomes(&mut agent, &uuid, &free());
    let (gpu, part) = node.place(&uuid);
    let lists = |kubelet: &kubelet_sim::Kubelet| {
        kubelet.events().iter().filter(|event| matches!(event.what, kubelet_sim::What::List { .. })).count()
    };
    let before = lists(&kubelet);
    for pid in 1..4 {
        node.run_process(gpu, pid, Some(part));
        becomes(&mut agent, &uuid, &used_by(pid, part));
        node.end_process(pid);
        becomes(&mut agent, &uuid, &free());
    }
    assert_eq!(lists(&kubelet), before);
}

#[tokio::test]
async fn while_podresources_fails_nothing_is_free() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G1, 9, 9).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    becomes(&mut agent, &uuid, &free());
    let unknown = json!({"state": "unknown", "reason": "the kubelet has not said yet which pods hold what"});
    kubelet.set_podresources(PodResourcesMode::Failing);
    // Makes it look again.
    kubelet.admit(Pod::new("train").container("main", [(G1, 1)])).await.unwrap();
    becomes(&mut agent, &uuid, &unknown);
    kubelet.set_podresources(PodResourcesMode::Answering);
    becomes(&mut agent, &uuid, &free());
}

/// Rule 3: what was given out before is not known to the agent that has just started.
#[tokio::test]
async fn after_a_restart_of_the_agent_nothing_is_free_until_the_settle_time_has_passed() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let first = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let (large, small) = (node.uuids("3g.20gb").remove(0), node.uuids("2g.10gb").remove(0));
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    first.kill();
    let mut second = node.agent(&["--settle-time=1h"]);
    becomes(&mut second, &large, &held_by(&["train"]));
    second.ready(|status, _| status.contains("200"));
    // However often it looks.
    let listed = |kubelet: &kubelet_sim::Kubelet| {
        let is = |what: &kubelet_sim::What| matches!(what, kubelet_sim::What::PodResourcesListed { .. });
        kubelet.events().iter().filter(|event| is(&event.what)).count()
    };
    let before = listed(&kubelet);
    let deadline = Instant::now() + DEADLINE;
    while listed(&kubelet) < before + 3 {
        assert!(Instant::now() < deadline, "podresources is not read any more");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(slice(&mut second, &small)["use"]["state"], "unknown");
    second.kill();
    let mut third = node.agent(&[SETTLED]);
    becomes(&mut third, &small, &free());
    becomes(&mut third, &large, &held_by(&["train"]));
}

/// What is ill can be read all the same.
#[tokio::test]
async fn a_fault_of_the_gpu_hides_neither_programs_nor_that_a_slice_is_gone() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let (large, small) = (node.uuids("3g.20gb").remove(0), node.uuids("2g.10gb").remove(0));
    let (gpu, part) = node.place(&large);
    node.run_process(gpu, 4711, Some(part));
    node.xid(gpu, 79, None);
    listed(&kubelet, G3, 1, 0).await;
    becomes(&mut agent, &large, &used_by(4711, part));
    let (_, (instance, _)) = node.place(&small);
    node.lose_slice(gpu, instance);
    listed(&kubelet, "nvidia.com/mig-2g.10gb", 0, 0).await;
}

/// Without the monitor capability the driver tells what runs on the parts, and not what runs on the whole.
#[tokio::test]
async fn without_the_capability_the_parts_are_asked() {
    let gpu = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 1g.5gb}]}]\n";
    let node = Node::written(&format!("permission: none\n{gpu}"));
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let (large, small) = (node.uuids("3g.20gb").remove(0), node.uuids("1g.5gb").remove(0));
    let (index, part) = node.place(&large);
    node.run_process(index, 4711, Some(part));
    becomes(&mut agent, &large, &used_by(4711, part));
    becomes(&mut agent, &small, &free());
    // And one part that keeps it to itself leaves all of them in doubt; the GPU is well all the same.
    node.add_fault("nvmlDeviceGetComputeRunningProcesses_v3", Some("NO_PERMISSION"), None);
    let unknown = json!({"state": "unknown", "reason": "the driver does not say what runs on it"});
    becomes(&mut agent, &small, &unknown);
    listed(&kubelet, G3, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));
}

/// A process list that cannot be had is no fault of the GPU.
#[tokio::test]
async fn a_process_list_that_fails_harms_nobody() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G1, 9, 9).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    becomes(&mut agent, &uuid, &free());
    node.add_fault("nvmlDeviceGetComputeRunningProcesses_v3", Some("UNKNOWN"), None);
    becomes(&mut agent, &uuid, &json!({"state": "unknown", "reason": "the driver does not say what runs on it"}));
    listed(&kubelet, G1, 9, 9).await;
    node.clear_faults();
    becomes(&mut agent, &uuid, &free());
}

#[tokio::test]
async fn a_shared_slice_has_all_its_pods() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    let sharing = "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/mig-3g.20gb, replicas: 2}]}}\n";
    std::fs::write(&file, sharing).unwrap();
    let mut agent = node.agent(&[SETTLED, "--config-file", file.to_str().unwrap()]);
    listed(&kubelet, G3, 2, 2).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    for pod in ["infer", "train"] {
        kubelet.admit(Pod::new(pod).container("main", [(G3, 1)])).await.unwrap();
    }
    becomes(&mut agent, &uuid, &held_by(&["infer", "train"]));
    kubelet.delete("infer").await;
    becomes(&mut agent, &uuid, &held_by(&["train"]));
}

#[tokio::test]
async fn what_has_vanished_has_its_pod_still() {
    let node = Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    becomes(&mut agent, &uuid, &held_by(&["train"]));
    node.recut("gpus: [{model: A100-SXM4-40GB, mig: true}]");
    listed(&kubelet, G3, 1, 0).await;
    becomes(&mut agent, &uuid, &held_by(&["train"]));
    assert_eq!(slice(&mut agent, &uuid)["state"], "vanished");
}

/// Rule 3: the driver's word counts too.
#[tokio::test]
async fn what_has_vanished_stays_listed_until_its_processes_have_ended() {
    let node = Node::written("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}]}]");
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[SETTLED]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = node.uuids("3g.20gb").remove(0);
    becomes(&mut agent, &uuid, &free());
    let (gpu, part) = node.place(&uuid);
    node.run_process(gpu, 4711, Some(part));
    becomes(&mut agent, &uuid, &used_by(4711, part));
    node.lose_slice(gpu, part.0);
    listed(&kubelet, G3, 1, 0).await;
    // For longer than it takes to let go of what nobody uses.
    let readings = |kubelet: &kubelet_sim::Kubelet| {
        let is = |what: &kubelet_sim::What| matches!(what, kubelet_sim::What::PodResourcesListed { .. });
        kubelet.events().iter().filter(|event| is(&event.what)).count()
    };
    let before = readings(&kubelet);
    let deadline = Instant::now() + DEADLINE;
    while readings(&kubelet) < before + 3 {
        assert!(Instant::now() < deadline, "podresources is not read any more");
        std::thread::sleep(Duration::from_millis(10));
    }
    listed(&kubelet, G3, 1, 0).await;
    let now = slice(&mut agent, &uuid);
    assert_eq!((&now["state"], &now["use"]), (&json!("vanished"), &used_by(4711, part)));
    node.end_process(4711);
    listed(&kubelet, G3, 0, 0).await;
}
