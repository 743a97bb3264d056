//! The command: what is typed, and what it prints.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod plugin;

use std::process::Stdio;

use plugin::{Plugin, SOON, all};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const SLICE: &str = "nvidia.com/mig-1g.5gb";

/// The next line of which this key has this value.
async fn until(lines: &mut Lines<BufReader<ChildStdout>>, key: &str, value: &str) -> Value {
    let find = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the line comes before the end");
            let object = serde_json::from_str::<Value>(&line).unwrap();
            if object[key] == value {
                return object;
            }
        }
    };
    timeout(SOON, find).await.unwrap()
}

fn start(root: &std::path::Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubelet-sim"));
    command.arg("--json").arg("--root").arg(root).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test]
async fn a_session() {
    let root = tempfile::tempdir().unwrap();
    let mut child = start(root.path());
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    until(&mut lines, "event", "started").await;

    let mut plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    let received = until(&mut lines, "event", "register_received").await;
    let list = until(&mut lines, "event", "list").await;
    assert_eq!((&list["resource"], &list["devices"], &list["first"]), (&SLICE.into(), &1.into(), &true.into()));
    assert!(list["monotonic_ns"].as_u64() > received["monotonic_ns"].as_u64());

    input.write_all(format!("admit train {SLICE}=1\n").as_bytes()).await.unwrap();
    let admitted = until(&mut lines, "reply", "admit").await;
    assert_eq!(admitted["containers"]["main"]["envs"]["DEVICES"], "a");
    input.write_all(format!("admit late {SLICE}=1\nnonsense\n").as_bytes()).await.unwrap();
    until(&mut lines, "event", "pod_rejected").await;
    until(&mut lines, "reply", "error").await;

    input.write_all(b"restart\n").await.unwrap();
    until(&mut lines, "event", "started").await;
    plugin.stop().await;
    plugin.serve();
    plugin.register().await.unwrap();
    until(&mut lines, "event", "list").await;
    input.write_all(b"show\ndelete train\n").await.unwrap();
    let shown = until(&mut lines, "reply", "show").await;
    assert_eq!(shown["resources"][SLICE]["allocated"][0], "a");
    until(&mut lines, "event", "pod_deleted").await;

    input.write_all(b"quit\n").await.unwrap();
    until(&mut lines, "event", "stopped").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn harm_has_an_exit_code_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let mut child = start(root.path());
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    until(&mut lines, "event", "started").await;
    let plugin = Plugin::started(root.path(), SLICE, all(&["a"])).await;
    plugin.list(all(&["a", "a"]));
    let violation = until(&mut lines, "event", "violation").await;
    assert_eq!(violation["kind"], "duplicate_device");
    input.write_all(b"quit\n").await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_signal_stops_it_while_the_input_is_open() {
    let root = tempfile::tempdir().unwrap();
    let mut child = start(root.path());
    let _input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    until(&mut lines, "event", "started").await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
}
