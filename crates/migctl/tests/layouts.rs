//! Layout files: plan, apply, export.

mod machine;

use machine::{CUT, Machine, TWO};
use snapbox::{assert_data_eq, str};

const HALVES: &str = "version: v1
mig-configs:
  halves:
    - devices: all
      mig-enabled: true
      mig-devices: { 3g.20gb: 2 }
  mixed:
    - devices: [0]
      mig-enabled: true
      mig-devices: { 3g.20gb: 1, 1g.5gb: 2, 2g.10gb: 1 }
";

fn cut_with(file: &str) -> Machine {
    let machine = Machine::written(CUT);
    machine.write("layout.yaml", file);
    machine
}

#[test]
fn a_layout_is_applied_with_the_least_change() {
    let machine = cut_with(HALVES);
    assert_data_eq!(
        machine.transcript("plan -f layout.yaml --config mixed"),
        str![[r#"
GPU 0: 1 step; 3 instances stay
  + create 2g.10gb at 2:2
  room left: nothing
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("plan -f layout.yaml --config mixed --explain"),
        str![[r#"
GPU 0: 1 step; 3 instances stay
  + create 2g.10gb at 2:2
  room left: nothing
  no other placement serves
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config mixed --dry-run"),
        str![[r#"
GPU 0: 1 step; 3 instances stay
  + create 2g.10gb at 2:2
  room left: nothing
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config mixed"),
        str![[r#"
GPU 0: + created GPU instance 6 (2g.10gb at 2:2): MIG-57b4b551-6dab-5c93-9e47-d9656235d34c
! GPU 0: 1 step; 3 instances stay
!   + create 2g.10gb at 2:2
!   room left: nothing
exit 0

"#]]
    );
    let changes = machine.changes();
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config mixed"),
        str![[r#"
nothing to do
exit 0

"#]]
    );
    assert_eq!(machine.changes(), changes, "the second time there is nothing to do");
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config halves"),
        str![[r#"
GPU 0: - destroyed GPU instance 11 (1g.5gb at 0:1)
GPU 0: - destroyed GPU instance 12 (1g.5gb at 1:1)
GPU 0: - destroyed GPU instance 6 (2g.10gb at 2:2)
GPU 0: + created GPU instance 2 (3g.20gb at 0:4): MIG-020965c7-a5e2-5477-ad2d-5cd91cfb2f7c
! GPU 0: 4 steps; 1 instance stays
!   - destroy GPU instance 11 (1g.5gb at 0:1)
!   - destroy GPU instance 12 (1g.5gb at 1:1)
!   - destroy GPU instance 6 (2g.10gb at 2:2)
!   + create 3g.20gb at 0:4
!   room left: nothing
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o json apply -f layout.yaml --config halves"),
        str![[r#"
{
  "dry_run": false,
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "done": [],
      "failed": null,
      "left": [],
      "needs": null
    }
  ]
}
exit 0

"#]]
    );
}

#[test]
fn a_layout_comes_from_stdin() {
    let machine = Machine::written(TWO);
    let output = machine.run_with("apply -f - --config halves", HALVES.as_bytes());
    assert_data_eq!(
        machine.told(&output),
        str![[r#"
GPU 0: + created GPU instance 2 (3g.20gb at 0:4): MIG-dc22f3f4-bb7b-576b-a53d-939e78f8f977
GPU 0: + created GPU instance 1 (3g.20gb at 4:4): MIG-a91fdd36-60fb-521f-9787-0ffb9f35b685
GPU 1: + created GPU instance 2 (3g.20gb at 0:4): MIG-bc6813a3-e3b0-5af0-aad3-88ff39485d5c
GPU 1: + created GPU instance 1 (3g.20gb at 4:4): MIG-ae0b9e15-a50a-5c16-b8cb-9db489626e0a
! GPU 0: 2 steps
!   + create 3g.20gb at 0:4
!   + create 3g.20gb at 4:4
!   room left: nothing
! GPU 1: 2 steps
!   + create 3g.20gb at 0:4
!   + create 3g.20gb at 4:4
!   room left: nothing
exit 0

"#]]
    );
}

#[test]
fn what_is_in_use_stays_or_is_named() {
    let machine = cut_with(HALVES);
    machine.run_process(0, Some(11), 4711, "python3");
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config mixed"),
        str![[r#"
GPU 0: + created GPU instance 6 (2g.10gb at 2:2): MIG-57b4b551-6dab-5c93-9e47-d9656235d34c
! GPU 0: 1 step; 3 instances stay
!   + create 2g.10gb at 2:2
!   room left: nothing
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml --config halves"),
        str![[r#"
! error: GPU 0: GPU instance 11 is in the way and in use
! hint: around what is in use could be had: 3g.20gb
! hint: GPU instance 11 (1g.5gb at 0:1) is used by python3 (4711)
exit 4

"#]]
    );
    assert_eq!(machine.world().gpus[0].instances.len(), 4, "nothing was touched");
}

#[test]
fn mode_and_cut_are_one_layout() {
    let machine = Machine::written("gpus:\n  - model: H100-80GB-HBM3\n  - model: A100-SXM4-80GB\n");
    machine.write(
        "layout.yaml",
        "version: mig-agent/v1
layouts:
  one:
    - gpus: all
      instances:
        - { profile: 3g.40gb, placement: 4 }
        - { profile: 3g.40gb, placement: 0, compute: [1c.3g.40gb, 2c.3g.40gb] }
",
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 apply -f layout.yaml --mode-only"),
        str![[r#"
GPU 0: * enabled MIG mode
! GPU 0: 1 step
!   * enable MIG mode
exit 0

"#]]
    );
    // The A100 has to be reset before it can go on, which does not keep the H100 from being cut.
    assert_data_eq!(
        machine.transcript("apply -f layout.yaml"),
        str![[r#"
GPU 0: + created GPU instance 1 (3g.40gb at 0:4): MIG-f2b59ac4-2b7d-5ca2-ae25-9a180199650b, MIG-2d9c62aa-98bf-564f-9266-6c091d0b99c4
GPU 0: + created GPU instance 2 (3g.40gb at 4:4): MIG-7923bbd1-c341-5764-b17f-b0f39ac0921f
GPU 1: * enabled MIG mode
! GPU 0: 2 steps
!   + create 3g.40gb at 0:4 with 2c.3g.40gb, 1c.3g.40gb
!   + create 3g.40gb at 4:4
!   room left: nothing
! GPU 1: 3 steps
!   * enable MIG mode
!   + create 3g.40gb at 0:4 with 2c.3g.40gb, 1c.3g.40gb
!   + create 3g.40gb at 4:4
!   room left: nothing
! error: GPU 1: the new MIG mode is not in force yet
! hint: GPU 1 needs a reset of this GPU (nvidia-smi --gpu-reset -i 0000:08:00.0), or in a virtual machine a reboot
! hint: not done: GPU 1: + create 3g.40gb at 0:4 with 2c.3g.40gb, 1c.3g.40gb
! hint: not done: GPU 1: + create 3g.40gb at 4:4
exit 6

"#]]
    );
    machine.write("off.yaml", "version: v1\nmig-configs: { off: [{ devices: [0], mig-enabled: false }] }\n");
    assert_data_eq!(
        machine.transcript("apply -f off.yaml"),
        str![[r#"
GPU 0: - destroyed GPU instance 1 (3g.40gb at 0:4)
GPU 0: - destroyed GPU instance 2 (3g.40gb at 4:4)
GPU 0: * disabled MIG mode
! GPU 0: 3 steps
!   - destroy GPU instance 1 (3g.40gb at 0:4)
!   - destroy GPU instance 2 (3g.40gb at 4:4)
!   * disable MIG mode
exit 0

"#]]
    );
}

#[test]
fn what_is_exported_is_applied_without_a_step() {
    // GPU 1 of compute-instances has a GPU instance with nothing in it, which no layout can say.
    for (scene, gpus) in [("a100-mixed", "all"), ("compute-instances", "0"), ("rtx-pro-6000", "all")] {
        let machine = Machine::new(scene);
        for way in ["export", "export --by index", "export --by pci", "-o json export", "-o yaml export"] {
            let exported = machine.run(&format!("{way} --gpuid {gpus}"));
            let told = machine.told(&exported);
            assert!(exported.status.success(), "{scene}, {way}: {told}");
            let again = machine.run_with("plan -f -", &exported.stdout);
            let told = machine.told(&again);
            let changes = told.contains("create") || told.contains("destroy") || told.contains("disable");
            assert!(again.status.success() && !changes, "{scene}, {way}: {told}");
        }
    }
}

#[test]
fn an_export_says_what_there_is() {
    let machine = Machine::new("a100-mixed");
    assert_data_eq!(
        machine.transcript("export"),
        str![[r#"
version: mig-agent/v1
layouts:
  current:
    - gpus: ["GPU-aaaaaaaa-0000-4000-8000-000000000000"] # GPU 0, NVIDIA A100-SXM4-40GB
      mig: true
      instances:
        - { profile: 4g.20gb, placement: 0 }
        - { profile: 2g.10gb, placement: 4 }
        - { profile: 1g.5gb+me, placement: 6 }
    - gpus: ["GPU-15ad090c-bba8-5eae-9d20-91e668fcc8cf"] # GPU 1, NVIDIA A100-SXM4-40GB
      mig: false
    - gpus: ["GPU-749de1b4-7f97-5a06-8a5c-2018951d9d9d"] # GPU 2, NVIDIA A100-SXM4-40GB
      mig: true
    - gpus: ["GPU-30657395-0142-5406-8bba-43d4b08a7bab"] # GPU 3, NVIDIA A100-SXM4-80GB
      mig: true
      instances:
        - { profile: 1g.20gb, placement: 0 }
        - { profile: 1g.20gb, placement: 2 }
        - { profile: 3g.40gb, placement: 4 }
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("export --format mig-parted"),
        str![[r#"
version: v1
mig-configs:
  current:
    - devices: [0]
      mig-enabled: true
      mig-devices:
        "1g.5gb+me": 1
        "2g.10gb": 1
        "4g.20gb": 1
    - devices: [1]
      mig-enabled: false
      mig-devices: {}
    - devices: [2]
      mig-enabled: true
      mig-devices: {}
    - devices: [3]
      mig-enabled: true
      mig-devices:
        "1g.20gb": 2
        "3g.40gb": 1
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("export --format mig-parted -o json --gpuid 3"),
        str![[r#"
{
  "version": "v1",
  "mig-configs": {
    "current": [
      {
        "devices": [
          3
        ],
        "mig-enabled": true,
        "mig-devices": {
          "1g.20gb": 2,
          "3g.40gb": 1
        }
      }
    ]
  }
}
exit 0

"#]]
    );
    assert_data_eq!(
        Machine::new("compute-instances").transcript("export --by index --name mine"),
        str![[r#"
version: mig-agent/v1
layouts:
  mine:
    - gpus: [0] # GPU 0, NVIDIA A100-SXM4-40GB
      mig: true
      instances:
        - { profile: 3g.20gb, placement: 0, compute: [1c.3g.20gb, 2c.3g.20gb] }
        - { profile: 3g.20gb, placement: 4, compute: [1c.3g.20gb] }
    - gpus: [1] # GPU 1, NVIDIA A100-SXM4-40GB
      mig: true
      instances:
        - { profile: 4g.20gb, placement: 0 }
        - { profile: 1g.5gb, placement: 4 }
! warning: GPU 1: GPU instance 2 has no compute instance; a layout has one in each, and apply makes it
exit 0

"#]]
    );
    assert_data_eq!(
        Machine::new("compute-instances").transcript("--gpuid 1 export --format mig-parted"),
        str![[r#"
version: v1
mig-configs:
  current:
    - devices: [1]
      mig-enabled: true
      mig-devices:
        "1g.5gb": 1
! warning: GPU 1: GPU instance 2 has no compute instance; it is left out, because mig-parted counts compute instances
exit 0

"#]]
    );
}
