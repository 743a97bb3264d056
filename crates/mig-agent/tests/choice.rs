//! Which of the free slices a container gets that wants several, as the kubelet and the agent settle it.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fake_nvml::{Layout, lay_out};
use kubelet_sim::{Kubelet, Pod};
use node::{Agent, G1, G3, Node, listed, variable};

/// An agent that is told the GPUs' NUMA nodes.
fn agent(node: &Node, more: &[&str]) -> Agent {
    let root = node.path("root");
    lay_out(&node.world(), &Layout { root: root.clone(), plain_files: true, instance_nodes: false }).unwrap();
    let sys = root.join("sys");
    node.agent(&[&["--sys-root", sys.to_str().unwrap()], more].concat())
}

async fn given(kubelet: &Kubelet, pod: &str, resource: &str, count: u32) -> BTreeSet<String> {
    let pod = kubelet.admit(Pod::new(pod).container("main", [(resource, count.try_into().unwrap())])).await.unwrap();
    variable(&pod, "main", "CUDA_VISIBLE_DEVICES").split(',').map(str::to_owned).collect()
}

/// How many of these each GPU has, by its index.
fn by_gpu(node: &Node, uuids: &BTreeSet<String>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for uuid in uuids {
        *counts.entry(node.place(uuid).0).or_default() += 1;
    }
    counts
}

/// The first memory slices of these.
fn starts(node: &Node, uuids: &BTreeSet<String>) -> BTreeSet<u32> {
    let world = node.world();
    let instances = world.gpus.iter().flat_map(|gpu| &gpu.instances);
    let held = instances.filter(|instance| instance.compute.iter().any(|compute| uuids.contains(&compute.uuid)));
    held.map(|instance| instance.start).collect()
}

#[tokio::test]
async fn what_needs_several_gpus_gets_them_of_one_numa_node() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let _agent = agent(&node, &[]);
    listed(&kubelet, G1, 56, 56).await;
    let gpus = by_gpu(&node, &given(&kubelet, "wide", G1, 20).await);
    let numa_nodes: BTreeSet<u32> = gpus.keys().map(|gpu| node.world().gpus[*gpu].numa).collect();
    assert_eq!((gpus.len(), numa_nodes.len()), (3, 1), "{gpus:?}");
    // What is left of that node is less than these.
    let more = by_gpu(&node, &given(&kubelet, "wider", G1, 9).await);
    let others: BTreeSet<u32> = more.keys().map(|gpu| node.world().gpus[*gpu].numa).collect();
    assert_eq!((more.len(), others.len()), (2, 1), "{more:?}");
    assert_ne!(numa_nodes, others);
}

#[tokio::test]
async fn halves_of_gpus_and_whole_ones_stay_free() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let _agent = agent(&node, &[]);
    listed(&kubelet, G1, 56, 56).await;
    let three = given(&kubelet, "three", G1, 3).await;
    assert_eq!(starts(&node, &three), BTreeSet::from([4, 5, 6]));
    let one = given(&kubelet, "one", G1, 1).await;
    assert_eq!(by_gpu(&node, &one).keys().next(), by_gpu(&node, &three).keys().next(), "the GPU that is in use");
    let four = given(&kubelet, "four", G1, 4).await;
    assert_eq!(starts(&node, &four), BTreeSet::from([0, 1, 2, 3]), "of another one");
}

/// A slice of another profile that a pod holds breaks the GPU's half as any other does.
#[tokio::test]
async fn slices_of_other_profiles_count() {
    let small = "{profile: 1g.5gb, placement: 0}, {profile: 1g.5gb, placement: 1}";
    let (model, large) = ("model: A100-SXM4-40GB", "{profile: 3g.20gb, placement: 4}");
    let node = Node::written(&format!(
        "gpus: [{{{model}, instances: [{small}]}}, {{{model}, instances: [{small}, {large}]}}]"
    ));
    let kubelet = node.kubelet().await;
    let _agent = agent(&node, &[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 4, 4).await;
    given(&kubelet, "large", G3, 1).await;
    let small = given(&kubelet, "small", G1, 1).await;
    assert_eq!(by_gpu(&node, &small), BTreeMap::from([(1, 1)]), "the other GPU stays whole");
}

#[tokio::test]
async fn shares_are_handed_out_as_nvidias_policy_says() {
    for (policy, slices) in [("distributed", 4), ("packed", 2)] {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let file = node.path("config.yaml");
        let text = format!(
            "version: v1\nflags: {{plugin: {{sharedDevicesAllocationPolicy: {policy}}}}}\nsharing: {{timeSlicing: {{resources: [{{name: {G1}, replicas: 3}}]}}}}\n"
        );
        fs::write(&file, text).unwrap();
        let agent = agent(&node, &["--config-file", file.to_str().unwrap()]);
        listed(&kubelet, G1, 27, 27).await;
        let mut all = BTreeSet::new();
        for pod in ["a", "b", "c", "d"] {
            all.extend(given(&kubelet, pod, G1, 1).await);
        }
        assert_eq!(all.len(), slices, "{policy}: {all:?}");
        assert!(!agent.log().contains("sharedDevicesAllocationPolicy"), "it has an effect:\n{}", agent.log());
        let two = given(&kubelet, "two", G1, 2).await;
        assert_eq!(two.len(), 2, "{policy}: two shares are of two slices");
    }
}
