//! What `migctl status` says of hardware that is not well, and of errors that the agent was told of.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod machine;

use std::fs;

use fake_nvml::Recovery;
use machine::{CUT, Machine};
use snapbox::{assert_data_eq, str};

/// As the agent writes it: of one slice, of the GPU, and one that is over.
fn record(machine: &Machine, boot_id: &str) {
    let held = |slice: &str, xid: u64, rest: &str| {
        format!(
            r#"{{"gpu": "GPU-aaaaaaaa-0000-4000-8000-000000000000", {slice} "xid": {xid}, "message": "XID {xid}: a; b", "since_ms": 1, "last_ms": 2{rest}}}"#
        )
    };
    let slice = r#""slice": "MIG-aaaaaaaa-0000-5000-8000-000000000002","#;
    let faults = [held(slice, 94, ""), held("", 79, ""), held(slice, 8, r#", "ended_ms": 3"#)].join(",");
    let text = format!(
        r#"{{"version": 1, "boot_id": "{boot_id}", "kubelet_root": "/var/lib/kubelet", "faults": [{faults}], "uncorrectable_errors": {{}}}}"#
    );
    fs::create_dir_all(machine.path("run")).unwrap();
    fs::write(machine.path("run/health.json"), text).unwrap();
    fs::create_dir_all(machine.path("proc/sys/kernel/random")).unwrap();
    fs::write(machine.path("proc/sys/kernel/random/boot_id"), "this\n").unwrap();
}

#[test]
fn what_is_not_well_is_told_with_what_to_do() {
    let machine = Machine::written(CUT);
    machine.change(|world| {
        let vitals = |vitals: &mut fake_nvml::Vitals| {
            vitals.remap_pending = true;
            vitals.recovery = Recovery::GpuReset;
        };
        world.change_vitals(0, vitals).unwrap();
    });
    record(&machine, "this");
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 0/3 in use
  unhealthy: the driver wants the GPU to be reset: end what uses it, then
  nvidia-smi --gpu-reset, or restart the node
  unhealthy: memory rows wait to be replaced by spare ones: reset the GPU when
  its slices are free
  unhealthy: XID 79: a; b
  unhealthy: 1g.5gb in instance 11: XID 94: a; b
  +0-------+1-------+2--------3-------+4--------5--------6--------7-------+
  |1g.5gb  |1g.5gb  |uncut            |3g.20gb                            |
  |free    |free    |                 |free                               |
  +--------+--------+-----------------+-----------------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  11  1g.5gb   0:1  1/7      free
  12  1g.5gb   1:1  1/7      free
  1   3g.20gb  4:4  3/7      free
  uncut: 2 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 2g.10gb,
  1 x 1g.5gb+me or 1 x 1g.10gb
exit 0

"#]]
    );
    let told = machine.json("status");
    let kinds = |list: &serde_json::Value| {
        list.as_array().unwrap().iter().map(|fault| fault["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&told["gpus"][0]["unhealthy"]), ["RecoveryWanted", "RowRemapPending", "Xid"]);
    assert_eq!(kinds(&told["gpus"][0]["instances"][0]["compute_instances"][0]["unhealthy"]), ["Xid"]);
    assert!(machine.transcript("-o yaml status").contains("kind: RowRemapPending"));
}

#[test]
fn what_is_of_another_start_of_the_machine_or_no_record_is_not_told() {
    let machine = Machine::written(CUT);
    let well = machine.transcript("status");
    record(&machine, "another");
    assert_eq!(machine.transcript("status"), well);
    fs::write(machine.path("run/health.json"), "{").unwrap();
    assert_eq!(machine.transcript("status"), well);
    assert!(!well.contains("unhealthy"), "{well}");
}

/// Whatever the agent gives nobody, and why.
#[test]
fn what_the_agent_gives_to_nobody_is_told_with_its_reason() {
    let machine = Machine::written(CUT);
    let one = |slice: &str, reason: &str, message: &str| {
        format!(
            r#"{{"uuid": "{slice}", "gpu": "GPU-aaaaaaaa-0000-4000-8000-000000000000", "reason": "{reason}", "message": "{message}"}}"#
        )
    };
    let slices = ["1", "2", "3"].map(|last| format!("MIG-aaaaaaaa-0000-5000-8000-00000000000{last}"));
    let mut list: Vec<String> =
        slices.iter().map(|slice| one(slice, "Unwatched", "the driver does not tell of errors")).collect();
    list.push(one(&slices[1], "NoDeviceNode", "/dev/nvidia-caps/nvidia-cap12 is missing"));
    list.push(one("MIG-gone", "Vanished", "it is not offered any more, and a pod may hold it"));
    machine.note("unhealthy.json", "this", &list.join(","));
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 0/3 in use
  unhealthy: the driver does not tell of errors
  unhealthy: 1g.5gb in instance 11: /dev/nvidia-caps/nvidia-cap12 is missing
  +0-------+1-------+2--------3-------+4--------5--------6--------7-------+
  |1g.5gb  |1g.5gb  |uncut            |3g.20gb                            |
  |free    |free    |                 |free                               |
  +--------+--------+-----------------+-----------------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  11  1g.5gb   0:1  1/7      free
  12  1g.5gb   1:1  1/7      free
  1   3g.20gb  4:4  3/7      free
  uncut: 2 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 2g.10gb,
  1 x 1g.5gb+me or 1 x 1g.10gb
MIG-gone is on no GPU, and the agent lists it: it is not offered any more, and a
pod may hold it
exit 0

"#]]
    );
    // What health.json has, too, is told once.
    let slice = "MIG-aaaaaaaa-0000-5000-8000-000000000002";
    record(&machine, "this");
    let of_slice = one(slice, "Xid", "XID 94: a; b; well again after a reset");
    let of_gpu = slices.iter().map(|slice| one(slice, "Xid", "XID 79: a; b; well again after a reset"));
    machine.note("unhealthy.json", "this", &of_gpu.chain([of_slice]).collect::<Vec<_>>().join(","));
    let text = machine.transcript("status");
    assert_eq!((text.matches("XID 94").count(), text.matches("XID 79").count()), (1, 1), "{text}");
    fs::remove_file(machine.path("run/health.json")).unwrap();
    machine.note("unhealthy.json", "this", &list.join(","));
    let told = machine.json("status");
    assert_eq!(told["gpus"][0]["unhealthy"][0]["kind"], "Unwatched");
    assert_eq!(told["gone"][0]["kind"], "Vanished");
    assert_eq!(told["gone"][0]["uuid"], "MIG-gone");
    machine.note("unhealthy.json", "another", &list.join(","));
    assert!(!machine.transcript("status").contains("unhealthy"));

    // Nothing else is to be had from a driver that hangs.
    machine.note("unhealthy.json", "this", &list.join(","));
    machine.add_fault("nvmlDeviceGetCount_v2", None, None, Some("never"));
    assert_data_eq!(
        machine.transcript("status --timeout 1"),
        str![[r#"
! error: the driver has not answered for 1 s
! hint: see the kernel's log; a hung driver needs a reset of its GPU, or a restart of the node
! hint: the node's agent said of 1 device: /dev/nvidia-caps/nvidia-cap12 is missing
! hint: the node's agent said of 1 device: it is not offered any more, and a pod may hold it
! hint: the node's agent said of 3 devices: the driver does not tell of errors
exit 1

"#]]
    );
}
