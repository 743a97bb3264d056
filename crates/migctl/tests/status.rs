//! What `migctl status` draws, on 80 columns unless a test says otherwise.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod machine;
mod podresources;

use std::fmt::Write as _;

use machine::{CUT, Machine, scene};
use podresources::PretendedKubelet;
use snapbox::{assert_data_eq, str};

const SMALL: &str = "MIG-aaaaaaaa-0000-5000-8000-000000000002";

fn drawn(machine: &Machine, line: &str, variables: &[(&str, &str)]) -> String {
    let mut command = machine.command();
    command.args(line.split(' ')).envs(variables.iter().copied());
    machine.told(&command.output().unwrap())
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

#[test]
fn slices_are_drawn_to_scale_with_their_users() {
    let machine = Machine::written(CUT);
    machine.run_process(0, Some(1), 4711, "python3");
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), Some(&[("training-0", SMALL)]));
    assert_data_eq!(
        drawn(&machine, "status", &[("LANG", "C.UTF-8")]),
        str![[r#"
1 GPU, 3 MIG instances, 2 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 2/3 in use
  ┌0───────┬1───────┬2────────3───────┬4────────5────────6────────7───────┐
  │1g.5gb  │1g.5gb  │uncut            │3g.20gb                            │
  │trainin…│free    │                 │python3                            │
  └────────┴────────┴─────────────────┴───────────────────────────────────┘
  ID  TYPE     AT   COMPUTE  USED BY
  11  1g.5gb   0:1  1/7      pod default/training-0
  12  1g.5gb   1:1  1/7      free
  1   3g.20gb  4:4  3/7      python3 (4711)
  uncut: 2 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 2g.10gb,
  1 x 1g.5gb+me or 1 x 1g.10gb
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
1 GPU, 3 MIG instances, 2 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 2/3 in use
  +0-------+1-------+2--------3-------+4--------5--------6--------7-------+
  |1g.5gb  |1g.5gb  |uncut            |3g.20gb                            |
  |trainin~|free    |                 |python3                            |
  +--------+--------+-----------------+-----------------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  11  1g.5gb   0:1  1/7      pod default/training-0
  12  1g.5gb   1:1  1/7      free
  1   3g.20gb  4:4  3/7      python3 (4711)
  uncut: 2 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 2g.10gb,
  1 x 1g.5gb+me or 1 x 1g.10gb
exit 0

"#]]
    );
    assert_data_eq!(drawn(&machine, "status --ascii", &[("LANG", "C.UTF-8")]), machine.transcript("status"));
}

#[test]
fn twelve_slices_and_four_are_drawn_to_scale_too() {
    for (name, expected) in [
        (
            "rtx-pro-6000",
            str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  RTX PRO 6000 Blackwell Server Edition             MIG on, 0/3 in use
  ┌0─────1─────2────┬3─────4─────5────┬6─────7─────8─────9─────10────11───┐
  │1g.24gb+me       │1g.24gb          │2g.48gb                            │
  │free             │free             │free                               │
  └─────────────────┴─────────────────┴───────────────────────────────────┘
  ID  TYPE        AT   COMPUTE  USED BY
  3   1g.24gb+me  0:3  1/4      free
  4   1g.24gb     3:3  1/4      free
  2   2g.48gb     6:6  2/4      free
  no memory slice is left: nothing more fits
exit 0

"#]],
        ),
        (
            "a30",
            str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  A30  0000:07:00.0                         MIG on, 0/3 in use
  ┌0───────────────1──────────────┬2──────────────┬3──────────────┐
  │2g.12gb+me                     │1g.6gb         │1g.6gb         │
  │free                           │free           │free           │
  └───────────────────────────────┴───────────────┴───────────────┘
  ID  TYPE        AT   COMPUTE  USED BY
  2   2g.12gb+me  0:2  2/4      free
  3   1g.6gb      2:1  1/4      free
  4   1g.6gb      3:1  1/4      free
  no memory slice is left: nothing more fits
exit 0

"#]],
        ),
    ] {
        assert_data_eq!(drawn(&Machine::new(name), "--gpuid 0 status", &[("LANG", "C.UTF-8")]), expected);
    }
}

#[test]
fn parts_of_an_instance_have_their_own_users() {
    let machine = Machine::new("compute-instances");
    machine.run_process(0, Some(2), 4711, "python3");
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
2 GPUs, 4 MIG instances, 1 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 1/2 in use
  +0--------1--------2--------3-------+4--------5--------6--------7-------+
  |3g.20gb                            |3g.20gb                            |
  |python3                            |free                               |
  +-----------------------------------+-----------------------------------+
  ID   TYPE          AT   COMPUTE  USED BY
  2    3g.20gb       0:4  3/7
  2/0    1c.3g.20gb  2:1  1/7      python3 (4711)
  2/3    2c.3g.20gb  0:2  2/7      free
  1    3g.20gb       4:4  3/7
  1/0    1c.3g.20gb  0:1  1/7      free
  no memory slice is left: nothing more fits

GPU 1  A100-SXM4-40GB  0000:08:00.0                      MIG on, 0/2 in use
  +0--------1--------2--------3-------+4-------+5--------6--------7-------+
  |4g.20gb                            |1g.5gb  |uncut                     |
  |no CI                              |free    |                          |
  +-----------------------------------+--------+--------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  2   4g.20gb  0:4  4/7      nobody can use it: it has no compute instance
  7   1g.5gb   4:1  1/7      free
  uncut: 3 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 1g.5gb+me or
  1 x 1g.10gb
exit 0

"#]]
    );
}

#[test]
fn modes_and_whole_gpus_are_told_in_words() {
    let machine = Machine::written(
        "gpus:
  - model: A100-SXM4-40GB
  - { model: A100-SXM4-40GB, mig: { current: false, pending: true }, count: 2 }
  - { model: A100-SXM4-40GB, mig: { current: true, pending: false } }
  - model: T4
",
    );
    machine.run_process(0, None, 4711, "python3");
    assert_data_eq!(
        machine.transcript("status --details"),
        str![[r#"
5 GPUs, 0 MIG instances, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                                 MIG off
  used by python3 (4711)

GPU 1-2  A100-SXM4-40GB                             MIG off, on after reset
  MIG will be on after a reset; what it needs: migctl --gpuid 1,2 enable
  free

GPU 3  A100-SXM4-40GB  0000:0a:00.0                 MIG on, off after reset
  MIG will be off after a reset; what it needs: migctl --gpuid 3 disable
  +0--------1--------2--------3--------4--------5--------6--------7-------+
  |uncut                                                                  |
  |                                                                       |
  +-----------------------------------------------------------------------+
  uncut: 8 memory and 7 compute slices; room for 7 x 1g.5gb, 3 x 2g.10gb,
  2 x 3g.20gb, 1 x 4g.20gb, 1 x 7g.40gb, 1 x 1g.5gb+me or 4 x 1g.10gb

GPU 4  Tesla T4  0000:0b:00.0                                        no MIG
  free
exit 0

"#]]
    );
}

#[test]
fn faults_are_told_and_the_others_drawn() {
    let machine = Machine::new("one-gpu-lost");
    machine.add_fault("nvmlDeviceGetMigMode", Some(2), Some("UNKNOWN"), None);
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
3 GPUs, 1 MIG instance, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 0/1 in use
  +0--------1--------2--------3--------4--------5--------6--------7-------+
  |7g.40gb                                                                |
  |free                                                                   |
  +-----------------------------------------------------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  0   7g.40gb  0:8  7/7      free
  no memory slice is left: nothing more fits

GPU 1
  unreadable: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the
  bus or has otherwise become inacessible (see the kernel's log for its XID; it
  needs a reset or a reboot)

GPU 2  A100-SXM4-40GB  0000:09:00.0                                   fault
  fault: nvmlDeviceGetMigMode failed on GPU 2: an internal driver error occurred
exit 0

"#]]
    );
}

#[test]
fn without_permission_to_look_it_says_what_is_not_known() {
    let machine = Machine::written(CUT);
    machine.permit(fake_nvml::Permission::None);
    assert_data_eq!(
        machine.transcript("status"),
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                           MIG on, 0/3 in use
  ID  TYPE     AT  COMPUTE  USED BY
  1   3g.20gb  -   3        free
  11  1g.5gb   -   1        free
  12  1g.5gb   -   1        free
  what still fits is unknown: the driver does not say how the GPU is cut (that
  needs root, or the mig/monitor capability)
exit 0

"#]]
    );
}

#[test]
fn a_kubelet_that_does_not_say_is_told_of() {
    let machine = Machine::written(CUT);
    let _kubelet = PretendedKubelet::start(&machine.kubelet_root(), None);
    assert_data_eq!(
        machine.transcript("--gpuid 0 status"),
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 0/3 in use
  +0-------+1-------+2--------3-------+4--------5--------6--------7-------+
  |1g.5gb  |1g.5gb  |uncut            |3g.20gb                            |
  |free?   |free?   |                 |free?                              |
  +--------+--------+-----------------+-----------------------------------+
  ID  TYPE     AT   COMPUTE  USED BY
  11  1g.5gb   0:1  1/7      free?
  12  1g.5gb   1:1  1/7      free?
  1   3g.20gb  4:4  3/7      free?
  uncut: 2 memory and 2 compute slices; room for 2 x 1g.5gb, 1 x 2g.10gb,
  1 x 1g.5gb+me or 1 x 1g.10gb
! warning: pods are not shown: the kubelet refused PodResources.List (ResourceExhausted): rejected by rate limit
exit 0

"#]]
    );
}

/// Sixteen GPUs with seven slices each, on every other one of which a process runs on three.
fn sixteen() -> Machine {
    let seven = "{ profile: 1g.5gb }, ".repeat(7);
    let mut text = "gpus:\n".to_owned();
    for _ in 0..16 {
        let _ = writeln!(text, "  - {{ model: A100-SXM4-40GB, instances: [{seven}] }}");
    }
    let machine = Machine::written(&text);
    for gpu in (0..16).step_by(2) {
        for (pid, instance) in [(100, 11), (200, 13), (300, 7)] {
            machine.run_process(gpu, Some(instance), pid + u32::try_from(gpu).unwrap(), "python3");
        }
    }
    machine
}

#[test]
fn sixteen_gpus_are_drawn_briefly() {
    let machine = sixteen();
    assert_data_eq!(
        drawn(&machine, "status", &[("LANG", "C.UTF-8")]),
        str![[r#"
16 GPUs, 112 MIG instances, 24 in use; driver 580.159.04
GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 1  A100-SXM4-40GB  0000:08:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 2  A100-SXM4-40GB  0000:09:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 3  A100-SXM4-40GB  0000:0a:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 4  A100-SXM4-40GB  0000:0b:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 5  A100-SXM4-40GB  0000:0c:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 6  A100-SXM4-40GB  0000:0d:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 7  A100-SXM4-40GB  0000:0e:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 8  A100-SXM4-40GB  0000:0f:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 9  A100-SXM4-40GB  0000:10:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 10  A100-SXM4-40GB  0000:11:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 11  A100-SXM4-40GB  0000:12:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 12  A100-SXM4-40GB  0000:13:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 13  A100-SXM4-40GB  0000:14:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 14  A100-SXM4-40GB  0000:15:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 15  A100-SXM4-40GB  0000:16:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
exit 0

"#]]
    );
    // In details on request, and of those that are asked for.
    assert!(machine.transcript("status --details").contains("python3 (100)"));
    assert!(machine.transcript("--gpuid 0-1 status").contains("exit 2"), "there are no ranges");
    assert!(machine.transcript("--gpuid 0,1 status").contains("python3 (100)"));
}

#[test]
fn idle_gpus_that_look_the_same_are_drawn_once() {
    assert_data_eq!(
        Machine::new("eight-by-seven").transcript("status"),
        str![[r#"
8 GPUs, 56 MIG instances, 0 in use; driver 580.159.04

GPU 0-7  A100-SXM4-40GB                                  MIG on, 0/7 in use
  +0-------+1-------+2-------+3-------+4-------+5-------+6-------+7-------+
  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |uncut   |
  |free    |free    |free    |free    |free    |free    |free    |        |
  +--------+--------+--------+--------+--------+--------+--------+--------+
  ID  TYPE    AT   COMPUTE  USED BY
  11  1g.5gb  0:1  1/7      free
  12  1g.5gb  1:1  1/7      free
  13  1g.5gb  2:1  1/7      free
  14  1g.5gb  3:1  1/7      free
  7   1g.5gb  4:1  1/7      free
  8   1g.5gb  5:1  1/7      free
  9   1g.5gb  6:1  1/7      free
  uncut: 1 memory and 0 compute slices; nothing more fits
exit 0

"#]]
    );
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let machine = sixteen();
    for (columns, at_most) in [("60", 60), ("80", 80), ("100", 100), ("400", 120), ("10", 60), ("0", 80), ("x", 80)] {
        for name in ["a100-mixed", "rtx-pro-6000", "one-gpu-lost", "busy", "compute-instances", "h200"] {
            let variables = [("COLUMNS", columns), ("LANG", "C.UTF-8")];
            let text = drawn(&Machine::new(name), "status", &variables);
            assert!(widest(&text) <= at_most, "{name} on {columns}: {}\n{text}", widest(&text));
        }
        let text = drawn(&machine, "status", &[("COLUMNS", columns)]);
        assert!(widest(&text) <= at_most && text.is_ascii(), "{columns}: {}\n{text}", widest(&text));
    }
    let narrow = drawn(&Machine::new("rtx-pro-6000"), "--gpuid 0 status", &[("COLUMNS", "60")]);
    assert_data_eq!(
        narrow,
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  RTX PRO 6000 Blackwell ~  MIG on, 0/3 in use
  +0---1---2--+3---4---5--+6---7---8---9---10--11-+
  |1g.24gb+me |1g.24gb    |2g.48gb                |
  |free       |free       |free                   |
  +-----------+-----------+-----------------------+
  ID  TYPE        AT   COMPUTE  USED BY
  3   1g.24gb+me  0:3  1/4      free
  4   1g.24gb     3:3  1/4      free
  2   2g.48gb     6:6  2/4      free
  no memory slice is left: nothing more fits
exit 0

"#]]
    );
}

#[test]
fn colour_adds_nothing_that_is_not_in_the_text() {
    let machine = Machine::new("busy");
    let colored = machine.transcript("--color always status");
    assert!(colored.contains("\u{1b}[36mpython3"), "{colored:?}");
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, machine.transcript("status"));
}

#[test]
fn names_of_others_do_not_steer_the_terminal() {
    let machine = Machine::written(CUT);
    machine.run_process(0, Some(1), 4711, "a\u{1b}[2Jb\nc");
    let text = machine.transcript("status");
    assert!(!text.contains('\u{1b}') && text.contains("(4711)"), "{text}");
}

#[test]
fn programs_read_it_as_json() {
    let machine = Machine::written(CUT);
    machine.run_process(0, Some(1), 4711, "python3");
    assert_data_eq!(
        machine.transcript("-o json status"),
        str![[r#"
{
  "driver": {
    "version": "580.159.04",
    "nvml": "13.580.159.04"
  },
  "pods_known": true,
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "name": "NVIDIA A100-SXM4-40GB",
      "pci_address": "0000:07:00.0",
      "memory_bytes": 42949672960,
      "mig": {
        "supported": true,
        "enabled": true,
        "pending": null
      },
      "memory_slices": 8,
      "compute_slices": 7,
      "instances": [
        {
          "id": 11,
          "profile": "1g.5gb",
          "placement": {
            "start": 0,
            "size": 1
          },
          "compute_slices": 1,
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "1g.5gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000002",
              "placement": {
                "start": 0,
                "size": 1
              },
              "compute_slices": 1,
              "users": []
            }
          ]
        },
        {
          "id": 12,
          "profile": "1g.5gb",
          "placement": {
            "start": 1,
            "size": 1
          },
          "compute_slices": 1,
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "1g.5gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000003",
              "placement": {
                "start": 0,
                "size": 1
              },
              "compute_slices": 1,
              "users": []
            }
          ]
        },
        {
          "id": 1,
          "profile": "3g.20gb",
          "placement": {
            "start": 4,
            "size": 4
          },
          "compute_slices": 3,
          "users": [
            {
              "kind": "process",
              "pid": 4711,
              "name": "python3",
              "memory_bytes": 1073741824
            }
          ],
          "compute_instances": [
            {
              "id": 0,
              "profile": "3g.20gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000001",
              "placement": {
                "start": 0,
                "size": 3
              },
              "compute_slices": 3,
              "users": [
                {
                  "kind": "process",
                  "pid": 4711,
                  "name": "python3",
                  "memory_bytes": 1073741824
                }
              ]
            }
          ]
        }
      ],
      "uncut": {
        "memory": [
          {
            "start": 2,
            "size": 2
          }
        ],
        "compute_slices": 2,
        "room": [
          {
            "profile": "1g.5gb",
            "count": 2
          },
          {
            "profile": "2g.10gb",
            "count": 1
          },
          {
            "profile": "1g.5gb+me",
            "count": 1
          },
          {
            "profile": "1g.10gb",
            "count": 1
          }
        ]
      },
      "users": [
        {
          "kind": "process",
          "pid": 4711,
          "name": "python3",
          "memory_bytes": 1073741824
        }
      ],
      "fault": null
    }
  ],
  "unreadable": []
}
exit 0

"#]]
    );
    assert!(machine.transcript("-o yaml status").starts_with("driver:\n"));
}

#[test]
fn no_gpus_are_no_failure() {
    assert!(scene("no-gpus").is_file());
    assert_data_eq!(
        Machine::new("no-gpus").transcript("status"),
        str![[r#"
no GPUs
exit 0

"#]]
    );
}
