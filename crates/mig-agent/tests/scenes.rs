//! Every scene, as the agent reads it through NVML, against the scene itself; and as the kubelet sees it.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::collections::BTreeMap;
use std::fs;

use fake_nvml::{Gpu, World};
use node::{DEADLINE, Node};
use serde_json::{Value, json};

/// Scenes in which a GPU cannot be read at all; `bad_input.rs` has those.
const FAULTY: [&str; 2] = ["one-gpu-lost", "slow-driver"];

fn name(text: &str) -> &str {
    text.strip_prefix("MIG ").unwrap_or(text)
}

/// What the agent has to say of a GPU.
fn expected(world: &World, index: usize, gpu: &Gpu) -> Value {
    let model = &world.models[gpu.model];
    let mut instances = Vec::new();
    for instance in gpu.instances.iter().filter(|instance| !instance.compute.is_empty()) {
        let profile = &model.mig.as_ref().unwrap().profiles[instance.profile];
        let computes: Vec<Value> = instance
            .compute
            .iter()
            .map(|compute| json!({"id": compute.id, "profile": name(&profile.compute_profiles[compute.profile].name), "uuid": compute.uuid}))
            .collect();
        let placement = json!({"start": instance.start, "size": profile.placements.size});
        instances.push(json!({"id": instance.id, "profile": name(&profile.name), "placement": placement, "compute_instances": computes}));
    }
    instances.sort_by_key(|instance| instance["placement"]["start"].as_u64());
    let mig = match &model.mig {
        None => json!({"state": "unsupported"}),
        Some(_) => json!({"state": "known", "enabled": gpu.mig_current, "pending": gpu.mig_pending}),
    };
    let mut users: Vec<(u32, Option<u32>, Option<u32>)> =
        gpu.processes.iter().filter(|p| !p.graphics).map(|p| (p.pid, p.instance, p.compute)).collect();
    users.sort();
    let user = |(pid, instance, compute): (u32, Option<u32>, Option<u32>)| json!({"pid": pid, "gpu_instance": instance, "compute_instance": compute, "memory_bytes": null, "name": null});
    let users: Vec<Value> = users.into_iter().map(user).collect();
    json!({
        "index": index, "uuid": gpu.uuid, "name": model.name, "minor": gpu.minor, "pci_address": gpu.pci.short(),
        "numa_node": gpu.numa, "mig": mig, "instances": instances, "fault": null, "unwatched": null, "processes": users,
        "vitals": {
            "uncorrectable_errors": 0, "recovery": "none",
            "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": false, "failed": false},
        },
    })
}

/// The resources that the strategy mixed makes of it.
fn resources(gpus: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for gpu in gpus {
        if gpu["mig"]["enabled"] != true {
            *counts.entry("nvidia.com/gpu".to_owned()).or_default() += 1;
        }
        for compute in
            gpu["instances"].as_array().unwrap().iter().flat_map(|i| i["compute_instances"].as_array().unwrap())
        {
            let profile = compute["profile"].as_str().unwrap().replace('+', ".");
            *counts.entry(format!("nvidia.com/mig-{profile}")).or_default() += 1;
        }
    }
    counts
}

#[tokio::test]
async fn every_scene_is_read_as_it_is() {
    let folder = node::scene("demo").parent().unwrap().to_owned();
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|file| file.is_file());
    let names: Vec<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(names.len() > 10, "{names:?}");
    for scene in names.iter().filter(|scene| !FAULTY.contains(&scene.as_str())) {
        let node = Node::new(scene);
        let world = node.world();
        for gpu in &world.gpus {
            let folder = node.path("sys/bus/pci/devices").join(gpu.pci.short());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("numa_node"), format!("{}\n", gpu.numa)).unwrap();
        }
        let kubelet = node.kubelet().await;
        let sys = node.path("sys");
        let mut agent = node.agent(&["--sys-root", sys.to_str().unwrap()]);
        agent.line("the driver answers");
        // It has answered, and is still being read.
        let deadline = std::time::Instant::now() + DEADLINE;
        let inventory = loop {
            let inventory: Value = serde_json::from_str(&agent.get("/api/v1/inventory").1).unwrap();
            if !inventory.is_null() {
                break inventory;
            }
            assert!(std::time::Instant::now() < deadline, "scene {scene} is not read\n{}", agent.log());
        };
        let gpus: Vec<Value> = world.gpus.iter().enumerate().map(|(index, gpu)| expected(&world, index, gpu)).collect();
        assert_eq!(inventory["gpus"], json!(gpus), "scene {scene}");
        assert_eq!(inventory["driver"]["version"], world.driver.as_str());
        let wanted = resources(&gpus);
        let now = kubelet
            .wait_for(|now| now.len() == wanted.len() && now.values().all(|resource| resource.registered), DEADLINE)
            .await
            .unwrap();
        let now: BTreeMap<String, usize> =
            now.into_iter().map(|(name, resource)| (name, resource.allocatable)).collect();
        assert_eq!(now, wanted, "scene {scene}");
    }
}

/// A look at the GPUs is cheap enough to be taken every few seconds: the driver is asked each question once.
#[tokio::test]
async fn the_driver_is_asked_each_question_once() {
    let node = Node::new("eight-by-seven");
    let kubelet = node.kubelet().await;
    let _agent = node.agent(&["--poll-interval", "1h"]);
    node::listed(&kubelet, node::G1, 56, 56).await;
    let calls = node.calls();
    // With three for each GPU that make it tell of errors, three for how it does, and one for who computes on it.
    assert!(calls <= 456, "{calls} calls for 8 GPUs of 7 slices");
}
