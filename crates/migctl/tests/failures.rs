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
! error: [DIR]/broken.so is no library: install the driver again, or name the right file by --nvml-library
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
fn a_layout_says_which_gpu_it_could_not_reach() {
    let machine = Machine::new("one-gpu-lost");
    machine.write("all.yaml", "version: mig-agent/v1\nlayouts: { it: [{ gpus: all, instances: [7g.40gb] }] }\n");
    let by_uuid = "version: mig-agent/v1\nlayouts: { it: [{ gpus: [GPU-1234], instances: [7g.40gb] }] }\n";
    machine.write("one.yaml", by_uuid);
    assert_data_eq!(
        machine.transcript("apply -f all.yaml --dry-run"),
        str![[r#"
GPU 0: nothing to do; 1 instance stays
GPU 2: 3 steps
  - destroy GPU instance 2 (3g.20gb at 0:4)
  - destroy GPU instance 1 (3g.20gb at 4:4)
  + create 7g.40gb at 0:8
  room left: nothing
! warning: GPU 1: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f one.yaml"),
        str![[r#"
! warning: GPU 1: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
! error: one.yaml: line 2: there is no GPU GPU-1234; there are 0, 2
! hint: which GPUs there are: migctl list gpu
! hint: GPU 1 cannot be read, and may be this one: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid GPU-1234 disable"),
        str![[r#"
! error: there is no GPU GPU-1234
! hint: GPU 1 cannot be read, and may be this one: nvmlDeviceGetHandleByIndex_v2 failed on GPU 1: device fell off the bus or has otherwise become inacessible (see the kernel's log for its XID; it needs a reset or a reboot)
! hint: GPU 0: GPU-e1f1a7b9-1c65-5415-b2d3-e8eaac5b342f, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 2: GPU-749de1b4-7f97-5a06-8a5c-2018951d9d9d, 0000:09:00.0, NVIDIA A100-SXM4-40GB
exit 7

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
    for arguments in [&["list", "instance", "--model", "H200"] as &[&str], &["--version"], &["list", "--help"]] {
        let full = full.try_clone().unwrap();
        let output = machine.command().args(arguments).stdout(full).output().unwrap();
        assert_data_eq!(
            machine.told(&output),
            str![[r#"
! error: unable to write the answer: No space left on device (os error 28)
exit 1

"#]]
        );
    }
}
