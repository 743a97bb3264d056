//! Compute instances smaller than their GPU instance, which are resources of their own: the agent as a process, on the
//! fake driver's files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; what is skipped says so"
)]

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;

use fake_nvml::{Layout, copy_library, lay_out};
use kubelet_sim::{ContainerAllocation, Kubelet, Pod};
use node::{Agent, G1, Node, fake_library, listed};
use serde_json::Value;

const C1: &str = "nvidia.com/mig-1c.3g.20gb";
const C2: &str = "nvidia.com/mig-2c.3g.20gb";

/// As the driver has its files for the GPUs as they are cut now.
fn lay_out_driver(node: &Node) {
    let layout = Layout { root: node.path("root"), plain_files: false, instance_nodes: true };
    lay_out(&node.world(), &layout).unwrap();
}

/// An agent that finds the driver's files, and hands out what it finds.
fn agent(node: &Node, strategies: &str, more: &[&str]) -> Agent {
    lay_out_driver(node);
    let root = node.path("root");
    copy_library(&root, &fake_library()).unwrap();
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (proc, cdi, root) = (text(root.join("proc")), text(node.path("cdi")), text(root));
    let arguments = [
        "--device-list-strategy",
        strategies,
        "--nvidia-driver-root=/driver",
        "--container-driver-root",
        root.as_str(),
        "--proc-root",
        proc.as_str(),
        "--cdi-dir",
        cdi.as_str(),
    ];
    node.agent(&[&arguments, more].concat())
}

/// The paths of the capabilities that the driver wants of who uses a slice: its GPU instance's and its own.
fn capabilities(node: &Node, uuid: &str) -> [String; 2] {
    let (gpu, (instance, compute)) = node.place(uuid);
    let minor = node.world().gpus[gpu].minor;
    let folder = node.path("root/proc/driver/nvidia/capabilities").join(format!("gpu{minor}/mig/gi{instance}"));
    [folder.join("access"), folder.join(format!("ci{compute}/access"))].map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let number = text.lines().next().unwrap().trim_start_matches("DeviceFileMinor: ").to_owned();
        format!("/dev/nvidia-caps/nvidia-cap{number}")
    })
}

/// The capabilities among the device nodes that a slice has in the CDI specification.
fn in_cdi(node: &Node, uuid: &str) -> Vec<String> {
    let spec: Value = serde_json::from_slice(&fs::read(node.path("cdi/mig-agent-gpu.json")).unwrap()).unwrap();
    let device = spec["devices"].as_array().unwrap().iter().find(|device| device["name"] == *uuid).unwrap();
    let nodes = device["containerEdits"]["deviceNodes"].as_array().unwrap().iter();
    nodes.map(|node| node["path"].as_str().unwrap().to_owned()).filter(|path| path.contains("nvidia-cap")).collect()
}

async fn pod(kubelet: &Kubelet, name: &str, resource: &str) -> ContainerAllocation {
    let pod = kubelet.admit(Pod::new(name).container("main", [(resource, 1)])).await.unwrap();
    pod.containers["main"].clone()
}

fn is_healthy(kubelet: &Kubelet, resource: &str, uuid: &str) -> bool {
    kubelet.resources()[resource].devices.iter().any(|device| device.id == uuid && device.health == "Healthy")
}

#[tokio::test]
async fn each_kind_is_a_resource_and_a_container_finds_its_own() {
    let node = Node::new("compute-instances");
    let kubelet = node.kubelet().await;
    let _agent = agent(&node, "envvar", &[]);
    listed(&kubelet, C1, 2, 2).await;
    listed(&kubelet, C2, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    assert_eq!(kubelet.resources().len(), 3, "the GPU instance without compute instances is none");
    let (one, two) = (pod(&kubelet, "one", C1).await, pod(&kubelet, "two", C2).await);
    for (envs, name) in [(one.envs, "MIG_DEVICES_1C_3G_20GB"), (two.envs, "MIG_DEVICES_2C_3G_20GB")] {
        let uuid = &envs["CUDA_VISIBLE_DEVICES"];
        assert_eq!((&envs["NVIDIA_VISIBLE_DEVICES"], &envs[name]), (uuid, uuid), "{envs:?}");
        let (_, (instance, compute)) = node.place(uuid);
        let world = node.world();
        let part = world.gpus[0].instances.iter().find(|part| part.id == instance).unwrap();
        let kind = part.compute.iter().find(|part| part.id == compute).unwrap().profile;
        let profiles = &world.models[world.gpus[0].model].mig.as_ref().unwrap().profiles;
        let kind = profiles[part.profile].compute_profiles[kind].name.trim_start_matches("MIG ").to_owned();
        assert_eq!(name, format!("MIG_DEVICES_{}", kind.to_uppercase().replace('.', "_")));
    }
}

const THREE: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb, placement: 4, compute: [{profile: 1c.3g.20gb}, \
                     {profile: 1c.3g.20gb}, {profile: 1c.3g.20gb}]}]}]";

#[tokio::test]
async fn two_of_one_gpu_instance_go_to_two_pods() {
    let node = Node::written(THREE);
    let kubelet = node.kubelet().await;
    lay_out_driver(&node);
    let control = fs::metadata(node.path("root/dev/nvidiactl")).unwrap();
    let passes = control.file_type().is_char_device();
    if !passes {
        node::skip("device nodes cannot be made here, so none is handed out");
    }
    let more = if passes { &["--pass-device-specs"][..] } else { &[] };
    let _agent = agent(&node, "envvar,cdi-cri", more);
    listed(&kubelet, C1, 3, 3).await;
    let (one, two) = (pod(&kubelet, "one", C1).await, pod(&kubelet, "two", C1).await);
    let mut seen = Vec::new();
    for container in [one, two] {
        let uuid = container.envs["CUDA_VISIBLE_DEVICES"].clone();
        let own = capabilities(&node, &uuid);
        assert_eq!(container.cdi_devices, [format!("mig-agent/gpu={uuid}")]);
        assert_eq!(in_cdi(&node, &uuid), own);
        if passes {
            let given = container.devices.iter().map(|device| device.container_path.clone());
            let given: BTreeSet<String> = given.filter(|path| path.contains("nvidia-cap")).collect();
            assert_eq!(given, own.iter().cloned().collect(), "nobody else's");
        }
        seen.push((uuid, own));
    }
    let [(first, [instance, compute]), (second, [same, other])] = &seen[..] else { unreachable!() };
    assert_ne!(first, second);
    assert_eq!(instance, same, "they share its memory");
    assert_ne!(compute, other);
    assert_eq!(kubelet.resources()[C1].capacity, 3);
}

/// NVIDIA/k8s-device-plugin#1929, the other way round: an error of one compute instance is none of its neighbours'.
#[tokio::test]
async fn an_error_of_one_leaves_the_others_of_its_gpu_instance_alone() {
    let node = Node::written(THREE);
    let kubelet = node.kubelet().await;
    let mut agent = agent(&node, "envvar", &[]);
    let devices = listed(&kubelet, C1, 3, 3).await.devices;
    let hit = devices[1].id.clone();
    let (gpu, place) = node.place(&hit);
    node.xid(gpu, 94, Some(place));
    listed(&kubelet, C1, 3, 2).await;
    let healthy: Vec<bool> = devices.iter().map(|device| is_healthy(&kubelet, C1, &device.id)).collect();
    assert_eq!(healthy, [true, false, true]);
    let line = agent.line("XID 94");
    assert!(line.contains(&hit), "{line}");
    let refused = kubelet.allocate_raw(C1, vec![vec![hit]]).await.unwrap_err();
    assert!(refused.to_string().contains("is unhealthy"), "{refused}");
}

/// NVIDIA/k8s-device-plugin#992: whoever makes and destroys compute instances, the agent needs no restart.
#[tokio::test]
async fn they_come_and_go_under_the_agent() {
    let [first, second, third] =
        ["a", "b", "c"].map(|letter| format!("MIG-{}-0000-5000-8000-000000000000", letter.repeat(8)));
    let cut = |compute: &[(&str, &str)]| {
        let compute: Vec<String> =
            compute.iter().map(|(profile, uuid)| format!("{{profile: {profile}, uuid: {uuid}}}")).collect();
        format!(
            "gpus: [{{model: A100-SXM4-40GB, instances: [{{profile: 3g.20gb, placement: 4, compute: [{}]}}]}}]",
            compute.join(", ")
        )
    };
    let node = Node::written(&cut(&[("1c.3g.20gb", &first), ("1c.3g.20gb", &second)]));
    let kubelet = node.kubelet().await;
    let agent = agent(&node, "envvar,cdi-cri", &[]);
    listed(&kubelet, C1, 2, 2).await;
    let held = pod(&kubelet, "held", C1).await.envs["CUDA_VISIBLE_DEVICES"].clone();
    let (stays, goes) = if held == first { (&first, &second) } else { (&second, &first) };

    // One more beside them.
    let more = cut(&[("1c.3g.20gb", stays), ("1c.3g.20gb", goes), ("1c.3g.20gb", &third)]);
    node.recut_told(&more);
    listed(&kubelet, C1, 3, 3).await;
    // One that nobody holds goes, and its neighbour, which a pod holds, stays as it is.
    node.recut_told(&cut(&[("1c.3g.20gb", stays), ("1c.3g.20gb", &third)]));
    listed(&kubelet, C1, 2, 2).await;
    assert!(is_healthy(&kubelet, C1, stays) && is_healthy(&kubelet, C1, &third));
    // One that a pod holds is Unhealthy until the pod ends.
    node.recut_told(&cut(&[("2c.3g.20gb", &third)]));
    listed(&kubelet, C2, 1, 1).await;
    listed(&kubelet, C1, 1, 0).await;
    kubelet.delete("held").await;
    listed(&kubelet, C1, 0, 0).await;
    let log = agent.log();
    let registered = log.lines().filter(|line| line.contains(C1) && line.contains("\"registered")).count();
    assert_eq!(registered, 1, "one registration served all of that:\n{log}");
    assert_eq!(pod(&kubelet, "next", C2).await.envs["CUDA_VISIBLE_DEVICES"], third);
}
