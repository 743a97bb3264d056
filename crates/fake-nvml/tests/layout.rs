//! The files that a driver has in /dev, /proc and /sys: laid out below a directory, and kept as the machine is.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use common::{Client, Machine, scene};

const GI: &str = "proc/driver/nvidia/capabilities/gpu0/mig/gi1";

fn opened(machine: &Machine) -> Client {
    let mut client = machine.client();
    client.expect(&[("nvmlInit_v2", "0"), ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0")]);
    client
}

/// A machine with one empty GPU, laid out.
fn laid_out(text: &str, options: &[&str]) -> (Machine, Client, PathBuf) {
    let machine = Machine::described(text);
    let root = machine.path("root");
    machine.tell(&[&["layout", "--plain-files", "--root", root.to_str().unwrap()], options].concat());
    let client = opened(&machine);
    (machine, client, root)
}

const MAKE: [(&str, &str); 2] = [
    ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 p:0,4 oh:gi", "0"),
    ("nvmlGpuInstanceCreateComputeInstance h:gi u:2 oh:ci", "0"),
];

#[test]
fn what_a_driver_lays_out_is_laid_out() {
    let machine = Machine::of("demo");
    let root = machine.path("root");
    let lay_out = || machine.tell(&["layout".as_ref(), "--plain-files".as_ref(), "--root".as_ref(), root.as_os_str()]);
    lay_out();
    let minors = fs::read_to_string(root.join("proc/driver/nvidia-caps/mig-minors")).unwrap();
    assert_eq!(minors.lines().count(), 4322);
    assert!(minors.starts_with("config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\n"));
    assert!(minors.ends_with("gpu31/gi14/ci7/access 4322\n"));
    let access = "proc/driver/nvidia/capabilities/gpu1/mig/gi7/ci0/access";
    assert!(fs::read_to_string(root.join(access)).unwrap().starts_with("DeviceFileMinor: 202\n"));
    assert!(minors.contains("\ngpu1/gi7/ci0/access 202\n"));
    for name in
        ["dev/nvidia1", "dev/nvidiactl", "dev/nvidia-caps/nvidia-cap202", "sys/bus/pci/devices/0000:08:00.0/numa_node"]
    {
        assert!(root.join(name).exists(), "{name}");
    }
    assert!(fs::read_to_string(root.join("proc/devices")).unwrap().contains("\n241 nvidia-caps\n"));
    machine.tell(&["set".as_ref(), scene("h200-idle").as_os_str()]);
    lay_out();
    assert!(!root.join("dev/nvidia1").exists() && !root.join("dev/nvidia-caps/nvidia-cap202").exists());
    assert_eq!(machine.control().args(["layout", "--root", "/"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn files_and_nodes_come_and_go_with_their_instances() {
    let (machine, mut client, root) = laid_out("gpus: [{ model: H200, mig: true }]", &[]);
    let has = |name: &str| root.join(name).exists();
    assert!(!has(GI) && has("dev/nvidia-caps/nvidia-cap1"));
    client.expect(&MAKE);
    assert_eq!(
        fs::read_to_string(root.join(GI).join("access")).unwrap(),
        "DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
    );
    assert!(fs::read_to_string(root.join(GI).join("ci0/access")).unwrap().starts_with("DeviceFileMinor: 13\n"));
    assert!(has("dev/nvidia-caps/nvidia-cap12") && has("dev/nvidia-caps/nvidia-cap13"));
    client.expect(&[("nvmlComputeInstanceDestroy h:ci", "0")]);
    assert!(has(GI) && !root.join(GI).join("ci0").exists() && !has("dev/nvidia-caps/nvidia-cap13"));
    client.expect(&[("nvmlGpuInstanceDestroy h:gi", "0")]);
    assert!(!has(GI) && !has("dev/nvidia-caps/nvidia-cap12") && has("dev/nvidia-caps/nvidia-cap2"));
    client.expect(&MAKE);
    machine.tell(&["reboot"]);
    assert!(!has(GI) && !has("dev/nvidia-caps/nvidia-cap12") && has("dev/nvidia0"));
    machine.tell(&["set".as_ref(), scene("demo").as_os_str()]);
    assert!(has("dev/nvidia1") && has(GI));
}

#[test]
fn a_gpu_that_moves_takes_its_node_along() {
    let (_machine, mut client, root) = laid_out("minors_move: true\ngpus: [{ model: H200 }]", &[]);
    client.expect(&[("nvmlDeviceSetMigMode h:gpu u:1 o", "0 0")]);
    assert!(root.join("dev/nvidia1").exists() && !root.join("dev/nvidia0").exists());
    let information = fs::read_to_string(root.join("proc/driver/nvidia/gpus/0000:07:00.0/information")).unwrap();
    assert!(information.contains("Device Minor: \t 1\n"), "{information}");
}

#[test]
fn nodes_of_instances_may_be_left_to_others() {
    let (machine, mut client, root) = laid_out("gpus: [{ model: H200, mig: true }]", &["--without-instance-nodes"]);
    let node = root.join("dev/nvidia-caps/nvidia-cap12");
    client.expect(&MAKE);
    assert!(root.join(GI).join("access").exists() && !node.exists());
    fs::write(&node, "somebody's").unwrap();
    machine.tell(&["reboot"]);
    assert!(!root.join(GI).exists() && node.exists());
}

#[test]
fn a_root_that_is_gone_stops_nobody_and_is_made_up_for() {
    let (machine, mut client, root) = laid_out("gpus: [{ model: H200, mig: true }]", &[]);
    let away = machine.path("away");
    fs::rename(&root, &away).unwrap();
    client.expect(&MAKE);
    assert!(!root.exists());
    fs::rename(&away, &root).unwrap();
    assert!(!root.join(GI).exists());
    client.expect(&[("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:other", "0")]);
    assert!(root.join(GI).join("ci0/access").exists());
}

#[test]
fn nothing_is_written_through_a_link_that_leads_out_of_the_root() {
    let (machine, mut client, root) = laid_out("gpus: [{ model: H200, mig: true }]", &[]);
    let outside = machine.path("outside");
    fs::create_dir_all(outside.join("nvidia-caps")).unwrap();
    fs::write(outside.join("nvidia0"), "the host's").unwrap();
    fs::remove_dir_all(root.join("dev")).unwrap();
    symlink(&outside, root.join("dev")).unwrap();
    let output = machine.control().args(["layout", "--root", root.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.ends_with("/root/dev is no directory: nothing is laid out through it\n"), "{said}");
    client.expect(&MAKE);
    machine.tell(&["reboot"]);
    assert_eq!(fs::read_to_string(outside.join("nvidia0")).unwrap(), "the host's");
    assert_eq!(fs::read_dir(outside.join("nvidia-caps")).unwrap().count(), 0);
}

#[test]
fn a_state_directory_without_its_world_says_so() {
    let machine = Machine::of("demo");
    machine.tell(&["show"]);
    fs::remove_file(machine.path("state/world.1")).unwrap();
    let output = machine.control().arg("show").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("/state: its world is gone; remove it and start again\n"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
