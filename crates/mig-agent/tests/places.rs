//! Where driver and kubelet may live, as `docs/platforms.md` has it, and what may be in the driver's place instead.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use kubelet_sim::Pod;
use node::{Agent, G1, G3, Node, fake_library, listed};

const NAME: &str = "libnvidia-ml.so.1";

/// The agent as in a pod: the node's driver root is mounted somewhere, and nothing else names the library.
fn agent_below(node: &Node, root: &Path) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
    command
        .env_clear()
        .env("FAKE_NVML_STATE", node.path("state"))
        .env("POLL_INTERVAL", "50ms")
        .env("SETTLE_TIME", "50ms")
        .env("STATE_DIR", node.path("run"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--nvidia-driver-root",
            "/",
            "--container-driver-root",
        ])
        .arg(root)
        .arg("--kubelet-root")
        .arg(node.kubelet_root());
    Agent::start(command, node.path("agent.log"))
}

fn put(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(fake_library(), path).unwrap();
}

#[tokio::test]
async fn a_library_is_found_where_gke_talos_and_bottlerocket_have_it() {
    for place in ["home/kubernetes/bin/nvidia/lib64", "usr/local/glibc/usr/lib", "usr/lib/nvidia/tesla"] {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let root = node.path("driver-root");
        put(&root.join(place).join(NAME));
        let mut agent = agent_below(&node, &root);
        listed(&kubelet, G1, 9, 9).await;
        let line = agent.line("loading ");
        assert!(line.contains(place), "{line}");
    }
}

#[tokio::test]
async fn links_of_a_mounted_root_lead_to_the_roots_own_files() {
    let node = Node::new("demo");
    let kubelet = node.kubelet().await;
    let root = node.path("driver-root");
    put(&root.join("usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.580"));
    fs::create_dir_all(root.join("etc/alternatives")).unwrap();
    let real = "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.580";
    symlink(real, root.join("etc/alternatives/nvidia-ml")).unwrap();
    symlink("/etc/alternatives/nvidia-ml", root.join("usr/lib/x86_64-linux-gnu").join(NAME)).unwrap();
    let mut agent = agent_below(&node, &root);
    listed(&kubelet, G1, 9, 9).await;
    let line = agent.line("loading ");
    assert!(line.contains(&format!("driver-root{real}")), "{line}");
}

/// Each is named with what to do, is tried again without a word more, and is forgotten when it is mended.
#[tokio::test]
async fn what_is_in_the_drivers_place_and_is_none_is_told_and_gets_better_when_it_is_mended() {
    let mut foreign = fs::read(fake_library()).unwrap();
    let (machine, theirs) = if cfg!(target_arch = "x86_64") { (183_u16, "aarch64") } else { (62, "x86_64") };
    foreign[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
    let cut = fs::read(fake_library()).unwrap()[..5000].to_vec();
    let foreign_words = format!("is for {theirs} processors");
    let cases: [(Option<&[u8]>, &str); 5] = [
        (None, "there is no directory"),
        (Some(b"not yet\n"), "is no library:"),
        (Some(b""), "is no library, it is empty"),
        (Some(&foreign), &foreign_words),
        (Some(&cut), "is cut short"),
    ];
    for (content, words) in cases {
        let node = Node::new("demo");
        let kubelet = node.kubelet().await;
        let root = node.path("driver-root");
        let library = root.join("usr/lib64").join(NAME);
        if let Some(content) = content {
            fs::create_dir_all(library.parent().unwrap()).unwrap();
            fs::write(&library, content).unwrap();
        }
        let mut agent = agent_below(&node, &root);
        let line = agent.line(words);
        assert!(line.contains(root.to_str().unwrap()), "{line}");
        agent.ready(|status, body| status.contains("503") && body.starts_with("driver: ") && body.contains(words));
        assert!(agent.get("/healthz").0.contains("200"), "a restart would not help");
        assert!(kubelet.resources().is_empty());
        // Not written into: who has it mapped would be killed.
        put(&root.join("usr/lib64/new"));
        fs::rename(root.join("usr/lib64/new"), &library).unwrap();
        listed(&kubelet, G1, 9, 9).await;
        assert_eq!(agent.log().matches(words).count(), 1, "{}", agent.log());
    }
}

#[tokio::test]
async fn a_library_that_is_not_nvml_is_told() {
    let node = Node::new("demo");
    let source = node.path("other.c");
    fs::write(&source, "int other(void) { return 0; }\n").unwrap();
    let library = node.path("driver-root/usr/lib64").join(NAME);
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    let mut agent = agent_below(&node, &node.path("driver-root"));
    agent.ready(|status, body| status.contains("503") && body.starts_with("driver: ") && body.contains("nvmlInit"));
}

/// k0s and MicroK8s: the kubelet's root is elsewhere, and its folder of device plugins is not in it. In a pod both are
/// mounted where the agent looks.
#[tokio::test]
async fn the_kubelets_two_folders_need_not_lie_side_by_side() {
    let node = Node::new("demo");
    let kubelet = kubelet_sim::Kubelet::start(node.path("var/lib/kubelet")).await.unwrap();
    let elsewhere = node.path("var/lib/k0s/kubelet");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::rename(node.path("var/lib/kubelet/pod-resources"), elsewhere.join("pod-resources")).unwrap();
    fs::create_dir(node.kubelet_root()).unwrap();
    symlink(node.path("var/lib/kubelet/device-plugins"), node.kubelet_root().join("device-plugins")).unwrap();
    symlink(elsewhere.join("pod-resources"), node.kubelet_root().join("pod-resources")).unwrap();
    let agent = node.agent(&[]);
    listed(&kubelet, G3, 1, 1).await;
    kubelet.admit(Pod::new("train").container("main", [(G3, 1)])).await.unwrap();
    let held = node.uuids("3g.20gb").remove(0);
    agent.kill();
    node.recut("gpus: [{model: A100-SXM4-40GB, instances: [{profile: 1g.5gb}]}]");
    // Only podresources can tell the new agent of it.
    let _agent = node.agent(&[]);
    let resource = listed(&kubelet, G3, 1, 0).await;
    assert_eq!(resource.devices[0].id, held);
}
