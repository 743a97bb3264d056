//! MIG mode: what it waits for, and what goes with it.

mod machine;

use machine::{CUT, Machine};
use snapbox::{assert_data_eq, str};

#[test]
fn a_mode_that_waits_for_a_reset_says_so() {
    let machine = Machine::written("gpus:\n  - model: A100-SXM4-40GB\n");
    assert_data_eq!(
        machine.transcript("enable"),
        str![[r#"
GPU 0: MIG will be on after a reset
! error: GPU 0: the new MIG mode is not in force yet
! hint: GPU 0 needs a reset of this GPU (nvidia-smi --gpu-reset -i 0000:07:00.0), or in a virtual machine a reboot
exit 6

"#]]
    );
    assert_data_eq!(
        machine.transcript("list gpu"),
        str![[r#"
GPU  NAME            MEMORY     MIG                  INSTANCES  PCI           UUID
  0  A100-SXM4-40GB  40.00 GiB  off, on after reset          0  0000:07:00.0  GPU-e1f1a7b9-1c65-5415-b2d3-e8eaac5b342f
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb"),
        str![[r#"
! error: GPU 0: MIG is not on before the GPU's next reset
! hint: what it needs: migctl --gpuid 0 enable
exit 6

"#]]
    );
}

#[test]
fn a_mode_that_waits_for_clients_names_them() {
    let machine = Machine::written("gpus:\n  - model: H100-80GB-HBM3\n");
    machine.run_process(0, None, 4711, "python3");
    assert_data_eq!(
        machine.transcript("enable"),
        str![[r#"
GPU 0: MIG will be on after a reset
! error: GPU 0: the new MIG mode is not in force yet
! hint: GPU 0 needs python3 (4711) to stop, then a reset of this GPU (nvidia-smi --gpu-reset -i 0000:07:00.0), or in a virtual machine a reboot
exit 6

"#]]
    );
}

#[test]
fn idle_instances_go_with_the_mode_only_when_that_is_said() {
    let machine = Machine::written(
        &CUT.replace("A100-SXM4-40GB", "H100-80GB-HBM3").replace("20gb", "40gb").replace("5gb", "10gb"),
    );
    assert_data_eq!(
        machine.transcript("disable"),
        str![[r#"
! error: GPU 0 is cut into 3 instances, which nobody uses
! hint: destroy them, too: migctl --gpuid 0 disable --destroy-instances
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("disable --destroy-instances --dry-run"),
        str![[r#"
GPU 0: - destroy GPU instance 7 (1g.10gb at 0:1)
GPU 0: - destroy GPU instance 8 (1g.10gb at 1:1)
GPU 0: - destroy GPU instance 2 (3g.40gb at 4:4)
GPU 0: * disable MIG mode
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("disable --destroy-instances"),
        str![[r#"
GPU 0: MIG is off
exit 0

"#]]
    );
}
