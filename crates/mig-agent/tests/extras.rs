//! What goes with GPUs where NVIDIA's switches ask for it: GDRCopy, GPUDirect Storage, Mellanox OFED.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only test functions for tests; what is skipped says so"
)]

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Command;

use fake_nvml::{Layout, copy_library, lay_out};
use kubelet_sim::{ContainerAllocation, Kubelet, Pod};
use node::{Agent, G3, Node, fake_library, listed};
use serde_json::Value;

const VARIABLES: [&str; 3] = ["NVIDIA_GDRCOPY", "NVIDIA_GDS", "NVIDIA_MOFED"];
const NODES: [&str; 6] =
    ["gdrdrv", "nvidia-fs0", "nvidia-fs1", "infiniband/rdma_cm", "infiniband/uverbs0", "infiniband/uverbs1"];

/// The driver's files below a root, which is how an agent in a container has the node's.
fn lay_out_driver(node: &Node) -> bool {
    let root = node.path("root");
    lay_out(&node.world(), &Layout { root: root.clone(), plain_files: false, instance_nodes: true }).unwrap();
    copy_library(&root, &fake_library()).unwrap();
    let passes = fs::metadata(root.join("dev/nvidiactl")).unwrap().file_type().is_char_device();
    if !passes {
        node::skip("device nodes cannot be made here");
    }
    passes
}

fn make_nodes(node: &Node) {
    let dev = node.path("root/dev");
    fs::create_dir_all(dev.join("infiniband")).unwrap();
    for (minor, name) in NODES.iter().enumerate() {
        let made = Command::new("mknod").arg(dev.join(name)).args(["c", "231", &minor.to_string()]).status().unwrap();
        assert!(made.success());
    }
    // What is no device is none of theirs, whatever it is called.
    fs::write(dev.join("nvidia-fs-stats"), "").unwrap();
    fs::write(dev.join("infiniband/uverbs2"), "").unwrap();
    fs::create_dir_all(node.path("root/run/udev")).unwrap();
    fs::create_dir_all(node.path("root/etc")).unwrap();
    fs::write(node.path("root/etc/cufile.json"), "{}").unwrap();
}

fn agent(node: &Node, strategies: &str, more: &[&str]) -> Agent {
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (root, proc, cdi) = (text(node.path("root")), text(node.path("root/proc")), text(node.path("cdi")));
    let arguments = [
        "--device-list-strategy",
        strategies,
        "--nvidia-driver-root=/node",
        "--container-driver-root",
        root.as_str(),
        "--proc-root",
        proc.as_str(),
        "--cdi-dir",
        cdi.as_str(),
    ];
    node.agent(&[&arguments, more].concat())
}

async fn given(kubelet: &Kubelet) -> ContainerAllocation {
    let mut pod = kubelet.admit(Pod::new("one").container("main", [(G3, 1)])).await.unwrap();
    kubelet.delete("one").await;
    pod.containers.remove("main").unwrap()
}

/// Those of the variables that say so.
fn enabled(container: &ContainerAllocation) -> Vec<&str> {
    VARIABLES.into_iter().filter(|name| container.envs.get(*name).is_some_and(|value| value == "enabled")).collect()
}

#[tokio::test]
async fn nvidias_runtime_is_told_by_variables() {
    let cases: [(&[&str], &str, &[&str]); 7] = [
        (&[], "", &[]),
        (&["--gds-enabled"], "", &["NVIDIA_GDS"]),
        // As a manifest for NVIDIA's plugin may have it.
        (&["--gds-enabled", "true", "--mofed-enabled=1"], "", &["NVIDIA_GDS", "NVIDIA_MOFED"]),
        (&["--gdrcopy-enabled", "--gds-enabled", "false"], "", &["NVIDIA_GDRCOPY"]),
        (&[], "gdsEnabled: true, mofedEnabled: true, gdrcopyEnabled: false", &["NVIDIA_GDS", "NVIDIA_MOFED"]),
        (
            &["--gds-enabled=false", "--gdrcopy-enabled"],
            "gdsEnabled: true, mofedEnabled: true",
            &["NVIDIA_GDRCOPY", "NVIDIA_MOFED"],
        ),
        (&["--device-list-strategy=volume-mounts"], "gdrcopyEnabled: true", &["NVIDIA_GDRCOPY"]),
    ];
    for (flags, file, expected) in cases {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        fs::write(node.path("config.yaml"), format!("version: v1\nflags: {{{file}}}\n")).unwrap();
        let config = format!("--config-file={}", node.path("config.yaml").display());
        let agent = node.agent(&[&[config.as_str()], flags].concat());
        listed(&kubelet, G3, 1, 1).await;
        assert_eq!(enabled(&given(&kubelet).await), expected, "{flags:?} {file}");
        assert!(!agent.log().contains("no effect"), "{}", agent.log());
    }
}

#[tokio::test]
async fn with_the_file_they_change_under_way() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let file = node.path("config.yaml");
    fs::write(&file, "flags: {mofedEnabled: true}\n").unwrap();
    let mut agent = node.agent(&["--config-file", file.to_str().unwrap()]);
    listed(&kubelet, G3, 1, 1).await;
    assert_eq!(enabled(&given(&kubelet).await), ["NVIDIA_MOFED"]);
    // A name besides, so that it is seen when the change is in force.
    fs::write(&file, "flags: {gdsEnabled: true}\nresources: {mig: [{pattern: 1g.5gb, name: small}]}\n").unwrap();
    listed(&kubelet, "nvidia.com/small", 9, 9).await;
    assert_eq!(enabled(&given(&kubelet).await), ["NVIDIA_GDS"]);
    fs::write(&file, "flags: {gdsEnabled: perhaps}\n").unwrap();
    agent.line("the last good one stays in force");
    let mut agent = node.agent(&["--gds-enabled", "perhaps"]);
    assert_eq!(agent.ended().code(), Some(2));
    assert!(agent.log().contains("invalid value 'perhaps' for '--gds-enabled"), "{}", agent.log());
}

#[tokio::test]
async fn by_cdi_containers_get_the_nodes_and_files_themselves() {
    let node = Node::new("demo");
    if !lay_out_driver(&node) {
        return;
    }
    make_nodes(&node);
    let kubelet = node.kubelet().await;
    let spec = || -> Value { serde_json::from_slice(&fs::read(node.path("cdi/mig-agent-gpu.json")).unwrap()).unwrap() };
    for (flags, nodes, files) in [
        (&[][..], &[][..], &[][..]),
        (&["--gdrcopy-enabled"], &NODES[..1], &[]),
        (&["--gds-enabled", "--mofed-enabled"], &NODES[1..], &["/etc/cufile.json", "/run/udev"]),
    ] {
        let agent = agent(&node, "cdi-cri", flags);
        listed(&kubelet, G3, 1, 1).await;
        let container = given(&kubelet).await;
        assert_eq!((enabled(&container), container.devices.len()), (vec![], 0), "CDI's names are enough");
        let edits = spec()["containerEdits"].take();
        let all = edits["deviceNodes"].as_array().unwrap().clone();
        let own = all.iter().filter(|node| node["major"] == 231);
        let found: BTreeSet<String> =
            own.map(|node| format!("{} {}", node["path"].as_str().unwrap(), node["minor"])).collect();
        let minor = |name: &str| fs::metadata(node.path("root/dev").join(name)).unwrap().rdev() & 0xff;
        assert_eq!(found, nodes.iter().map(|name| format!("/dev/{name} {}", minor(name))).collect());
        let mounts = edits["mounts"].as_array().unwrap().clone();
        let shown =
            |mount: &&Value| ["/etc", "/run"].iter().any(|at| mount["containerPath"].as_str().unwrap().starts_with(at));
        let shown: Vec<String> = mounts
            .iter()
            .filter(shown)
            .filter(|mount| !mount["containerPath"].as_str().unwrap().contains("OpenCL"))
            .map(|mount| {
                assert_eq!(mount["hostPath"], format!("/node{}", mount["containerPath"].as_str().unwrap()));
                assert_eq!(mount["options"][0], "ro");
                mount["containerPath"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(shown, files, "{flags:?}");
        agent.kill();
        kubelet.wait_for(|now| now.get(G3).is_none_or(|it| !it.registered), node::DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn with_pass_device_specs_the_kubelet_hands_the_nodes_out() {
    let node = Node::new("demo");
    if !lay_out_driver(&node) {
        return;
    }
    let kubelet = node.kubelet().await;
    let paths = |container: &ContainerAllocation| -> BTreeSet<String> {
        let devices = container.devices.iter().filter(|device| device.permissions == "rw");
        devices.map(|device| format!("{} {}", device.container_path, device.host_path)).collect()
    };
    let flags = ["--pass-device-specs", "--gds-enabled", "--gdrcopy-enabled", "--mofed-enabled"];
    // Without their modules containers start all the same, and the agent says what they lack.
    let mut first = agent(&node, "envvar", &flags);
    listed(&kubelet, G3, 1, 1).await;
    for words in ["--gds-enabled: there is no /dev/nvidia-fs*", "no /dev/gdrdrv", "no /dev/infiniband/uverbs*"] {
        first.line(words);
    }
    first.ready(|status, _| status.contains("200"));
    let before = paths(&given(&kubelet).await);
    first.kill();
    kubelet.wait_for(|now| now.get(G3).is_none_or(|it| !it.registered), node::DEADLINE).await.unwrap();

    make_nodes(&node);
    let second = agent(&node, "envvar", &flags);
    listed(&kubelet, G3, 1, 1).await;
    let container = given(&kubelet).await;
    assert_eq!(enabled(&container), VARIABLES);
    let more: BTreeSet<String> = paths(&container).difference(&before).cloned().collect();
    assert_eq!(more, NODES.iter().map(|name| format!("/dev/{name} /node/dev/{name}")).collect());
    assert!(!second.log().contains("there is no /dev"), "{}", second.log());
}
