//! A captured file is a model like those in `models/`, and says the same.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod machine;

use std::fs;
use std::path::{Path, PathBuf};

use machine::{CUT, Machine, TWO};
use mig_model::model::Model;
use serde_json::Value;
use snapbox::{assert_data_eq, str};

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// A file's values, with profiles by index: nobody depends on their order.
fn values(text: &str) -> Value {
    let mut values: Value = serde_saphyr::from_str(text).unwrap();
    if let Some(profiles) = values["mig"].get_mut("profiles") {
        profiles.as_array_mut().unwrap().sort_by_key(|profile| profile["index"].as_u64());
    }
    values
}

fn captured(scene: &str) -> String {
    let machine = Machine::written(scene);
    let output = machine.run("capture");
    assert!(output.status.success(), "{}", machine.told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn without_dates(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|line| line.contains("written by migctl capture on ")) {
        let end = line.len() - "2026-11-23.".len();
        line.truncate(end);
        line.push_str("[DATE].");
    }
    lines.join("\n") + "\n"
}

#[test]
fn of_every_model_the_captured_file_says_the_same() {
    assert!(models().len() >= 8);
    for file in models() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let original = fs::read_to_string(&file).unwrap();
        let text = captured(&format!("gpus: [{{ model: {name} }}]"));
        assert_eq!(values(&text), values(&original), "{name}");
        assert_eq!(Model::parse(&text).unwrap().name, Model::parse(&original).unwrap().name);
        if values(&original)["mig"].is_null() {
            continue;
        }
        // With MIG on the driver does not say how many cores there are.
        let mut known = values(&original);
        known["cores"] = 0.into();
        for instances in instances_of(&original) {
            let text = captured(&format!("gpus: [{{ model: {name}, mig: true, instances: [{instances}] }}]"));
            assert_eq!(values(&text), known, "{name} with {instances}");
        }
    }
}

/// Nothing, and one instance of each profile in turn.
fn instances_of(model: &str) -> Vec<String> {
    let of = |profile: &Value| format!("{{ profile: {} }}", profile["name"].as_str().unwrap());
    let values = values(model);
    let profiles = values["mig"]["profiles"].as_array().unwrap();
    [String::new()].into_iter().chain(profiles.iter().map(of)).collect()
}

#[test]
fn a_captured_file_is_a_model_for_the_fake_driver_and_for_plans() {
    let machine = Machine::new("h200-idle");
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file mine.yaml"),
        str![[r#"
! wrote mine.yaml: NVIDIA H200, 7 instance types
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("plan --model ./mine.yaml 3g.71gb 3g.71gb"),
        str![[r#"
NVIDIA H200: 2 steps
  + create 3g.71gb at 0:4
  + create 3g.71gb at 4:4
  room left: nothing
exit 0

"#]]
    );
    let scene = format!("gpus: [{{ model: {}, mig: true }}]", machine.path("mine.yaml").display());
    let second = Machine::written(&scene);
    assert!(second.transcript("create instance --type 7g.141gb").ends_with("exit 0\n"));
}

#[test]
fn the_file_looks_like_those_that_are_there() {
    assert_data_eq!(
        without_dates(&captured("gpus: [{ model: A30 }]")),
        str![[r##"
# NVIDIA A30 as NVML reports it.
# Source: one NVIDIA A30 with driver 580.159.04, MIG mode off; written by migctl capture on [DATE].
# mode_change_needs_reset follows from the architecture: Ampere needs a reset, as published; none is known of later.
# Compute instance profiles follow from A100's published ones, the placements too, and are unverified: a driver tells only of instances that there are.
name: NVIDIA A30
architecture: 7  # Ampere
brand: 14  # NVIDIA
compute_capability: [8, 0]
cores: 3584
pci_device_id: "0x20B710DE"
pci_subsystem_id: "0x153210DE"
memory: { total: 25769803776, reserved: 524288000 }  # bytes
vbios: 92.00.66.00.04
power_limit_milliwatts: 165000
mig:
  mode_change_needs_reset: true
  max_devices: 4
  memory_slices: 4
  compute_slices: 4
  # engines: copy, decoder, encoder, jpeg, ofa
  profiles:
    - name: 1g.6gb
      index: 0
      id: 14
      slices: 1
      memory_mb: 5952
      multiprocessors: 14
      engines: { copy: 1, decoder: 1, encoder: 0, jpeg: 0, ofa: 0 }
      max_instances: 4
      placements: { starts: [0, 1, 2, 3], size: 1 }
      compute_profiles:
        - { name: 1g.6gb, index: 0, id: 0, slices: 1, multiprocessors: 14, max_instances: 1, placements: { starts: [0], size: 1 } }
    - name: 1g.6gb+me
      index: 7
      id: 21
      slices: 1
      memory_mb: 5952
      multiprocessors: 14
      engines: { copy: 1, decoder: 1, encoder: 0, jpeg: 1, ofa: 1 }
      max_instances: 1
      placements: { starts: [0, 1, 2, 3], size: 1 }
      compute_profiles:
        - { name: 1g.6gb+me, index: 0, id: 0, slices: 1, multiprocessors: 14, max_instances: 1, placements: { starts: [0], size: 1 } }
    - name: 2g.12gb
      index: 1
      id: 5
      slices: 2
      memory_mb: 11968
      multiprocessors: 28
      engines: { copy: 2, decoder: 2, encoder: 0, jpeg: 0, ofa: 0 }
      max_instances: 2
      placements: { starts: [0, 2], size: 2 }
      compute_profiles:
        - { name: 1c.2g.12gb, index: 0, id: 0, slices: 1, multiprocessors: 14, max_instances: 2, placements: { starts: [0, 1], size: 1 } }
        - { name: 2g.12gb, index: 1, id: 1, slices: 2, multiprocessors: 28, max_instances: 1, placements: { starts: [0], size: 2 } }
    - name: 2g.12gb+me
      index: 8
      id: 6
      slices: 2
      memory_mb: 11968
      multiprocessors: 28
      engines: { copy: 2, decoder: 2, encoder: 0, jpeg: 1, ofa: 1 }
      max_instances: 1
      placements: { starts: [0, 2], size: 2 }
      compute_profiles:
        - { name: 1c.2g.12gb+me, index: 0, id: 0, slices: 1, multiprocessors: 14, max_instances: 2, placements: { starts: [0, 1], size: 1 } }
        - { name: 2g.12gb+me, index: 1, id: 1, slices: 2, multiprocessors: 28, max_instances: 1, placements: { starts: [0], size: 2 } }
    - name: 4g.24gb
      index: 3
      id: 0
      slices: 4
      memory_mb: 24000
      multiprocessors: 56
      engines: { copy: 4, decoder: 4, encoder: 0, jpeg: 1, ofa: 1 }
      max_instances: 1
      placements: { starts: [0], size: 4 }
      compute_profiles:
        - { name: 1c.4g.24gb, index: 0, id: 0, slices: 1, multiprocessors: 14, max_instances: 4, placements: { starts: [0, 1, 2, 3], size: 1 } }
        - { name: 2c.4g.24gb, index: 1, id: 1, slices: 2, multiprocessors: 28, max_instances: 2, placements: { starts: [0, 2], size: 2 } }
        - { name: 4g.24gb, index: 3, id: 3, slices: 4, multiprocessors: 56, max_instances: 1, placements: { starts: [0], size: 4 } }

"##]]
    );
    let cut = captured(CUT);
    let heading: String =
        cut.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_data_eq!(
        without_dates(&heading),
        str![[r#"
# NVIDIA A100-SXM4-40GB as NVML reports it.
# Source: one NVIDIA A100-SXM4-40GB with driver 580.159.04, MIG mode on; written by migctl capture on [DATE].
# The driver did not say: cores (it does with MIG off); zero here.
# mode_change_needs_reset follows from the architecture: Ampere needs a reset, as published; none is known of later.
# Compute instance profiles of 1g.5gb, 3g.20gb are the driver's; all others follow from A100's published ones, the placements too, and are unverified: a driver tells only of instances that there are.

"#]]
    );
    assert_data_eq!(
        without_dates(&captured("gpus: [{ model: T4 }]")),
        str![[r##"
# Tesla T4 as NVML reports it.
# Source: one Tesla T4 with driver 580.159.04, no MIG; written by migctl capture on [DATE].
name: Tesla T4
architecture: 6  # Turing
brand: 14  # NVIDIA
compute_capability: [7, 5]
cores: 2560
pci_device_id: "0x1EB810DE"
pci_subsystem_id: "0x12A210DE"
memory: { total: 16106127360, reserved: 419430400 }  # bytes
vbios: 90.04.96.00.02
power_limit_milliwatts: 70000
mig: null  # not capable

"##]]
    );
    for file in models() {
        let original = fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        // In these the profiles are in the driver's order within a size.
        if name != "RTX-PRO-6000" {
            let body =
                |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(body(&captured(&format!("gpus: [{{ model: {name} }}]"))), body(&original), "{name}");
        }
    }
}

#[test]
fn what_the_driver_does_not_say_is_zero_and_said() {
    let machine = Machine::new("h200-idle");
    for call in ["nvmlDeviceGetVbiosVersion", "nvmlDeviceGetPowerManagementDefaultLimit"] {
        machine.add_fault(call, None, Some("NOT_SUPPORTED"), None);
    }
    let text = machine.transcript("--gpuid 0 capture");
    assert!(text.contains("# The driver did not say: vbios, power_limit_milliwatts; zero here.\n"), "{text}");
    assert!(text.contains("vbios: \"\"\npower_limit_milliwatts: 0\n"), "{text}");
}

#[test]
fn a_file_that_is_there_is_kept() {
    let machine = Machine::new("h200-idle");
    machine.write("mine.yaml", "mine\n");
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file mine.yaml"),
        str![[r#"
! error: mine.yaml exists
! hint: replace it: --force
exit 1

"#]]
    );
    assert_eq!(fs::read_to_string(machine.path("mine.yaml")).unwrap(), "mine\n");
    assert_data_eq!(
        machine.transcript("--gpuid 0 --dry-run capture --file mine.yaml --force"),
        str![[r#"
! would write mine.yaml: NVIDIA H200, 7 instance types
exit 0

"#]]
    );
    assert_eq!(fs::read_to_string(machine.path("mine.yaml")).unwrap(), "mine\n");
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file mine.yaml --force"),
        str![[r#"
! wrote mine.yaml: NVIDIA H200, 7 instance types
exit 0

"#]]
    );
    Model::parse(&fs::read_to_string(machine.path("mine.yaml")).unwrap()).unwrap();
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file nowhere/mine.yaml"),
        str![[r#"
! error: unable to write nowhere/mine.yaml: No such file or directory (os error 2)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file ."),
        str![[r#"
! error: unable to write .: is a directory
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --file /"),
        str![[r#"
! error: unable to write /: is a directory
exit 1

"#]]
    );
    let left: Vec<String> =
        fs::read_dir(machine.path("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.ends_with(".new")), "{left:?}");
}

#[test]
fn one_gpu_is_named() {
    let machine = Machine::written(TWO);
    assert_data_eq!(
        machine.transcript("capture"),
        str![[r#"
! error: there are 2 GPUs: say which by --gpuid
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid all capture"),
        str![[r#"
! error: one file describes one GPU, not 2: name one by --gpuid
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 -o json capture"),
        str![[r#"
! {"error":{"kind":"Usage","message":"a models/ file is YAML: capture has no JSON","hints":[],"exit":2}}
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture --force"),
        str![[r#"
! error: the following required arguments were not provided:
!   --file <FILE>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    machine.permit(fake_nvml::Permission::None);
    machine.add_fault("nvmlDeviceGetGpuInstancePossiblePlacements_v2", None, Some("NO_PERMISSION"), None);
    assert_data_eq!(
        machine.transcript("--gpuid 0 capture"),
        str![[r#"
! error: GPU 0: the driver does not say how it can be cut; that needs root, or the mig/monitor capability
exit 5

"#]]
    );
}
