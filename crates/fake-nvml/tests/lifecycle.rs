//! Instances are made and destroyed, and the MIG mode is changed, through NVML.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use common::{Client, Machine};

const UUID: &str = "nvmlDeviceGetUUID h:slice t u:96";

fn opened(machine: &Machine) -> Client {
    let mut client = machine.client();
    client.expect(&[("nvmlInit_v2", "0"), ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0")]);
    client
}

fn one(model: &str, rest: &str) -> Machine {
    Machine::described(&format!("gpus: [{{ model: {model}, mig: true{rest} }}]"))
}

#[test]
fn a_slice_is_made_used_and_destroyed() {
    let machine = one("A100-SXM4-40GB", "");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:9 oh:gi", "0"),
        // Device (two words), id, profile, placement: 3g.20gb has the half that leaves 4g.20gb its place.
        ("nvmlGpuInstanceGetInfo h:gi w:2,4", "0 1 9 4 4"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice", "6"),
        ("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:9 o", "0 1"),
        ("nvmlGpuInstanceGetComputeInstanceRemainingCapacity h:gi u:2 o", "0 1"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:2 oh:ci", "0"),
        ("nvmlGpuInstanceGetComputeInstanceRemainingCapacity h:gi u:2 o", "0 0"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:2 oh:none", "23"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice", "0"),
        ("nvmlDeviceGetName h:slice t u:96", "0 NVIDIA A100-SXM4-40GB MIG 3g.20gb"),
        // GPU (two words), GPU instance (two words), id, profile, placement.
        ("nvmlComputeInstanceGetInfo_v2 h:ci w:4,4", "0 0 2 0 3"),
        ("nvmlComputeInstanceGetInfo_v2 h:ci oh:device", "0"),
        ("nvmlDeviceIsMigDeviceHandle h:device o", "0 0"),
        ("nvmlGpuInstanceDestroy h:gi", "19"),
        ("nvmlComputeInstanceDestroy h:ci", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "2"),
        (UUID, "2"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:none", "6"),
        ("nvmlGpuInstanceDestroy h:gi", "0"),
        ("nvmlGpuInstanceDestroy h:gi", "2"),
        ("nvmlGpuInstanceGetInfo h:gi b", "2"),
        ("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:none", "6"),
        ("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:9 o", "0 2"),
    ]);
}

#[test]
fn a_process_without_a_state_directory_has_a_machine_that_it_can_change() {
    let machine = one("H200", "");
    let mut command = Client::command();
    command.env("FAKE_NVML_SCENE", machine.path("scene.yaml"));
    let mut client = Client::start(command);
    client.expect(&[
        ("nvmlInit_v2", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:0 oh:gi", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "23"),
        ("nvmlGpuInstanceDestroy h:gi", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi", "0"),
    ]);
    assert!(!machine.path("state").exists());
}

#[test]
fn what_cannot_be_made_is_refused_with_its_reason() {
    let machine = one("A100-SXM4-40GB", "");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 p:0,4 oh:gi", "0"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 p:0,4 oh:none", "23"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:14 p:2,2 oh:none", "23"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 p:2,4 oh:none", "2"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 p:4,2 oh:none", "2"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:9 null oh:none", "2"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:77 oh:none", "2"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:9 null", "2"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:5 oh:none", "23"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:9 oh:none", "2"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:0 null", "2"),
        ("nvmlGpuInstanceCreateComputeInstanceWithPlacement h:gi u:0 p:3,1 oh:none", "2"),
        ("nvmlGpuInstanceCreateComputeInstanceWithPlacement h:gi u:1 p:0,2 oh:ci", "0"),
        ("nvmlGpuInstanceCreateComputeInstanceWithPlacement h:gi u:0 p:1,1 oh:none", "23"),
        ("nvmlGpuInstanceCreateComputeInstanceWithPlacement h:gi u:0 p:2,1 oh:one", "0"),
        ("nvmlComputeInstanceGetInfo_v2 h:one w:4,4", "0 1 0 2 1"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:1 oh:slice", "0"),
        ("nvmlDeviceCreateGpuInstance h:slice u:19 oh:none", "2"),
        ("nvmlGpuInstanceDestroy h:gpu", "2"),
        ("nvmlComputeInstanceDestroy h:gi", "2"),
        // A refusal leaves no trace.
        ("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:9 o", "0 1"),
    ]);
    client.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:20 oh:gi", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:20 oh:none", "23"),
    ]);
}

#[test]
fn media_engines_of_an_rtx_pro_6000_are_given_once() {
    let machine = one("RTX-PRO-6000", "");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:65 oh:all", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:14 oh:none", "23"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:67 oh:gi", "0"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:67 p:1,3 oh:none", "2"),
        ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:67 p:0,3 oh:none", "23"),
        ("nvmlGpuInstanceGetInfo h:all w:2,4", "0 3 65 0 3"),
    ]);
}

#[test]
fn a_gpu_fills_up_and_every_profile_says_so() {
    for (model, profile, count) in [("A100-SXM4-40GB", 19, 7), ("A30", 14, 4), ("H200", 15, 4), ("RTX-PRO-6000", 47, 4)]
    {
        let machine = one(model, "");
        let mut client = opened(&machine);
        let create = format!("nvmlDeviceCreateGpuInstance h:gpu u:{profile} oh:gi");
        let mut ids = Vec::new();
        for left in (0..count).rev() {
            assert_eq!(client.call(&create), "0", "{model}, {left} to come");
            ids.push(client.text("nvmlGpuInstanceGetInfo h:gi w:2,1").parse::<u32>().unwrap());
            // What is left may be fewer than the empty GPU's maximum less those there are, never more.
            let capacity = client.text(&format!("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:{profile} o"));
            assert_eq!(capacity, left.to_string(), "{model}");
        }
        assert_eq!(client.call(&create), "23", "{model}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{model}: {ids:?}");
    }
}

#[test]
fn a_slice_cut_again_is_another_one_and_indices_fill_their_gaps() {
    let machine = one("A100-SXM4-40GB", "");
    let mut client = opened(&machine);
    for name in ["a", "b", "c"] {
        client.expect(&[
            (&format!("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:{name}"), "0"),
            (&format!("nvmlGpuInstanceCreateComputeInstance h:{name} u:0 oh:ci-{name}"), "0"),
        ]);
    }
    client.expect(&[("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:1 oh:slice", "0")]);
    let before = client.text(UUID);
    let place = client.text("nvmlGpuInstanceGetInfo h:b w:2,4");
    client.expect(&[
        ("nvmlComputeInstanceDestroy h:ci-b", "0"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:1 oh:none", "6"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:2 oh:last", "0"),
        ("nvmlGpuInstanceDestroy h:b", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:b", "0"),
        ("nvmlGpuInstanceCreateComputeInstance h:b u:0 oh:ci", "0"),
        ("nvmlGpuInstanceGetInfo h:b w:2,4", &format!("0 {place}")),
        // It lies where the other did, and is not taken for it.
        (UUID, "2"),
        ("nvmlComputeInstanceGetInfo_v2 h:ci-b b", "2"),
        (&format!("nvmlDeviceGetHandleByUUID s:{before} oh:none"), "6"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:1 oh:slice", "0"),
    ]);
    assert_ne!(client.text(UUID), before);
}

#[test]
fn an_ampere_gpu_keeps_its_mode_until_it_is_reset() {
    let machine = Machine::described("gpus: [{ model: A100-SXM4-40GB }]");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceSetMigMode h:gpu u:2 o", "2 0"),
        ("nvmlDeviceSetMigMode h:gpu u:1 null", "2"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 0"),
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 16"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 1"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "3"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "0 0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 0"),
    ]);
}

#[test]
fn a_hopper_gpu_changes_its_mode_at_once_unless_it_is_cut() {
    let machine = Machine::described("gpus: [{ model: H200 }]");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "3"),
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 0"),
        // NVIDIA's DRA driver goes on with the handle that it has.
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
        ("nvmlDeviceGetMaxMigDeviceCount h:gpu o", "0 7"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi", "0"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "0 19"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 0"),
        ("nvmlGpuInstanceDestroy h:gi", "0"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "0 0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 0"),
        ("nvmlDeviceGetGpuInstances h:gpu u:19 b o", "0 0"),
    ]);
}

#[test]
fn a_gpu_without_mig_has_no_mode() {
    let machine = Machine::of("not-mig-capable");
    opened(&machine).expect(&[
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "3 0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "3"),
    ]);
}

#[test]
fn a_change_of_mode_may_move_minor_numbers_and_then_handles_too() {
    let machine = Machine::described("minors_move: true\ngpus: [{ model: H200 }, { model: H200 }]");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceGetMinorNumber h:gpu o", "0 0"),
        ("nvmlDeviceSetMigMode h:gpu u:1 o", "0 0"),
        ("nvmlDeviceGetMinorNumber h:gpu o", "2 0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceGetMinorNumber h:gpu o", "0 2"),
    ]);
}

#[test]
fn permissions_are_those_of_the_capability_nodes() {
    let scene = |permission| {
        Machine::described(&format!(
            "permission: {permission}\ngpus: [{{ model: H200, instances: [{{ profile: 3g.71gb }}] }}]"
        ))
    };
    let machine = scene("monitor");
    let mut client = opened(&machine);
    client.expect(&[
        ("nvmlDeviceGetGpuInstances h:gpu u:9 oh:gi o", "0 1"),
        ("nvmlGpuInstanceGetInfo h:gi w:2,2", "0 1 9"),
        ("nvmlDeviceGetMemoryInfo h:gpu b", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "4"),
        ("nvmlGpuInstanceDestroy h:gi", "4"),
        ("nvmlGpuInstanceGetComputeInstanceById h:gi u:0 oh:ci", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "4"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "4 0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
    ]);
    let machine = scene("none");
    opened(&machine).expect(&[
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
        ("nvmlDeviceGetGpuInstanceProfileInfo h:gpu u:0 b", "0"),
        ("nvmlDeviceGetGpuInstances h:gpu u:9 b o", "4 0"),
        ("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:none", "4"),
        ("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:9 o", "4 0"),
        ("nvmlDeviceGetGpuInstancePossiblePlacements_v2 h:gpu u:9 b o", "4 0"),
        ("nvmlDeviceGetMemoryInfo h:gpu b", "4"),
        ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice", "0"),
        ("nvmlDeviceGetMemoryInfo h:slice b", "0"),
    ]);
}

#[test]
fn every_process_sees_what_one_has_changed() {
    let machine = one("A100-SXM4-40GB", "");
    let (mut one, mut two) = (opened(&machine), opened(&machine));
    one.expect(&[("nvmlDeviceCreateGpuInstance h:gpu u:14 oh:gi", "0"), ("nvmlGpuInstanceGetInfo h:gi w:2,1", "0 3")]);
    two.expect(&[
        ("nvmlDeviceGetGpuInstanceById h:gpu u:3 oh:gi", "0"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:1 oh:ci", "0"),
    ]);
    one.expect(&[
        ("nvmlGpuInstanceDestroy h:gi", "19"),
        ("nvmlGpuInstanceGetComputeInstanceById h:gi u:0 oh:ci", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "0"),
    ]);
    two.expect(&[("nvmlComputeInstanceDestroy h:ci", "2"), ("nvmlGpuInstanceDestroy h:gi", "0")]);
}

#[test]
fn a_call_that_a_fault_fails_has_done_nothing() {
    let machine = one("A100-SXM4-40GB", "");
    let mut client = opened(&machine);
    let fault = |call: &str, nth: &str, code: &str| {
        machine.tell(&["fault", "add", "--call", call, "--nth", nth, "--returns", code]);
    };
    fault("nvmlDeviceCreateGpuInstance", "2", "UNKNOWN");
    fault("nvmlGpuInstanceCreateComputeInstance", "1", "INSUFFICIENT_RESOURCES");
    fault("nvmlComputeInstanceDestroy", "1", "IN_USE");
    fault("nvmlGpuInstanceDestroy", "1", "IN_USE");
    fault("nvmlDeviceSetMigMode", "1", "NO_PERMISSION");
    client.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi", "0"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:none", "999"),
        ("nvmlDeviceGetGpuInstances h:gpu u:19 b o", "0 1"),
        ("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:other", "0"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:0 oh:none", "23"),
        ("nvmlGpuInstanceGetComputeInstances h:gi u:0 b o", "0 0"),
        ("nvmlGpuInstanceCreateComputeInstance h:gi u:0 oh:ci", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "19"),
        ("nvmlComputeInstanceGetInfo_v2 h:ci b", "0"),
        ("nvmlComputeInstanceDestroy h:ci", "0"),
        ("nvmlGpuInstanceDestroy h:gi", "19"),
        ("nvmlGpuInstanceGetInfo h:gi b", "0"),
        ("nvmlGpuInstanceDestroy h:gi", "0"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "4 0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
    ]);
    machine.tell(&["fault", "add", "--call", "nvmlDeviceCreateGpuInstance", "--delay", "20ms"]);
    client.expect(&[("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi", "0")]);
    machine.tell(&["lose-gpu", "0"]);
    client.expect(&[("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi", "15"), ("nvmlGpuInstanceDestroy h:gi", "15")]);
}
