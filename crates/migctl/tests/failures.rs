//! What can go wrong: each has its message, its hint and its exit code.

mod machine;

use std::process::Stdio;
use std::time::{Duration, Instant};

use fake_nvml::Permission;
use machine::{CUT, Machine, TWO};
use mig_nvml::NodeLock;
use rustix::process::{Pid, Signal, kill_process};
use snapbox::{assert_data_eq, str};

const CREATE: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";

#[test]
fn a_gpu_that_is_not_there() {
    let machine = Machine::written(TWO);
    assert_data_eq!(
        machine.transcript("--gpuid 7 create instance --type 1g.5gb"),
        str![[r#"
! error: there is no GPU 7
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid GPU-cccc list config"),
        str![[r#"
! error: there is no GPU GPU-cccc
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0000:99:00.0 list gpu"),
        str![[r#"
! error: there is no GPU 0000:99:00.0
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid first list gpu"),
        str![[r#"
! error: invalid value 'first' for '--gpuid <GPU>': unable to read "first" as a GPU, expected an index such as 0, a UUID (GPU-...) or a PCI address such as 0000:07:00.0
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid MIG-aaaaaaaa-0000-5000-8000-000000000002 list gpu"),
        str![[r#"
! error: invalid value 'MIG-aaaaaaaa-0000-5000-8000-000000000002' for '--gpuid <GPU>': this is the UUID of an instance, expected that of its GPU
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb"),
        str![[r#"
! error: there are 2 GPUs: say which by --gpuid
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 2

"#]]
    );
    assert_data_eq!(
        Machine::new("no-gpus").transcript("enable"),
        str![[r#"
! error: the driver knows no GPU on this machine
exit 7

"#]]
    );
    assert_data_eq!(
        Machine::new("no-gpus").transcript("list gpu"),
        str![[r#"
no GPUs
exit 0

"#]]
    );
    assert_data_eq!(
        Machine::new("sixty-four-by-seven").transcript("destroy instance --all").lines().count().to_string(),
        str!["19"]
    );
}

#[test]
fn a_type_that_this_gpu_does_not_have() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("create instance --type 1g.6gb"),
        str![[r#"
! error: GPU 0 has no instance type 1g.6gb
! hint: it has 1g.5gb, 1g.5gb+me, 1g.10gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 4c.7g.41gb"),
        str![[r#"
! error: GPU 0 has no instance type 7g.41gb
! hint: it has 7g.40gb, 4g.20gb, 3g.20gb, 2g.10gb, 1g.10gb, 1g.5gb, 1g.5gb+me
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 47"),
        str![[r#"
! error: GPU 0 has no instance type of id 47
! hint: it has 19 (1g.5gb), 14 (2g.10gb), 9 (3g.20gb), 5 (4g.20gb), 0 (7g.40gb), 20 (1g.5gb+me), 15 (1g.10gb)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type big"),
        str![[r#"
! error: invalid value 'big' for '--type <TYPES>': unable to read "big" as a MIG profile, expected a name such as 1g.5gb, 1g.10gb+me or 1c.3g.20gb
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance"),
        str![[r#"
! error: the following required arguments were not provided:
!   --type <TYPES>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
}

#[test]
fn a_placement_that_is_taken_or_illegal() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 4"),
        str![[r#"
! error: GPU 0: 3g.20gb at 4:4 is taken by GPU instance 1 (3g.20gb at 4:4)
! hint: no placement of 3g.20gb is free
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 0"),
        str![[r#"
! error: GPU 0: 3g.20gb at 0:4 is taken by GPU instance 11 (1g.5gb at 0:1) and GPU instance 12 (1g.5gb at 1:1)
! hint: no placement of 3g.20gb is free
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 2"),
        str![[r#"
! error: GPU 0: 3g.20gb cannot lie at 2
! hint: it can at 0, 4
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement 9"),
        str![[r#"
! error: GPU 0: 1g.5gb cannot lie at 9
! hint: it can at 0, 1, 2, 3, 4, 5, 6
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement 1"),
        str![[r#"
! error: GPU 0: 1g.5gb at 1:1 is taken by GPU instance 12 (1g.5gb at 1:1)
! hint: free for it: 2, 3
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb,1g.5gb --placement 2"),
        str![[r#"
! error: --placement is for one instance
! hint: for several, write each with its own place: --type 3g.20gb@4,1g.5gb@0
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb@2 --placement 2"),
        str![[r#"
! error: 1g.5gb@2 has a place already: leave out --placement and --count
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --count 0"),
        str![[r#"
! error: invalid value '0' for '--count <N>': 0 is not in 1..=64
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement one"),
        str![[r#"
! error: invalid value 'one' for '--placement <START>': invalid digit found in string
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn an_instance_that_is_not_there() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 7"),
        str![[r#"
! error: GPU 0 has no GPU instance 7
! hint: it has GPU instance 11 (1g.5gb at 0:1)
! hint: it has GPU instance 12 (1g.5gb at 1:1)
! hint: it has GPU instance 1 (3g.20gb at 4:4)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11,7"),
        str![[r#"
! error: GPU 0 has no GPU instance 7
! hint: it has GPU instance 11 (1g.5gb at 0:1)
! hint: it has GPU instance 12 (1g.5gb at 1:1)
! hint: it has GPU instance 1 (3g.20gb at 4:4)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance"),
        str![[r#"
! error: the following required arguments were not provided:
!   <--instanceid <IDS>|--uuid <MIG-UUIDS>|--all>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --all --instanceid 7"),
        str![[r#"
! error: the argument '--all' cannot be used with '--instanceid <IDS>'
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 1,2 --computeid 0"),
        str![[r#"
! error: --computeid is for one GPU instance: give one --instanceid
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid seven"),
        str![[r#"
! error: invalid value 'seven' for '--instanceid <IDS>': invalid digit found in string
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn a_gpu_that_cannot_be_cut() {
    let machine = Machine::new("not-mig-capable");
    assert_data_eq!(
        machine.transcript("--gpuid 0 enable"),
        str![[r#"
! error: GPU 0 cannot be cut: Tesla T4 has no MIG
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 create instance --type 1g.5gb"),
        str![[r#"
! error: GPU 0 cannot be cut: Tesla T4 has no MIG
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("list instance"),
        str![[r#"
GPU 1: NVIDIA A100-SXM4-40GB, 8 memory slices, 7 compute slices
TYPE       ID  FREE  MEMORY     SMS  CE  DEC  ENC  JPG  OFA  PLACEMENTS
1g.5gb     19  3/7   4.75 GiB    14   1    0    0    0    0  {0,1,2,3,4,5,6}:1
2g.10gb    14  1/3   9.62 GiB    28   2    1    0    0    0  {0,2,4}:2
3g.20gb     9  1/2   19.50 GiB   42   3    2    0    0    0  {0,4}:4
4g.20gb     5  0/1   19.50 GiB   56   4    2    0    0    0  {0}:4
7g.40gb     0  0/1   39.25 GiB   98   7    5    0    1    1  {0}:8
1g.5gb+me  20  1/1   4.75 GiB    14   1    1    0    1    1  {0,1,2,3,4,5,6}:1
1g.10gb    15  2/4   9.62 GiB    14   1    1    0    0    0  {0,2,4,6}:2
! warning: GPU 0 is left out: it cannot be cut (no MIG)
exit 0

"#]]
    );
}

#[test]
fn no_permission() {
    let machine = Machine::written(CUT);
    machine.permit(Permission::Monitor);
    assert_data_eq!(
        machine.transcript("create instance --type 2g.10gb"),
        str![[r#"
! error: GPU 0: unable to create 2g.10gb at 2:2: nvmlDeviceCreateGpuInstanceWithPlacement failed on GPU 0: the current user does not have permission to perform this operation (changing MIG instances takes root, or the mig/config capability: /dev/nvidia-caps/nvidia-cap1, in a container of NVIDIA's runtime by NVIDIA_MIG_CONFIG_DEVICES=all)
exit 5

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11"),
        str![[r#"
! error: GPU 0: unable to destroy GPU instance 11 (1g.5gb at 0:1): nvmlComputeInstanceDestroy failed on GPU 0: the current user does not have permission to perform this operation (changing MIG instances takes root, or the mig/config capability: /dev/nvidia-caps/nvidia-cap1, in a container of NVIDIA's runtime by NVIDIA_MIG_CONFIG_DEVICES=all)
exit 5

"#]]
    );
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb   0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  -
  0  12   0  1g.5gb   1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  -
  0   1   0  3g.20gb  4:4        MIG-aaaaaaaa-0000-5000-8000-000000000001  -
exit 0

"#]]
    );
    machine.permit(Permission::None);
    assert_data_eq!(
        machine.transcript("create instance --type 2g.10gb"),
        str![[r#"
! error: GPU 0: the driver does not say how it can be cut
! hint: that needs root, or the mig/monitor capability: /dev/nvidia-caps/nvidia-cap2
exit 5

"#]]
    );
    let off = Machine::written("gpus:\n  - model: H100-80GB-HBM3\n");
    off.permit(Permission::Monitor);
    assert_data_eq!(
        off.transcript("enable"),
        str![[r#"
! error: GPU 0: unable to enable MIG mode: nvmlDeviceSetMigMode failed on GPU 0: the current user does not have permission to perform this operation (switching MIG mode takes root)
exit 5

"#]]
    );
}

#[test]
fn somebody_else_is_changing_the_gpus() {
    let machine = Machine::written(CUT);
    let _held = NodeLock::acquire(&machine.path("node.lock"), "a test").unwrap();
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let own = format!("{}, {}", std::process::id(), name.trim_end());
    let told = |line: &str| machine.transcript(line).replace(&own, "[PID], [COMMAND]");
    assert_data_eq!(
        told("create instance --type 2g.10gb"),
        str![[r#"
! error: the GPUs of this node are being changed by a test (process [PID], [COMMAND])
! hint: try again when it has ended; nothing was changed
exit 4

"#]]
    );
    assert_data_eq!(
        told("destroy instance --all"),
        str![[r#"
! error: the GPUs of this node are being changed by a test (process [PID], [COMMAND])
! hint: try again when it has ended; nothing was changed
exit 4

"#]]
    );
    // Who only looks or asks needs no lock.
    assert!(machine.run("list config").status.success());
    assert!(machine.run("--dry-run destroy instance --all").status.success());
    assert_data_eq!(
        machine.transcript("--lock-file /proc/node.lock enable"),
        str![[r#"
! error: unable to lock /proc/node.lock: No such file or directory (os error 2)
! hint: name another file by --lock-file
exit 1

"#]]
    );
}

#[test]
fn no_driver() {
    let machine = Machine::bare();
    assert_data_eq!(
        machine.transcript("--nvml-library absent.so list gpu"),
        str![[r#"
! error: there is no NVML library at [DIR]/absent.so: check --nvml-library
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("--nvml-library absent.so plan 3g.20gb"),
        str![[r#"
! error: there is no NVML library at [DIR]/absent.so: check --nvml-library
! hint: for a plan without a GPU name one by --model
exit 1

"#]]
    );
    machine.write("broken.so", "no library");
    assert_data_eq!(
        machine.transcript("--nvml-library broken.so list gpu"),
        str![[r#"
! error: unable to load NVML: [DIR]/broken.so: file too short
exit 1

"#]]
    );
}

#[test]
fn the_driver_refuses_in_the_middle() {
    let machine = Machine::written(TWO);
    machine.write(
        "layout.yaml",
        "version: v1\nmig-configs: { a: [{ devices: all, mig-enabled: true, mig-devices: { 3g.20gb: 2 } }] }\n",
    );
    machine.add_fault(CREATE, Some(2), Some("GPU_IS_LOST"), None);
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml"),
        str![[r#"
GPU 0: + created GPU instance 2 (3g.20gb at 0:4): MIG-dc22f3f4-bb7b-576b-a53d-939e78f8f977
! GPU 0: 2 steps
!   + create 3g.20gb at 0:4
!   + create 3g.20gb at 4:4
!   room left: nothing
! GPU 1: 2 steps
!   + create 3g.20gb at 0:4
!   + create 3g.20gb at 4:4
!   room left: nothing
! error: GPU 0: unable to create 3g.20gb at 4:4: nvmlDeviceCreateGpuInstanceWithPlacement failed on GPU 0: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
! hint: 1 step was done
! hint: not done: GPU 1: + create 3g.20gb at 0:4
! hint: not done: GPU 1: + create 3g.20gb at 4:4
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o json apply -f layout.yaml"),
        str![[r#"
{
  "dry_run": false,
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "done": [
        {
          "step": "create-gpu-instance",
          "profile": "3g.20gb",
          "placement": {
            "start": 4,
            "size": 4
          },
          "compute": [
            "3g.20gb"
          ],
          "created": {
            "id": 1,
            "profile": "3g.20gb",
            "placement": {
              "start": 4,
              "size": 4
            },
            "compute_instances": [
              {
                "id": 0,
                "profile": "3g.20gb",
                "uuid": "MIG-a91fdd36-60fb-521f-9787-0ffb9f35b685",
                "placement": {
                  "start": 0,
                  "size": 3
                }
              }
            ]
          }
        }
      ],
      "failed": null,
      "left": [],
      "needs": null
    },
    {
      "index": 1,
      "uuid": "GPU-bbbbbbbb-0000-4000-8000-000000000000",
      "done": [
        {
          "step": "create-gpu-instance",
          "profile": "3g.20gb",
          "placement": {
            "start": 0,
            "size": 4
          },
          "compute": [
            "3g.20gb"
          ],
          "created": {
            "id": 2,
            "profile": "3g.20gb",
            "placement": {
              "start": 0,
              "size": 4
            },
            "compute_instances": [
              {
                "id": 0,
                "profile": "3g.20gb",
                "uuid": "MIG-bc6813a3-e3b0-5af0-aad3-88ff39485d5c",
                "placement": {
                  "start": 0,
                  "size": 3
                }
              }
            ]
          }
        },
        {
          "step": "create-gpu-instance",
          "profile": "3g.20gb",
          "placement": {
            "start": 4,
            "size": 4
          },
          "compute": [
            "3g.20gb"
          ],
          "created": {
            "id": 1,
            "profile": "3g.20gb",
            "placement": {
              "start": 4,
              "size": 4
            },
            "compute_instances": [
              {
                "id": 0,
                "profile": "3g.20gb",
                "uuid": "MIG-ae0b9e15-a50a-5c16-b8cb-9db489626e0a",
                "placement": {
                  "start": 0,
                  "size": 3
                }
              }
            ]
          }
        }
      ],
      "failed": null,
      "left": [],
      "needs": null
    }
  ]
}
exit 0

"#]]
    );
    machine.add_fault(CREATE, Some(1), Some("INSUFFICIENT_RESOURCES"), None);
    machine.run("--gpuid 1 destroy instance --all");
    assert_data_eq!(
        machine.transcript("--gpuid 1 create instance --type 1g.5gb"),
        str![[r#"
! error: GPU 1: unable to create 1g.5gb at 6:1: nvmlDeviceCreateGpuInstanceWithPlacement failed on GPU 1: insufficient resources
exit 3

"#]]
    );
}

#[test]
fn one_gpu_is_lost() {
    let machine = Machine::new("one-gpu-lost");
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0   0   0  7g.40gb  0:8        MIG-1b37a013-6641-53ef-8dad-c99e16c4fcdc  -
  2   2   0  3g.20gb  0:4        MIG-d48c469b-7e99-52b9-904e-31040c886d4c  -
  2   1   0  3g.20gb  4:4        MIG-98a6407f-6da6-5ac5-a6f8-f0770a218a45  -
! warning: GPU 1: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 1 create instance --type 1g.5gb"),
        str![[r#"
! error: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("list gpu"),
        str![[r#"
GPU  NAME            MEMORY     MIG  INSTANCES  PCI           UUID
  0  A100-SXM4-40GB  40.00 GiB  on           1  0000:07:00.0  GPU-e1f1a7b9-1c65-5415-b2d3-e8eaac5b342f
  2  A100-SXM4-40GB  40.00 GiB  on           2  0000:09:00.0  GPU-749de1b4-7f97-5a06-8a5c-2018951d9d9d
! warning: GPU 1: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
exit 0

"#]]
    );
}

#[test]
fn interrupted_between_two_steps() {
    let machine = Machine::written(TWO);
    machine.add_fault(CREATE, Some(1), None, Some("3s"));
    let mut command = machine.command();
    command.args(["--gpuid", "0", "create", "instance", "--type", "3g.20gb", "--count", "2"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_call(&machine);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_data_eq!(
        machine.told(&output),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID
  0   2   0  3g.20gb  0:4        MIG-dc22f3f4-bb7b-576b-a53d-939e78f8f977
! GPU 0: [1/2] + create 3g.20gb at 0:4
! error: interrupted
! hint: 1 step was done
! hint: not done: GPU 0: + create 3g.20gb at 4:4
exit 130

"#]]
    );
    assert_eq!(machine.world().gpus[0].instances.len(), 1);
}

#[test]
fn interrupted_twice_it_ends_at_once() {
    let machine = Machine::written(TWO);
    machine.add_fault(CREATE, Some(1), None, Some("never"));
    let mut command = machine.command();
    command.args(["--gpuid", "0", "create", "instance", "--type", "3g.20gb"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_call(&machine);
    // Two different ones: the kernel may deliver two of a kind as one.
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

fn wait_for_call(machine: &Machine) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while machine.calls_of(CREATE) == 0 {
        assert!(Instant::now() < deadline, "no call of {CREATE}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reader_that_goes_away_hears_no_complaint() {
    let machine = Machine::bare();
    let mut command = machine.command();
    command.args(["list", "config", "--all", "--model", "H200"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let machine = Machine::bare();
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = machine.command().args(["list", "instance", "--model", "H200"]).stdout(full).output().unwrap();
    assert_data_eq!(
        machine.told(&output),
        str![[r#"
! error: unable to write the answer: No space left on device (os error 28)
exit 1

"#]]
    );
}
