//! Processes that change one machine at the same time, and are killed while they do.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::collections::BTreeSet;

use common::{Client, Machine};
use fake_nvml::{Store, World};

const SCENE: &str = "gpus: [{ model: A100-SXM4-40GB, mig: true }]";

fn opened(machine: &Machine) -> Client {
    let mut client = machine.client();
    client.expect(&[("nvmlInit_v2", "0"), ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0")]);
    client
}

fn world(machine: &Machine) -> World {
    Store::open(&machine.path("state"), || unreachable!("a client has made the machine")).unwrap().1
}

/// Nothing overlaps, nothing is there twice.
fn is_whole(world: &World) {
    let gpu = &world.gpus[0];
    let mig = world.models[gpu.model].mig.as_ref().unwrap();
    let mut slices = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for instance in &gpu.instances {
        let size = mig.profiles[instance.profile].placements.size;
        assert!((instance.start..instance.start + size).all(|slice| slices.insert(slice)), "{:?}", gpu.instances);
        assert!(seen.insert(format!("id {}", instance.id)));
        for compute in &instance.compute {
            assert!(seen.insert(format!("index {}", compute.mig_index)));
            assert!(seen.insert(compute.uuid.clone()));
        }
    }
}

#[test]
fn whoever_is_killed_while_cutting_leaves_a_whole_machine_that_others_can_cut() {
    let machine = Machine::described(SCENE);
    let root = machine.path("root");
    machine.tell(&["layout", "--plain-files", "--root", root.to_str().unwrap()]);
    let mut survivor = opened(&machine);
    for round in 0..40 {
        let mut victim = opened(&machine);
        // It cuts and clears as fast as it can; it has answered this often when it is killed, and is in the next call.
        for _ in 0..20 {
            victim.ask("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi");
            victim.ask("nvmlGpuInstanceCreateComputeInstance h:gi u:0 oh:ci");
            victim.ask("nvmlComputeInstanceDestroy h:ci");
            victim.ask("nvmlGpuInstanceDestroy h:gi");
        }
        for _ in 0..round {
            assert_eq!(victim.answer(), "0");
        }
        victim.kill();
        is_whole(&world(&machine));
        survivor.expect(&[
            ("nvmlDeviceCreateGpuInstanceWithPlacement h:gpu u:14 p:0,2 oh:own", "0"),
            ("nvmlGpuInstanceCreateComputeInstance h:own u:1 oh:own-ci", "0"),
            ("nvmlComputeInstanceDestroy h:own-ci", "0"),
            ("nvmlGpuInstanceDestroy h:own", "0"),
        ]);
        let left = world(&machine);
        is_whole(&left);
        // The survivor's changes made up for what the other had not laid out.
        let shown = root.join("proc/driver/nvidia/capabilities/gpu0/mig");
        let folders = std::fs::read_dir(&shown).into_iter().flatten().count();
        assert_eq!(folders, left.gpus[0].instances.len(), "round {round}");
        machine.tell(&["reboot"]);
        survivor.expect(&[("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0")]);
    }
    let files = std::fs::read_dir(machine.path("state")).unwrap().flatten();
    let worlds = files.filter(|file| file.file_name().to_string_lossy().starts_with("world.")).count();
    assert_eq!(worlds, 1);
}

#[test]
fn those_who_cut_at_once_get_what_there_is_and_no_more() {
    let machine = Machine::described(SCENE);
    let mut clients: Vec<Client> = (0..6).map(|_| opened(&machine)).collect();
    for _ in 0..4 {
        clients.iter_mut().for_each(|client| client.ask("nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi"));
    }
    let mut answers: Vec<String> = Vec::new();
    for _ in 0..4 {
        answers.extend(clients.iter_mut().map(Client::answer));
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "0").count(), 7);
    assert!(answers.iter().all(|answer| answer == "0" || answer == "23"), "{answers:?}");
    let world = world(&machine);
    is_whole(&world);
    assert_eq!(world.gpus[0].instances.len(), 7);
}
