//! Programs that use GPUs: who sees them, what they keep from being changed, and what ends them.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use common::{Client, Machine};

const CUT: &str =
    "gpus: [{ model: H200, instances: [{ profile: 3g.71gb }, { profile: 1g.18gb }] }, { model: A100-SXM4-40GB }]";

fn opened(machine: &Machine) -> Client {
    let mut client = machine.client();
    client.expect(&[
        ("nvmlInit_v2", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:other", "0"),
    ]);
    client
}

fn refusal(machine: &Machine, arguments: &[&str]) -> (Option<i32>, String) {
    let output = machine.control().args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_process_is_seen_on_its_gpu_and_on_its_slice_only() {
    let machine = Machine::described(CUT);
    let mut client = opened(&machine);
    machine.tell(&[
        "process",
        "add",
        "--gpu",
        "0",
        "--instance",
        "1",
        "--compute",
        "0",
        "--pid",
        "71",
        "--memory",
        "512",
        "--name",
        "train",
    ]);
    machine.tell(&["process", "add", "--gpu", "0", "--pid", "72"]);
    machine.tell(&["process", "add", "--gpu", "1", "--pid", "73", "--graphics"]);
    client.expect(&[
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice", "0"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:1 oh:next", "0"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:0 null", "7 2"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:1 w:0,6", "7 2 0 0 0 0 0 0"),
        // Process, gap, memory (two words), GPU instance, compute instance; and the next.
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:9 w:0,1", "0 2 71"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:9 w:2,4", "0 2 536870912 0 1 0"),
        ("nvmlDeviceGetComputeRunningProcesses_v2 h:gpu c:9 w:6,1", "0 2 72"),
        ("nvmlDeviceGetComputeRunningProcesses_v2 h:gpu c:9 w:10,2", "0 2 4294967295 4294967295"),
        ("nvmlDeviceGetComputeRunningProcesses h:gpu c:9 w:4,1", "0 2 72"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:slice c:9 w:0,1", "0 1 71"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:next c:9 w:0,1", "0 0 0"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:next c:0 null", "0 0"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu null b", "2"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:9 null", "2 2"),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3 h:gpu c:9 b", "0 0"),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3 h:other c:9 w:0,1", "0 1 73"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:other c:9 b", "0 0"),
        ("nvmlSystemGetProcessName u:71 t u:64", "0 train"),
        ("nvmlSystemGetProcessName u:71 t u:3", "0 tr"),
        ("nvmlSystemGetProcessName u:71 t u:0", "2"),
        ("nvmlSystemGetProcessName u:72 t u:64", "0 process-72"),
        ("nvmlSystemGetProcessName u:70 t u:64", "6"),
        // Total, free, used: 3g.71gb has 71424 MiB.
        ("nvmlDeviceGetMemoryInfo h:slice w:4,2", "0 536870912 0"),
        ("nvmlDeviceGetMemoryInfo h:next w:4,2", "0 0 0"),
    ]);
    let shown = machine.tell(&["process", "list"]);
    assert!(
        shown.starts_with("GPU 0: process 71 (train) computes on GPU instance 1, compute instance 0, 512 MiB\n"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 3);
    let told: serde_json::Value = serde_json::from_str(&machine.tell(&["process", "list", "-o", "json"])).unwrap();
    assert_eq!((&told[1]["pid"], &told[2]["gpu"]), (&72.into(), &1.into()));
    let shown: serde_json::Value = serde_json::from_str(&machine.tell(&["show", "-o", "json"])).unwrap();
    assert_eq!(shown["gpus"][0]["processes"][0]["name"], "train");
}

#[test]
fn what_a_process_uses_cannot_be_destroyed_until_it_ends() {
    let machine = Machine::described(CUT);
    let mut client = opened(&machine);
    machine.tell(&["process", "add", "--gpu", "0", "--instance", "1", "--compute", "0", "--pid", "71"]);
    machine.tell(&["process", "add", "--gpu", "0", "--instance", "11", "--pid", "72"]);
    client.expect(&[
        ("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:used", "0"),
        ("nvmlGpuInstanceGetComputeInstanceById h:used u:0 oh:used-ci", "0"),
        ("nvmlDeviceGetGpuInstanceById h:gpu u:11 oh:held", "0"),
        ("nvmlGpuInstanceGetComputeInstanceById h:held u:0 oh:held-ci", "0"),
        ("nvmlComputeInstanceDestroy h:used-ci", "19"),
        ("nvmlGpuInstanceDestroy h:used", "19"),
        ("nvmlComputeInstanceDestroy h:held-ci", "0"),
        ("nvmlGpuInstanceDestroy h:held", "19"),
    ]);
    machine.tell(&["process", "remove", "--pid", "71"]);
    machine.tell(&["process", "remove", "--pid", "72"]);
    client.expect(&[
        ("nvmlComputeInstanceDestroy h:used-ci", "0"),
        ("nvmlGpuInstanceDestroy h:used", "0"),
        ("nvmlGpuInstanceDestroy h:held", "0"),
    ]);
}

#[test]
fn a_gpu_in_use_keeps_its_mode_and_is_not_reset() {
    let machine = Machine::described("gpus: [{ model: H200 }, { model: A100-SXM4-40GB }]");
    let mut client = opened(&machine);
    for gpu in ["0", "1"] {
        machine.tell(&["process", "add", "--gpu", gpu, "--pid", "71"]);
    }
    client.expect(&[
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 19"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 1"),
        ("nvmlDeviceSetMigMode h:other u:1 o", "0 19"),
    ]);
    assert_eq!(
        refusal(&machine, &["reset-gpu", "1"]),
        (Some(1), "fake-nvml: GPU 1 is in use by process 71\n".to_owned())
    );
    machine.tell(&["process", "remove", "--pid", "71"]);
    client.expect(&[
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
        ("nvmlDeviceSetMigMode h:other u:1 o", "0 16"),
    ]);
    machine.tell(&["reset-gpu", "1"]);
    client.expect(&[
        ("nvmlDeviceGetMigMode h:other o o", "2 0 0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:other", "0"),
        ("nvmlDeviceGetMigMode h:other o o", "0 1 1"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
    ]);
}

#[test]
fn a_reset_and_a_reboot_take_instances_and_handles_away() {
    let machine = Machine::described(
        "gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 3g.20gb }] }, { model: H200, instances: [{ profile: 3g.71gb }] }]",
    );
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "0 16"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 0"),
        ("nvmlDeviceGetGpuInstanceById h:gpu u:2 oh:gi", "0"),
    ]);
    machine.tell(&["reset-gpu", "0"]);
    client.expect(&[
        ("nvmlGpuInstanceGetInfo h:gi b", "2"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 0"),
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 16"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:other u:0 oh:slice", "0"),
    ]);
    machine.tell(&["process", "add", "--gpu", "1", "--instance", "1", "--compute", "0", "--pid", "71"]);
    machine.tell(&["lose-gpu", "0"]);
    assert_eq!(refusal(&machine, &["reset-gpu", "0"]), (Some(1), "fake-nvml: GPU 0 is lost\n".to_owned()));
    machine.tell(&["reboot"]);
    client.expect(&[
        ("nvmlDeviceGetUUID h:gpu t u:96", "2"),
        ("nvmlDeviceGetUUID h:other t u:96", "2"),
        ("nvmlDeviceGetUUID h:slice t u:96", "2"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:other", "0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
        ("nvmlDeviceGetMigMode h:other o o", "0 1 1"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:other u:0 oh:slice", "6"),
        ("nvmlSystemGetProcessName u:71 t u:64", "6"),
    ]);
}

#[test]
fn processes_of_parts_that_are_not_there_are_refused() {
    let machine = Machine::described(CUT);
    let said = |arguments: &[&str]| refusal(&machine, arguments);
    let add = ["process", "add", "--pid", "71", "--gpu"];
    let with = |rest: &[&'static str]| said(&[&add[..], rest].concat());
    assert_eq!(with(&["7"]), (Some(2), "fake-nvml: there is no GPU 7: the machine has 0 to 1\n".to_owned()));
    assert_eq!(with(&["0", "--instance", "2"]), (Some(2), "fake-nvml: GPU 0 has no GPU instance 2\n".to_owned()));
    let text = "fake-nvml: GPU instance 1 of GPU 0 has no compute instance 3\n".to_owned();
    assert_eq!(with(&["0", "--instance", "1", "--compute", "3"]), (Some(2), text));
    assert_eq!(with(&["0", "--compute", "3"]).0, Some(2));
    assert_eq!(
        said(&["process", "remove", "--pid", "1"]),
        (Some(2), "fake-nvml: no process 1 uses a GPU\n".to_owned())
    );
    assert_eq!(said(&["xid", "48", "--gpu", "0", "--instance", "2"]).0, Some(2));
    assert_eq!(machine.tell(&["process", "list"]), "");
}

#[test]
fn a_scene_may_have_processes() {
    let machine = Machine::of("busy");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:9 w:0,1", "0 2 4711"),
        ("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:gi", "0"),
        ("nvmlGpuInstanceGetComputeInstanceById h:gi u:0 oh:ci", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "19"),
        ("nvmlSystemGetProcessName u:4711 t u:64", "0 python3"),
    ]);
}

#[test]
fn without_the_monitor_capability_only_a_slices_own_processes_are_told() {
    let machine = Machine::described(&format!("permission: none\n{CUT}"));
    machine.tell(&["process", "add", "--gpu", "0", "--instance", "1", "--compute", "0", "--pid", "71"]);
    opened(&machine).expect(&[
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:gpu c:9 b", "4 9"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice", "0"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:slice c:9 w:0,1", "0 1 71"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 h:other c:9 b", "0 0"),
    ]);
}
