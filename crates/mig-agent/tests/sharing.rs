//! Slices that several containers use in turn, as NVIDIA's `sharing.timeSlicing` says it: which are offered, how often and
//! under which name, and what a container and the kubelet learn of them.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kubelet_sim::{Kubelet, Pod};
use node::{Agent, DEADLINE, G1, G3, Node, listed, variable};

const SHARED: &str = "nvidia.com/mig-1g.5gb.shared";
const ONE: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}]";

/// What is below `timeSlicing`, as a whole file.
fn time_slicing(text: &str) -> String {
    format!("version: v1\nsharing:\n  timeSlicing: {{{text}}}\n")
}

fn write(node: &Node, text: &str) -> String {
    let file = node.path("config.yaml");
    fs::write(&file, text).unwrap();
    format!("--config-file={}", file.display())
}

fn agent(node: &Node, text: &str, more: &[&str]) -> Agent {
    node.agent(&[&[write(node, text).as_str()], more].concat())
}

/// How many of each resource the node has; those of which it has none any more are left out.
async fn offered(kubelet: &Kubelet, expected: &[(&str, usize)]) {
    let expected: BTreeMap<&str, usize> = expected.iter().copied().collect();
    let is = |resources: &BTreeMap<String, kubelet_sim::Resource>| {
        let now = resources.iter().filter(|(_, resource)| resource.allocatable > 0);
        now.map(|(name, resource)| (name.as_str(), resource.allocatable)).eq(expected.clone())
    };
    let outcome = kubelet.wait_for(is, DEADLINE).await;
    let counts =
        || -> Vec<_> { kubelet.resources().into_iter().map(|(name, resource)| (name, resource.allocatable)).collect() };
    assert!(outcome.is_ok(), "expected {expected:?}, but there are {:?}", counts());
}

/// The slices of which a resource has shares, each with how many; and the slices that it has whole.
fn shares(kubelet: &Kubelet, resource: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for device in kubelet.resources().remove(resource).map(|resource| resource.devices).unwrap_or_default() {
        let uuid = device.id.split_once("::").map_or(device.id.as_str(), |(uuid, _)| uuid);
        *shares.entry(uuid.to_owned()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn each_slice_is_offered_as_often_as_told_under_the_name_that_is_told() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let one = "name: nvidia.com/mig-1g.5gb, replicas: 4";
    let rest = [("nvidia.com/mig-2g.10gb", 1), (G3, 1)];
    let expect = |own: (&'static str, usize)| [&[own][..], &rest].concat();
    let mut agent = agent(&node, &time_slicing(&format!("resources: [{{{one}}}]")), &[]);
    offered(&kubelet, &expect((G1, 36))).await;
    for (text, name) in [
        (format!("renameByDefault: true, resources: [{{{one}}}]"), SHARED),
        (format!("resources: [{{{one}, rename: nvidia.com/small}}]"), "nvidia.com/small"),
        (format!("renameByDefault: true, resources: [{{{one}, rename: tiny}}]"), "nvidia.com/tiny"),
    ] {
        write(&node, &time_slicing(&text));
        offered(&kubelet, &expect((name, 36))).await;
        let slices = shares(&kubelet, name);
        assert_eq!(slices.keys().cloned().collect::<BTreeSet<_>>(), node.uuids("1g.5gb").into_iter().collect());
        assert!(slices.values().all(|count| *count == 4), "{slices:?}");
    }
    // Each resource on terms of its own.
    let several = "renameByDefault: true, resources: [{name: mig-1g.5gb, replicas: 2}, {name: mig-3g.20gb, replicas: 3, rename: large}]";
    write(&node, &time_slicing(several));
    offered(&kubelet, &[("nvidia.com/large", 3), (SHARED, 18), ("nvidia.com/mig-2g.10gb", 1)]).await;
    agent.ready(|status, _| status.contains("200"));
}

#[tokio::test]
async fn with_the_strategy_single_shares_are_of_gpus() {
    let node = Node::written(ONE);
    let kubelet = node.kubelet().await;
    let text = format!(
        "{}flags: {{migStrategy: single}}\n",
        time_slicing("renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 3}]")
    );
    let _agent = agent(&node, &text, &[]);
    offered(&kubelet, &[("nvidia.com/gpu.shared", 3)]).await;
    let pod = kubelet.admit(Pod::new("one").container("main", [("nvidia.com/gpu.shared", 1)])).await.unwrap();
    assert_eq!(variable(&pod, "main", "CUDA_VISIBLE_DEVICES"), node.uuids("1g.5gb")[0]);
}

#[tokio::test]
async fn several_shares_of_one_slice_are_one_slice_to_the_container() {
    let node = Node::written(ONE);
    let kubelet = node.kubelet().await;
    let _agent = agent(&node, &time_slicing("resources: [{name: mig-1g.5gb, replicas: 5}]"), &[]);
    listed(&kubelet, G1, 5, 5).await;
    let uuid = node.uuids("1g.5gb").remove(0);
    for (pod, count) in [("three", 3), ("one", 1), ("another", 1)] {
        let pod = kubelet.admit(Pod::new(pod).container("main", [(G1, count)])).await.unwrap();
        for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "MIG_DEVICES_1G_5GB"] {
            assert_eq!(variable(&pod, "main", name), uuid);
        }
        let ids = &pod.containers["main"].device_ids[G1];
        assert!(ids.len() == count && ids.iter().all(|id| id.starts_with(&format!("{uuid}::"))), "{ids:?}");
    }
    kubelet.admit(Pod::new("late").container("main", [(G1, 1)])).await.unwrap_err();
}

/// A pod whose share is Unhealthy is not admitted again after a restart of the node.
#[tokio::test]
async fn with_fewer_shares_those_that_pods_hold_stay_healthy() {
    let node = Node::written(ONE);
    let kubelet = node.kubelet().await;
    let shares = |replicas| time_slicing(&format!("resources: [{{name: mig-1g.5gb, replicas: {replicas}}}]"));
    let _agent = agent(&node, &shares(4), &["--settle-time=50ms"]);
    listed(&kubelet, G1, 4, 4).await;
    let mut holders = BTreeMap::new();
    for name in ["a", "b", "c", "d"] {
        let pod = kubelet.admit(Pod::new(name).container("main", [(G1, 1)])).await.unwrap();
        let id = pod.containers["main"].device_ids[G1].first().unwrap().clone();
        holders.insert(id.rsplit_once("::").unwrap().1.to_owned(), name);
    }
    kubelet.delete(holders["1"]).await;
    kubelet.delete(holders["2"]).await;
    write(&node, &shares(2));
    let health = |id: &str| {
        let devices = kubelet.resources().remove(G1).unwrap().devices;
        devices.into_iter().find(|device| device.id.ends_with(id)).map(|device| device.health)
    };
    listed(&kubelet, G1, 3, 1).await;
    assert_eq!(health("::0").as_deref(), Some("Healthy"), "a pod has it, as what it is offered as");
    assert_eq!(health("::1").as_deref(), Some("Unhealthy"), "there would be a third pod on the slice");
    kubelet.delete(holders["3"]).await;
    listed(&kubelet, G1, 2, 2).await;
}

#[tokio::test]
async fn a_request_for_two_shares_is_refused_where_that_is_told() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let text = "failRequestsGreaterThanOne: true, resources: [{name: mig-1g.5gb, replicas: 2, devices: [1]}]";
    let _agent = agent(&node, &time_slicing(text), &[]);
    listed(&kubelet, G1, 16, 16).await;
    // Those of GPU 0 are whole, and have the same name.
    let shared: Vec<String> = node.uuids("1g.5gb").into_iter().filter(|uuid| node.place(uuid).0 == 1).collect();
    let whole: Vec<String> = node.uuids("1g.5gb").into_iter().filter(|uuid| node.place(uuid).0 == 0).collect();
    let ask = |ids: Vec<String>| kubelet.allocate_raw(G1, vec![ids]);
    let two = vec![format!("{}::0", shared[0]), format!("{}::0", shared[1])];
    let refused = ask(two).await.unwrap_err().to_string();
    assert!(refused.contains("failRequestsGreaterThanOne"), "{refused}");
    let beside = vec![whole[0].clone(), format!("{}::0", shared[0])];
    let refused = ask(beside).await.unwrap_err().to_string();
    assert!(refused.contains("failRequestsGreaterThanOne"), "{refused}");
    ask(vec![format!("{}::1", shared[0])]).await.unwrap();
    ask(whole).await.unwrap();
}

/// A configuration may call a resource what it likes, but not without a word.
#[tokio::test]
async fn names_that_promise_another_profile_are_told() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let renamed = time_slicing("resources: [{name: mig-2g.10gb, replicas: 2, rename: mig-4g.20gb}]");
    let mut agent = agent(&node, &renamed, &[]);
    listed(&kubelet, "nvidia.com/mig-4g.20gb", 2, 2).await;
    agent.line("nvidia.com/mig-4g.20gb has a name by which pods expect another profile: its devices are 2g.10gb");
    write(&node, "version: v1\nresources: {mig: [{pattern: \"*\", name: any}]}\n");
    agent.line("nvidia.com/any has devices of several kinds (1g.5gb, 2g.10gb, 3g.20gb)");
    write(&node, "version: v1\nresources: {mig: [{pattern: 1g.5gb, name: small}]}\n");
    listed(&kubelet, "nvidia.com/small", 9, 9).await;
    assert!(!agent.log().contains("small has"), "{}", agent.log());
}

/// Every way in which NVIDIA's schema names devices.
#[tokio::test]
async fn only_the_devices_that_are_named_are_shared() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let all = node.uuids("1g.5gb");
    let of = |gpu: usize| -> Vec<String> { all.iter().filter(|uuid| node.place(uuid).0 == gpu).cloned().collect() };
    let (first, second) = (of(0), of(1));
    let start = |uuid: &String| {
        let (gpu, (instance, _)) = node.place(uuid);
        node.world().gpus[gpu].instances.iter().find(|own| own.id == instance).unwrap().start
    };
    let lowest = second.iter().min_by_key(|uuid| start(uuid)).unwrap().clone();
    let gpu = node.world().gpus[1].uuid.clone();
    let (_, (instance, compute)) = node.place(&second[2]);
    let resources = |devices: &str| {
        time_slicing(&format!(
            "renameByDefault: true, resources: [{{name: mig-1g.5gb, replicas: 2, devices: {devices}}}]"
        ))
    };
    let mut agent = agent(&node, &resources("all"), &[]);
    for (devices, expected) in [
        ("all".to_owned(), all.clone()),
        // By GPU and place.
        ("3".to_owned(), [&first[..], &[lowest]].concat()),
        ("[0]".to_owned(), first.clone()),
        ("['1']".to_owned(), second.clone()),
        // By NVML's index among the GPU's MIG devices.
        ("['1:0', '1:6']".to_owned(), vec![second[0].clone(), second[6].clone()]),
        (format!("[{}]", first[1]), vec![first[1].clone()]),
        (format!("[{gpu}]"), second.clone()),
        (format!("[MIG-{gpu}/{instance}/{compute}]"), vec![second[2].clone()]),
        (format!("[0, '1:3', {}]", second[5]), [&first[..], &[second[3].clone(), second[5].clone()]].concat()),
    ] {
        write(&node, &resources(&devices));
        let (shared, whole) = (expected.len() * 2, all.len() - expected.len());
        let mut counts = vec![(SHARED, shared), ("nvidia.com/mig-2g.10gb", 1), (G3, 1)];
        counts.extend((whole > 0).then_some((G1, whole)));
        offered(&kubelet, &counts).await;
        let mut expected = expected;
        expected.sort();
        // The change of a list may come in two steps.
        let is = |resources: &BTreeMap<String, kubelet_sim::Resource>| {
            let ids = resources[SHARED].devices.iter().filter_map(|device| device.id.split_once("::"));
            ids.map(|(uuid, _)| uuid).collect::<BTreeSet<_>>().into_iter().eq(&expected)
        };
        let outcome = kubelet.wait_for(is, DEADLINE).await;
        assert!(outcome.is_ok(), "{devices}: expected {expected:?}, but shared are {:?}", shares(&kubelet, SHARED));
    }
    assert!(!agent.log().contains("does not have"), "{}", agent.log());

    // What names nothing shares nothing, and is told.
    write(&node, &resources("[0, '1:9', GPU-mistyped]"));
    let line = agent.line("does not have at present");
    assert!(line.contains("1:9 of nvidia.com/mig-1g.5gb, GPU-mistyped of nvidia.com/mig-1g.5gb"), "{line}");
    for (bad, words) in [
        ("[]", "an empty list of devices"),
        ("0", "1 or more"),
        ("none", "expected devices as all"),
        ("['0:']", "names no device"),
        ("[MIG-GPU-a/1]", "names no device"),
    ] {
        write(&node, &resources(bad));
        let line = agent.line(words);
        assert!(line.contains("the last good one stays in force") && line.contains("line 3"), "{line}");
    }
    listed(&kubelet, SHARED, 4, 4).await;
}

#[tokio::test]
async fn slices_have_the_names_that_patterns_give_them() {
    let node = Node::new("compute-instances");
    let kubelet = node.kubelet().await;
    let names = "resources:\n  mig:\n  - {pattern: '*c.3g.20gb', name: nvidia.com/part}\n  - {pattern: 1g.5gb, name: small}\n  - {pattern: '*', name: never}\n";
    let sharing = "renameByDefault: true, resources: [{name: nvidia.com/part, replicas: 2}, {name: small, replicas: 3, rename: smallest}]";
    let mut agent = agent(&node, &format!("version: v1\n{names}"), &[]);
    offered(&kubelet, &[("nvidia.com/part", 3), ("nvidia.com/small", 1)]).await;
    // Shared by the name that they have.
    write(&node, &format!("{}{names}", time_slicing(sharing)));
    offered(&kubelet, &[("nvidia.com/part.shared", 6), ("nvidia.com/smallest", 3)]).await;
    let pod = kubelet.admit(Pod::new("one").container("main", [("nvidia.com/smallest", 1)])).await.unwrap();
    assert_eq!(variable(&pod, "main", "MIG_DEVICES_1G_5GB"), node.uuids("1g.5gb")[0], "by the profile all the same");
    kubelet.delete("one").await;
    // And not by the one that they would have.
    write(&node, &format!("{}{names}", time_slicing("resources: [{name: mig-1g.5gb, replicas: 2}]")));
    offered(&kubelet, &[("nvidia.com/part", 3), ("nvidia.com/small", 1)]).await;
    agent.line("does not have at present: nvidia.com/mig-1g.5gb");
    for bad in ["amd.com/gpu", "Small", "a/b/c"] {
        write(&node, &format!("resources: {{mig: [{{pattern: '*', name: {bad}}}]}}\n"));
        agent.line(&format!("{bad:?}").replace('"', "\\\""));
    }
    offered(&kubelet, &[("nvidia.com/part", 3), ("nvidia.com/small", 1)]).await;
}

#[tokio::test]
async fn mps_is_refused_and_what_was_in_force_stays() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let mps = "version: v1\nsharing:\n  mps:\n    renameByDefault: true\n    resources: [{name: nvidia.com/mig-1g.5gb, replicas: 2}]\n";
    let mut agent = agent(&node, mps, &[]);
    let body = agent.ready(|status, body| status.contains("503") && body.contains("sharing.mps"));
    assert!(body.contains("share slices in time (sharing.timeSlicing)"), "what to do instead: {body}");
    assert!(kubelet.resources().is_empty(), "nothing is offered as something that it is not");
    write(&node, &time_slicing("resources: [{name: mig-1g.5gb, replicas: 2}]"));
    listed(&kubelet, G1, 18, 18).await;
    write(
        &node,
        &format!("{}  mps: {{resources: []}}\n", time_slicing("resources: [{name: mig-1g.5gb, replicas: 3}]")),
    );
    agent.line("the last good one stays in force");
    agent.ready(|status, body| status.contains("200") && body.contains("sharing.mps"));
    listed(&kubelet, G1, 18, 18).await;
}

#[tokio::test]
async fn an_unhealthy_slice_is_so_in_all_its_shares() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let policy = node.path("policy.yaml");
    fs::write(&policy, "recovery: {application: 300ms, hardware: 20m, unconfirmed: 20m, state: 100ms, longest: 1h}\n")
        .unwrap();
    let policy = format!("--health-policy={}", policy.display());
    let text = time_slicing("renameByDefault: true, resources: [{name: mig-1g.5gb, replicas: 4}]");
    let agent = agent(&node, &text, &[&policy, "--dp-enable-healthchecks=13"]);
    listed(&kubelet, SHARED, 36, 36).await;
    let pod = kubelet.admit(Pod::new("holds").container("main", [(SHARED, 1)])).await.unwrap();
    let hit = variable(&pod, "main", "CUDA_VISIBLE_DEVICES");
    let (gpu, part) = node.place(&hit);
    let unhealthy = || -> BTreeSet<String> {
        let devices = kubelet.resources().remove(SHARED).unwrap().devices;
        devices.into_iter().filter(|device| device.health != "Healthy").map(|device| device.id).collect()
    };
    // 94 is of hardware, and stays.
    node.xid(gpu, 94, Some(part));
    listed(&kubelet, SHARED, 36, 32).await;
    let shares: BTreeSet<String> = (0..4).map(|number| format!("{hit}::{number}")).collect();
    assert_eq!(unhealthy(), shares);
    let told = agent.log().lines().filter(|line| line.contains("is Unhealthy: XID 94")).count();
    assert_eq!(told, 1, "of the slice, and not of each share:\n{}", agent.log());
    let refused = kubelet.allocate_raw(SHARED, vec![vec![format!("{hit}::3")]]).await.unwrap_err();
    assert!(refused.to_string().contains("is unhealthy"), "{refused}");
    let others = kubelet.admit(Pod::new("others").container("main", [(SHARED, 8)])).await.unwrap();
    assert!(!variable(&others, "main", "CUDA_VISIBLE_DEVICES").contains(&hit));
    kubelet.restart_container("holds", "main").await.unwrap();

    // 13 is a program's, and is over after a while: all of them are well again.
    let other = node.uuids("1g.5gb").into_iter().find(|uuid| *uuid != hit).unwrap();
    let (gpu, part) = node.place(&other);
    node.xid(gpu, 13, Some(part));
    listed(&kubelet, SHARED, 36, 28).await;
    listed(&kubelet, SHARED, 36, 32).await;
    assert_eq!(unhealthy(), shares);
}

#[tokio::test]
async fn the_example_of_the_documentation_is_served() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/shared-slices.yaml")).unwrap();
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    let _agent = agent(&node, documents[0]["data"]["default"].as_str().unwrap(), &[]);
    let container = &documents[1]["spec"]["template"]["spec"]["containers"][0];
    let (name, count) = container["resources"]["limits"].as_object().unwrap().iter().next().unwrap();
    let count = usize::try_from(count.as_u64().unwrap()).unwrap();
    listed(&kubelet, name, 36, 36).await;
    for number in 0..documents[1]["spec"]["replicas"].as_u64().unwrap() {
        let pod = Pod::new(format!("notebooks-{number}")).container("main", [(name.as_str(), count)]);
        let pod = kubelet.admit(pod).await.unwrap();
        assert!(node.uuids("1g.5gb").contains(&variable(&pod, "main", "CUDA_VISIBLE_DEVICES")));
    }
}
