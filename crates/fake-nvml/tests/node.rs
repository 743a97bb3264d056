//! `fake-nvml node`: a node's driver, which comes, is used without any variable, is taken over, and goes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{Client, library, run, scene};
use tempfile::TempDir;

const COUNT: &str = "nvmlDeviceGetCount_v2 o";

/// A `fake-nvml node` that has said it is done.
struct Node {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

fn command(root: &Path, scene: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-nvml"));
    command.env_remove("FAKE_NVML_STATE").args(["node", "--plain-files", "--root"]).arg(root);
    command.arg("--library").arg(library()).arg("--scene").arg(scene);
    command
}

impl Node {
    fn start(root: &Path, scene: &Path) -> Self {
        let mut process = command(root, scene).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("is laid out"), "{line}");
        Self { process, lines }
    }

    /// Ends it as the kubelet does; its last line.
    fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let last = (&mut self.lines).lines().map(Result::unwrap).last().unwrap();
        assert!(self.process.wait().unwrap().success());
        last
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder(root: &Path) -> PathBuf {
    root.join(fake_nvml::library_folder())
}

fn client(root: &Path) -> Client {
    Client::start(Client::command_of(&folder(root).join("libnvidia-ml.so.1")))
}

fn root() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    (folder, root)
}

fn tell(root: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-nvml"));
    let output = command.env_remove("FAKE_NVML_STATE").env("FAKE_NVML_ROOT", root).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn below(root: &Path) -> Vec<PathBuf> {
    fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_client_needs_no_variable_and_nothing_is_left_at_the_end() {
    let (_folder, root) = root();
    let ready = || run(&["ready", "--root", root.to_str().unwrap()]).status.code();
    assert_eq!(ready(), Some(1));
    let node = Node::start(&root, &scene("demo"));
    assert_eq!(ready(), Some(0));
    let mut client = client(&root);
    client.expect(&[("nvmlInit_v2", "0"), (COUNT, "0 2")]);
    tell(&root, &["lose-gpu", "1"]);
    client.expect(&[("nvmlDeviceGetHandleByIndex_v2 u:1 oh:gpu", "15")]);
    assert!(root.join("dev/nvidia1").exists() && root.join("proc/driver/nvidia/version").exists());
    let last = node.end();
    assert!(last.ends_with("is as it was."), "{last}");
    assert_eq!(below(&root), <[PathBuf; 0]>::default());
    assert_eq!(ready(), Some(1));
}

#[test]
fn who_has_a_machine_open_that_goes_finds_the_next_one_by_a_new_start() {
    let (_folder, root) = root();
    let node = Node::start(&root, &scene("demo"));
    let mut client = client(&root);
    client.expect(&[("nvmlInit_v2", "0"), (COUNT, "0 2")]);
    node.end();
    client.expect(&[(COUNT, "9 0"), (COUNT, "1 0"), ("nvmlInit_v2", "9")]);
    let _node = Node::start(&root, &scene("eight-by-seven"));
    client.expect(&[("nvmlInit_v2", "0"), (COUNT, "0 8")]);
}

#[test]
fn a_second_one_takes_over_what_is_there_and_the_first_leaves_it_alone() {
    let (_folder, root) = root();
    let first = Node::start(&root, &scene("demo"));
    let mut client = client(&root);
    client.expect(&[("nvmlInit_v2", "0"), ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0")]);
    tell(&root, &["lose-gpu", "1"]);
    // The same scene: what was done to the machine stays done, and handles stay good.
    let second = Node::start(&root, &scene("demo"));
    let last = first.end();
    assert!(last.ends_with("is left to another one."), "{last}");
    client.expect(&[("nvmlDeviceGetHandleByIndex_v2 u:1 oh:lost", "15"), ("nvmlDeviceGetMinorNumber h:gpu o", "0 0")]);
    // Another scene: another machine, for those who have the old one open too.
    let third = Node::start(&root, &scene("eight-by-seven"));
    second.end();
    client.expect(&[(COUNT, "0 8"), ("nvmlDeviceGetMinorNumber h:gpu o", "2 0")]);
    assert!(root.join("dev/nvidia7").exists());
    third.end();
}

#[test]
fn who_may_not_write_to_the_machine_sees_it_and_its_changes() {
    let (folder_, root) = root();
    fs::set_permissions(folder_.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let node = Node::start(&root, &scene("demo"));
    let state = folder(&root).join("fake-nvml");
    // Root may write anywhere: there the client is somebody else.
    fs::set_permissions(state.join("control"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(state.join("lock"), fs::Permissions::from_mode(0o444)).unwrap();
    let mut command = Client::command_of(&folder(&root).join("libnvidia-ml.so.1"));
    if rustix::process::geteuid().is_root() {
        command.uid(65534);
    }
    let mut client = Client::start(command);
    client.expect(&[("nvmlInit_v2", "0"), (COUNT, "0 2")]);
    client.expect(&[("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"), ("nvmlDeviceSetMigMode h:gpu u:0 o", "4 0")]);
    fs::set_permissions(state.join("control"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(state.join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
    // A fault is met, though nothing may be counted where others count.
    tell(&root, &["fault", "add", "--call", "nvmlDeviceGetCount_v2", "--nth", "2", "--returns", "UNKNOWN"]);
    client.expect(&[(COUNT, "0 2"), (COUNT, "999 0"), (COUNT, "0 2")]);
    tell(&root, &["lose-gpu", "0"]);
    client.expect(&[("nvmlDeviceGetMinorNumber h:gpu o", "15 0")]);
    node.end();
    client.expect(&[(COUNT, "9 0")]);
}

#[test]
fn another_drivers_files_and_a_broken_scene_are_refused_and_nothing_is_changed() {
    let (folder_, root) = root();
    fs::create_dir_all(root.join("usr/lib64")).unwrap();
    fs::write(root.join("usr/lib64/libnvidia-ml.so.1"), "a real one").unwrap();
    let refused = command(&root, &scene("demo")).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("usr/lib64/libnvidia-ml.so.1 is another driver's"));
    assert_eq!(below(&root), [root.join("usr")]);
    fs::remove_dir_all(root.join("usr")).unwrap();

    let node = Node::start(&root, &scene("demo"));
    let broken = folder_.path().join("broken.yaml");
    fs::write(&broken, "gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 9g.90gb }] }]").unwrap();
    assert_eq!(command(&root, &broken).output().unwrap().status.code(), Some(2));
    client(&root).expect(&[("nvmlInit_v2", "0"), (COUNT, "0 2")]);
    assert!(node.end().ends_with("is as it was."));
    let slash = command(Path::new("/"), &scene("demo")).output().unwrap();
    assert_ne!(slash.status.code(), Some(0));
}

#[test]
fn the_charts_scenes_are_those_of_the_tests() {
    let mut scenes = 0;
    for path in below(&common::repository().join("charts/fake-nvml/scenes")) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(scene(name)).unwrap(), "{name}");
        scenes += 1;
    }
    assert!(scenes > 5);
}
