//! What containers are given, by each of the ways: the agent as a process, on the fake driver's files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; what is skipped says so"
)]

mod host;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;

use host::{Host, TWO, makes_nodes, paths, sorted};
use kubelet_sim::Pod;
use node::{DEADLINE, G1, G3, Node, listed};

/// NVIDIA/k8s-device-plugin#728, by each way that can: one container, two profiles, both within reach.
#[tokio::test]
async fn a_container_with_two_profiles_reaches_both() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let uuids = sorted([host.node.uuids("3g.20gb"), host.node.uuids("1g.5gb")].concat());
    for strategies in ["volume-mounts", "cdi-annotations", "cdi-cri", "envvar,volume-mounts,cdi-annotations,cdi-cri"] {
        let mut agent = host.agent(strategies, &[]);
        listed(&kubelet, G3, 1, 1).await;
        listed(&kubelet, G1, 1, 1).await;
        let pod = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
        let main = &pod.containers["main"];
        let collisions: Vec<&str> = main.conflicts.iter().map(|conflict| conflict.key.as_str()).collect();
        assert!(collisions.iter().all(|key| key.ends_with("VISIBLE_DEVICES")), "{strategies}: {collisions:?}");
        let names = uuids.iter().map(|uuid| format!("mig-agent/gpu={uuid}")).collect::<Vec<_>>();
        if strategies.contains("volume-mounts") {
            let mounted = main.mounts.iter().map(|mount| mount.container_path.rsplit_once('/').unwrap().1.to_owned());
            assert_eq!(sorted(mounted), uuids);
            assert_eq!(main.envs["NVIDIA_VISIBLE_DEVICES"], "/var/run/nvidia-container-devices");
        }
        if strategies.contains("cdi-annotations") {
            let annotated = main.annotations.values().flat_map(|value| value.split(',')).map(str::to_owned);
            assert_eq!(sorted(annotated), names);
        }
        if strategies.contains("cdi-cri") {
            assert_eq!(sorted(main.cdi_devices.clone()), names);
        }
        let line = agent.line("k8s-device-plugin#728");
        assert!(line.contains("default/both/main") && line.contains("it reaches all of them"), "{line}");
        kubelet.delete("both").await;
        agent.kill();
        kubelet.wait_for(|resources| resources.values().all(|r| !r.registered), DEADLINE).await.unwrap();
    }
    // By variables alone NVIDIA's runtime is told of one, and that is said.
    let mut agent = host.agent("envvar", &[]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    let line = agent.line("k8s-device-plugin#728");
    assert!(line.contains("--device-list-strategy=volume-mounts or cdi-cri"), "{line}");
}

#[tokio::test]
async fn device_nodes_are_those_of_the_slice_and_missing_ones_are_made() {
    let host = Host::new(Node::written(TWO));
    if !makes_nodes(&host) {
        return;
    }
    host.lay_out(false);
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar", &["--pass-device-specs"]);
    listed(&kubelet, G3, 1, 1).await;
    listed(&kubelet, G1, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let caps = host.minors()[&uuid].clone().map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}"));
    for node in &caps {
        let made = fs::metadata(host.root.join(node.trim_start_matches('/'))).unwrap();
        assert!(made.file_type().is_char_device(), "{node}");
        assert_eq!(made.mode() & 0o777, 0o444, "whatever the agent's umask, containers of ordinary users open it");
    }
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let main = &pod.containers["main"];
    let common = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0"];
    assert_eq!(paths(main), sorted(common.into_iter().chain(caps.iter().map(String::as_str))));
    for device in &main.devices {
        assert_eq!(device.host_path, format!("/run/nvidia/driver{}", device.container_path));
        assert_eq!(device.permissions, "rw");
    }
    // Two profiles: the nodes of both, and those that they share once.
    kubelet.delete("train").await;
    let both = kubelet.admit(Pod::new("both").container("main", [(G3, 1), (G1, 1)])).await.unwrap();
    assert_eq!(paths(&both.containers["main"]).len(), common.len() + 4);
}

/// NVIDIA's plugin fails as a whole where a node is missing; here it is that slice, and it comes back.
#[tokio::test]
async fn a_slice_without_its_nodes_is_not_offered_as_healthy() {
    let host = Host::new(Node::new("demo"));
    if !makes_nodes(&host) {
        return;
    }
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let node = host.root.join(format!("dev/nvidia-caps/nvidia-cap{}", host.minors()[&uuid][0]));
    fs::remove_file(&node).unwrap();
    fs::create_dir(&node).unwrap();
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("envvar", &["--pass-device-specs"]);
    listed(&kubelet, G3, 1, 0).await;
    listed(&kubelet, G1, 9, 9).await;
    let line = agent.line("is not device 241:");
    assert!(line.contains(&uuid) && line.contains("/run/nvidia/driver/dev/nvidia-caps/nvidia-cap"), "{line}");
    agent.ready(|status, _| status.contains("200"));
    fs::remove_dir(&node).unwrap();
    listed(&kubelet, G3, 1, 1).await;
}

#[tokio::test]
async fn a_node_that_can_give_nothing_is_not_ready_and_says_why() {
    let host = Host::new(Node::written(TWO));
    fs::create_dir_all(host.cdi().parent().unwrap()).unwrap();
    fs::write(host.cdi(), "a file in the directory's place").unwrap();
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 0).await;
    let reason = agent.ready(|status, body| status.contains("503") && body.contains("containers: "));
    assert!(reason.contains("unable to write the CDI spec") && reason.contains("--cdi-dir"), "{reason}");
    fs::remove_file(host.cdi()).unwrap();
    listed(&kubelet, G3, 1, 1).await;
    agent.ready(|status, _| status.contains("200"));

    // A driver that goes away, as when it is installed anew, and comes back.
    let library = host.root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
    let aside = host.root.join("aside");
    fs::rename(&library, &aside).unwrap();
    agent.ready(|status, body| status.contains("503") && body.contains("neither libcuda.so.1 nor libnvidia-ml.so.1"));
    listed(&kubelet, G3, 1, 0).await;
    fs::rename(&aside, &library).unwrap();
    listed(&kubelet, G3, 1, 1).await;
}

/// Rule 4: with the disk gone, an Allocate is as it was.
#[tokio::test]
async fn an_allocation_needs_no_file() {
    let host = Host::new(Node::written(TWO));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar,cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let calls = host.node.calls_of("nvmlDeviceGetUUID");
    // Before the next look at the files, the answer is the one that was made ready; after it, the slice is Unhealthy.
    fs::rename(&host.root, host.node.path("elsewhere")).unwrap();
    fs::remove_dir_all(host.cdi()).unwrap();
    match kubelet.allocate_raw(G3, vec![vec![uuid.clone()]]).await {
        Ok(answer) => assert_eq!(answer.containers[0].cdi_devices[0].name, format!("mig-agent/gpu={uuid}")),
        Err(refusal) => assert!(refusal.to_string().contains("is unhealthy"), "{refusal}"),
    }
    listed(&kubelet, G3, 1, 0).await;
    assert!(host.node.calls_of("nvmlDeviceGetUUID") >= calls);
    fs::rename(host.node.path("elsewhere"), &host.root).unwrap();
    listed(&kubelet, G3, 1, 1).await;
    assert!(host.devices().contains_key(&uuid), "the spec is there again");
}

#[tokio::test]
async fn a_hostile_driver_root_neither_hangs_the_agent_nor_leads_out_of_itself() {
    let host = Host::new(Node::written(TWO));
    let folder = host.root.join("usr/lib/x86_64-linux-gnu");
    let secret = host.node.path("libcuda.so.1");
    fs::write(&secret, "\u{7f}ELF of the host").unwrap();
    symlink(&secret, folder.join("libcuda.so.1")).unwrap();
    symlink("../../../../libcuda.so.1", folder.join("libcuda.so")).unwrap();
    symlink("libnvidia-nvvm.so.4", folder.join("libnvidia-nvvm.so.4")).unwrap();
    symlink("/dev/zero", folder.join("libnvidia-cfg.so.1")).unwrap();
    symlink(".", host.root.join("usr/lib64")).unwrap();
    fs::create_dir_all(host.root.join("usr/bin")).unwrap();
    symlink("/proc/self/exe", host.root.join("usr/bin/nvidia-smi")).unwrap();
    for n in 0..30_000 {
        fs::File::create(folder.join(format!("libx{n}.so"))).unwrap();
    }
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, G3, 1, 1).await;
    let spec = host.spec();
    let mounts = spec["containerEdits"]["mounts"].as_array().unwrap();
    let files = sorted(mounts.iter().map(|mount| mount["hostPath"].as_str().unwrap()));
    assert_eq!(files, ["/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"]);
}

#[tokio::test]
async fn indices_are_nvidias() {
    let host = Host::new(Node::new("demo"));
    let kubelet = host.node.kubelet().await;
    let mut agent = host.agent("envvar", &["--device-id-strategy=index"]);
    agent.line("--device-id-strategy=index");
    listed(&kubelet, G3, 1, 1).await;
    let uuid = host.node.uuids("3g.20gb").remove(0);
    let pod = kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let envs = &pod.containers["main"].envs;
    assert_eq!(envs["CUDA_VISIBLE_DEVICES"], uuid);
    let world = host.node.world();
    let gpu = world.gpus.iter().position(|gpu| gpu.instances.iter().flat_map(|i| &i.compute).any(|c| c.uuid == uuid));
    let (seen, index) = envs["NVIDIA_VISIBLE_DEVICES"].split_once(':').unwrap();
    assert_eq!(seen, gpu.unwrap().to_string());
    assert!(index.parse::<u32>().unwrap() < 7);
}

#[tokio::test]
async fn slices_are_spread_over_gpus_if_asked_for() {
    let host = Host::new(Node::new("eight-by-seven"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("envvar", &["--preferred-allocation=spread"]);
    listed(&kubelet, G1, 56, 56).await;
    let pod = kubelet.admit(Pod::new("train").container("main", [(G1, 8)])).await.unwrap();
    let given: BTreeSet<&str> = pod.containers["main"].envs["CUDA_VISIBLE_DEVICES"].split(',').collect();
    let world = host.node.world();
    for gpu in &world.gpus {
        let of_gpu = gpu.instances.iter().flat_map(|i| &i.compute).filter(|c| given.contains(c.uuid.as_str()));
        assert_eq!(of_gpu.count(), 1, "{given:?}");
    }
}

#[tokio::test]
async fn whole_gpus_have_no_capabilities() {
    let host = Host::new(Node::written("gpus: [{model: T4}]"));
    let kubelet = host.node.kubelet().await;
    let _agent = host.agent("cdi-cri", &[]);
    listed(&kubelet, "nvidia.com/gpu", 1, 1).await;
    let uuid = host.node.world().gpus[0].uuid.clone();
    assert_eq!(host.devices(), BTreeMap::from([(uuid, vec!["/dev/nvidia0 195:0".to_owned()])]));
    assert!(Path::new(&host.cdi()).is_dir());
}
