//! What `migctl status` draws, on 80 columns unless a test says otherwise.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod machine;
mod podresources;

use machine::{CUT, Machine, scene};
use podresources::PretendedKubelet;
use snapbox::{assert_data_eq, str};

const SMALL: &str = "MIG-aaaaaaaa-0000-5000-8000-000000000002";

fn drawn(machine: &Machine, line: &str, variables: &[(&str, &str)]) -> String {
    let mut command = machine.command();
    command.args(line.split(' ')).envs(variables.iter().copied());
    machine.told(&command.output().unwrap())
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
