//! A disk that hangs holds up what has to be written, and neither news of faults nor containers.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod node;

use std::fs;
use std::path::Path;

use fake_nvml::{Layout, copy_library, lay_out};
use node::{G1, G3, Node, fake_library, listed};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

/// A file that nobody can read to its end for as long as nobody writes to it.
fn hang(file: &Path) {
    let pipe = file.with_extension("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::rename(pipe, file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_and_removals_reach_the_kubelet_while_the_disk_hangs() {
    let node = Node::new("demo");
    let root = node.path("root");
    lay_out(&node.world(), &Layout { root: root.clone(), plain_files: true, instance_nodes: true }).unwrap();
    copy_library(&root, &fake_library()).unwrap();
    let (proc, cdi) = (root.join("proc"), node.path("cdi"));
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[
        "--device-list-strategy=cdi-cri",
        "--nvidia-driver-root",
        root.to_str().unwrap(),
        "--container-driver-root",
        root.to_str().unwrap(),
        "--proc-root",
        proc.to_str().unwrap(),
        "--cdi-dir",
        cdi.to_str().unwrap(),
    ]);
    listed(&kubelet, G1, 9, 9).await;
    listed(&kubelet, G3, 1, 1).await;

    let spec = cdi.join("mig-agent-gpu.json");
    hang(&spec);
    agent.line("do not answer: does a disk or a network file system hang?");
    agent.ready(|status, body| status.contains("503") && body.contains("does a disk"));
    node.lose_gpu(1, true);
    listed(&kubelet, G1, 9, 2).await;
    // What was ready before can still be had.
    kubelet.admit(kubelet_sim::Pod::new("train").container("main", [(G3, 1)])).await.unwrap();

    // Whoever reads it is let go, finds nothing in it, and writes it anew.
    node.lose_gpu(1, false);
    fs::write(&spec, "").unwrap();
    listed(&kubelet, G1, 9, 9).await;
    agent.ready(|status, _| status.contains("200"));
    assert!(fs::symlink_metadata(&spec).unwrap().is_file());
}

/// Rule 4: what is given out is noted on the disk, and an Allocate does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_given_devices_while_the_notes_cannot_be_written() {
    let node = Node::new("demo");
    fs::create_dir_all(node.path("run")).unwrap();
    hang(&node.path("run/.given-out.json.new"));
    let kubelet = node.kubelet().await;
    let mut agent = node.agent(&[]);
    listed(&kubelet, G1, 9, 9).await;
    for pod in ["one", "another", "third"] {
        kubelet.admit(kubelet_sim::Pod::new(pod).container("main", [(G1, 1)])).await.unwrap();
        // Time for the writer to hang in it.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(agent.get("/healthz").0.contains("200"));
    agent.ready(|status, _| status.contains("200"));
    assert!(!node.path("run/given-out.json").exists(), "it does hang");
    agent.send(Signal::TERM);
    assert_eq!(agent.ended().code(), Some(0), "nor does the end wait for it");
}
