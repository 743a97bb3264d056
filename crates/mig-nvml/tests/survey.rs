//! The thorough reading, of every scene against the scene itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod machine;

use std::collections::BTreeMap;
use std::fs;

use fake_nvml::{Gpu, Permission, World};
use machine::{Machine, profile, survey};
use mig_model::model::Model;
use mig_model::{ComputeInstance, Geometry, GpuInstance, GpuSurvey, GpuUuid, MigMode, MigUuid, Placement, Process};

/// What a survey has to say of a GPU of a scene.
fn expected(world: &World, index: usize, gpu: &Gpu) -> GpuSurvey {
    let model = &world.models[gpu.model];
    let mut instances: Vec<GpuInstance> = gpu.instances.iter().map(|instance| instance_of(model, instance)).collect();
    instances.sort_by_key(|instance| instance.placement);
    let mig = match &model.mig {
        None => MigMode::Unsupported,
        Some(_) => MigMode::Known { enabled: gpu.mig_current, pending: gpu.mig_pending },
    };
    GpuSurvey {
        gpu: mig_model::Gpu {
            vitals: mig_model::Vitals {
                uncorrectable_errors: Some(0),
                remapped_rows: Some(mig_model::RemappedRows::default()),
                recovery: Some(mig_model::Recovery::None),
            },
            unwatched: None,
            outdated: false,
            processes: None,
            index: u32::try_from(index).unwrap(),
            uuid: GpuUuid::new(gpu.uuid.clone()).unwrap(),
            name: model.name.clone(),
            minor: Some(gpu.minor),
            pci_address: Some(gpu.pci.short()),
            numa_node: None,
            mig,
            instances,
            fault: None,
        },
        geometry: geometry(gpu, model),
        remaining: BTreeMap::new(),
        memory_bytes: Some(model.memory.total),
        pci_ids: Some((model.pci_device_id, model.pci_subsystem_id)),
        processes: Vec::new(),
        processes_known: true,
    }
}

fn instance_of(model: &fake_nvml::Model, instance: &fake_nvml::GpuInstance) -> GpuInstance {
    let of = &model.mig.as_ref().unwrap().profiles[instance.profile];
    let compute = |compute: &fake_nvml::ComputeInstance| {
        let part = &of.compute_profiles[compute.profile];
        ComputeInstance {
            fault: None,
            id: compute.id,
            profile: profile(&part.name),
            uuid: MigUuid::new(compute.uuid.clone()).unwrap(),
            index: None,
            placement: Some(Placement { start: compute.start, size: part.placements.size }),
        }
    };
    GpuInstance {
        id: instance.id,
        profile: profile(&of.name),
        placement: Some(Placement { start: instance.start, size: of.placements.size }),
        compute_instances: instance.compute.iter().map(compute).collect(),
    }
}

/// What the file in `models/` says, without the compute instance profiles of what there is no instance of.
fn geometry(gpu: &Gpu, model: &fake_nvml::Model) -> Option<Geometry> {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")).unwrap();
    let parsed = files.map(|file| Model::parse(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap());
    let mut geometry = parsed.into_iter().find(|file| file.name == model.name).unwrap().geometry?;
    for (position, known) in geometry.profiles.iter_mut().enumerate() {
        if !gpu.mig_current || !gpu.instances.iter().any(|instance| instance.profile == position) {
            known.compute_profiles.clear();
        }
    }
    // A driver lists them by index.
    let index = |id: u32| model.mig.as_ref().unwrap().profiles.iter().find(|known| known.id == id).unwrap().index;
    geometry.profiles.sort_by_key(|known| index(known.id));
    Some(geometry)
}

/// The GPUs of a scene, each without `remaining`, which only the driver knows.
fn compare(machine: &Machine) {
    let world = machine.world();
    let survey = machine.hardware().survey().unwrap();
    assert_eq!(survey.driver.version, world.driver);
    assert!(survey.unreadable.is_empty(), "{:?}", survey.unreadable);
    assert_eq!(survey.gpus.len(), world.gpus.len());
    for (index, (seen, gpu)) in survey.gpus.into_iter().zip(&world.gpus).enumerate() {
        let profiles = seen.geometry.as_ref().map_or(0, |geometry| geometry.profiles.len());
        assert_eq!(seen.remaining.len(), if gpu.mig_current { profiles } else { 0 }, "GPU {index}");
        assert_eq!(GpuSurvey { remaining: BTreeMap::new(), ..seen }, expected(&world, index, gpu));
    }
}

#[test]
fn every_size_beside_mig_off_and_mig_to_come() {
    let Some(machine) = Machine::of(this_test!(), "a100-mixed") else { return };
    compare(&machine);
}

#[test]
fn instances_with_several_compute_instances_or_none() {
    let Some(machine) = Machine::of(this_test!(), "compute-instances") else { return };
    compare(&machine);
    let survey = machine.hardware().survey().unwrap();
    let empty = survey.gpus[1].gpu.instances.iter().find(|instance| instance.compute_instances.is_empty());
    assert_eq!(empty.unwrap().profile, profile("4g.20gb"));
}

#[test]
fn every_suffix() {
    let Some(machine) = Machine::of(this_test!(), "rtx-pro-6000") else { return };
    compare(&machine);
}

#[test]
fn a_gpu_that_is_not_cut_tells_how_it_could_be() {
    let Some(machine) = Machine::of(this_test!(), "h200-idle") else { return };
    compare(&machine);
}

#[test]
fn gpus_that_cannot_be_cut() {
    let Some(machine) = Machine::of(this_test!(), "not-mig-capable") else { return };
    compare(&machine);
}

#[test]
fn what_there_is_room_for_is_the_drivers_word() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    let survey = machine.hardware().survey().unwrap();
    let [mixed, full] = survey.gpus.as_slice() else { panic!("two GPUs") };
    // 3g at 4:4, 2g at 0:2 and two 1g at 2 and 3 are seven slices.
    assert!(mixed.remaining.values().chain(full.remaining.values()).all(|count| *count == 0), "{survey:?}");
    machine.change(|world| world.gpus[0].instances.retain(|instance| instance.start >= 4));
    let survey = machine.hardware().survey().unwrap();
    let remaining = |name: &str| {
        let known = survey.gpus[0].geometry.as_ref().unwrap().find(&profile(name)).unwrap();
        survey.gpus[0].remaining[&known.id]
    };
    assert_eq!([remaining("3g.20gb"), remaining("2g.10gb"), remaining("1g.5gb"), remaining("7g.40gb")], [1, 2, 4, 0]);
}

#[test]
fn a_lost_gpu_degrades_itself_only() {
    let Some(machine) = Machine::of(this_test!(), "one-gpu-lost") else { return };
    let survey = machine.hardware().survey().unwrap();
    let indices: Vec<u32> = survey.gpus.iter().map(|survey| survey.gpu.index).collect();
    assert_eq!(indices, [0, 2]);
    assert!(survey.gpus.iter().all(|survey| survey.gpu.fault.is_none() && !survey.gpu.instances.is_empty()));
    assert_eq!(survey.unreadable.len(), 1);
    assert_eq!((survey.unreadable[0].index, survey.unreadable[0].fault.kind), (1, "GpuIsLost"));
}

#[test]
fn a_gpu_that_says_who_it_is_and_then_fails_keeps_its_name_and_what_was_read() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    machine.fail("nvmlDeviceGetGpuInstanceRemainingCapacity", Some(1), "UNKNOWN");
    let survey = machine.hardware().survey().unwrap();
    let [failing, sound] = survey.gpus.as_slice() else { panic!("two GPUs") };
    assert_eq!(failing.gpu.fault.as_ref().unwrap().kind, "Unknown");
    assert!(failing.gpu.fault.as_ref().unwrap().message.contains("RemainingCapacity"));
    assert_eq!((failing.gpu.instances.len(), &failing.geometry), (4, &None));
    assert_eq!((&sound.gpu.fault, sound.gpu.instances.len()), (&None, 7));
}

#[test]
fn who_may_not_look_sees_what_mig_devices_tell() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    machine.change(|world| world.permission = Permission::None);
    machine.process(4711, Some(1), Some(0));
    let survey = machine.hardware().survey().unwrap();
    let gpu = &survey.gpus[0];
    assert_eq!((&gpu.gpu.fault, gpu.memory_bytes, &gpu.geometry), (&None, None, &None));
    let names: Vec<String> = gpu.gpu.instances.iter().map(|instance| instance.profile.to_string()).collect();
    assert_eq!(names.len(), 4);
    assert!(gpu.gpu.instances.iter().all(|instance| instance.placement.is_none()), "{names:?}");
    assert_eq!(gpu.remaining, BTreeMap::new());
    // The whole GPU's processes are kept from us, those of the parts are not.
    assert_eq!((gpu.processes[0].pid, gpu.processes[0].gpu_instance), (4711, Some(1)));
}

#[test]
fn processes_are_told_with_what_they_hold_and_their_names() {
    let text = "gpus: [{ model: A100-SXM4-40GB, instances: [{ profile: 3g.20gb, id: 2 }], processes: [\
        { pid: 20, name: python3, memory: 512, instance: 2, compute: 0 },\
        { pid: 10, name: Xorg, memory: 16, graphics: true, instance: 2, compute: 0 },\
        { pid: 10, name: Xorg, memory: 32, instance: 2, compute: 0 }] }]";
    let Some(machine) = Machine::written(this_test!(), text) else { return };
    let process = |pid, mib: u64, name: &str| Process {
        pid,
        gpu_instance: Some(2),
        compute_instance: Some(0),
        memory_bytes: Some(mib << 20),
        name: Some(name.to_owned()),
    };
    let hardware = machine.hardware();
    assert_eq!(survey(&hardware).processes, [process(10, 32, "Xorg"), process(20, 512, "python3")]);

    // Drivers before R510 have version 2 of the lists only.
    machine.fail("nvmlDeviceGetComputeRunningProcesses_v3", None, "FUNCTION_NOT_FOUND");
    machine.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", None, "FUNCTION_NOT_FOUND");
    assert_eq!(survey(&hardware).processes.len(), 2);

    // Where the driver has no name, the kernel may have one.
    fs::create_dir_all(machine.path("proc/20")).unwrap();
    fs::write(machine.path("proc/20/comm"), "py\x1bthon\n").unwrap();
    machine.fail("nvmlSystemGetProcessName", None, "NOT_SUPPORTED");
    let names: Vec<Option<String>> = survey(&hardware).processes.into_iter().map(|process| process.name).collect();
    assert_eq!(names, [None, Some("py\u{fffd}thon".to_owned())]);
}

#[test]
fn a_gpu_that_is_not_cut_has_processes_of_no_instance() {
    let Some(machine) = Machine::of(this_test!(), "h200-idle") else { return };
    machine.process(7, None, None);
    let processes = survey(&machine.hardware()).processes;
    assert_eq!((processes.len(), processes[0].pid), (1, 7));
    assert_eq!((processes[0].gpu_instance, processes[0].compute_instance), (None, None));
}

#[test]
fn three_hundred_processes_are_more_than_a_first_list_holds() {
    let Some(machine) = Machine::of(this_test!(), "h200-idle") else { return };
    for pid in 1..=300 {
        machine.process(pid, None, None);
    }
    let pids: Vec<u32> = survey(&machine.hardware()).processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, (1..=300).collect::<Vec<u32>>());
}

#[test]
fn drivers_without_the_newer_calls_tell_the_same() {
    let Some(machine) = Machine::of(this_test!(), "a100-mixed") else { return };
    for call in ["nvmlDeviceGetGpuInstanceProfileInfoV", "nvmlDeviceGetGpuInstanceProfileInfoByIdV"] {
        machine.fail(call, None, "FUNCTION_NOT_FOUND");
    }
    for call in [
        "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    ] {
        machine.fail(call, None, "FUNCTION_NOT_FOUND");
    }
    compare(&machine);
    // Then nobody says into what a GPU instance can be cut.
    machine.fail("nvmlGpuInstanceGetComputeInstancePossiblePlacements", None, "FUNCTION_NOT_FOUND");
    let survey = machine.hardware().survey().unwrap();
    let profiles = survey.gpus.iter().filter_map(|gpu| gpu.geometry.as_ref()).flat_map(|geometry| &geometry.profiles);
    assert!(profiles.clone().count() > 0);
    assert!(profiles.into_iter().all(|known| known.compute_profiles.is_empty()));
}

#[test]
fn a_compute_instance_that_no_mig_device_stands_for_is_a_fault_of_its_gpu() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    machine.fail("nvmlDeviceGetMigDeviceHandleByIndex", None, "NOT_FOUND");
    let survey = machine.hardware().survey().unwrap();
    for gpu in survey.gpus {
        let fault = gpu.gpu.fault.unwrap();
        assert_eq!(fault.kind, "Nonsense");
        assert!(fault.message.contains("no MIG device stands for compute instance 0"), "{}", fault.message);
    }
}

#[test]
fn a_mig_device_that_is_in_no_list_is_a_fault_of_its_gpu() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    machine.fail("nvmlGpuInstanceGetComputeInstanceProfileInfo", None, "NOT_SUPPORTED");
    let survey = machine.hardware().survey().unwrap();
    let fault = survey.gpus[0].gpu.fault.as_ref().unwrap();
    assert!(fault.kind == "Nonsense" && fault.message.contains("which it does not list"), "{}", fault.message);
}

#[test]
fn a_change_under_our_hands_is_read_again() {
    let Some(machine) = Machine::of(this_test!(), "demo") else { return };
    // As when the instance is destroyed between the list and the question.
    machine.fail("nvmlGpuInstanceGetInfo", Some(1), "INVALID_ARGUMENT");
    compare(&machine);
}

#[test]
fn a_model_is_described_as_its_file_has_it() {
    let Some(machine) = Machine::of(this_test!(), "compute-instances") else { return };
    let hardware = machine.hardware();
    let survey = hardware.survey().unwrap();
    let world = machine.world();
    for (seen, gpu) in survey.gpus.iter().zip(&world.gpus) {
        let model = &world.models[gpu.model];
        let facts = hardware.describe(&seen.gpu.uuid).unwrap();
        let [major, minor] = model.compute_capability.map(|number| u32::try_from(number).unwrap());
        assert_eq!((facts.name, facts.driver.version), (model.name.clone(), world.driver.clone()));
        assert_eq!((facts.architecture, facts.brand), (Some(model.architecture), Some(model.brand)));
        assert_eq!(facts.compute_capability, Some((major, minor)));
        assert_eq!(facts.pci_ids, Some((model.pci_device_id, model.pci_subsystem_id)));
        assert_eq!(
            (facts.memory_total, facts.memory_reserved),
            (Some(model.memory.total), Some(model.memory.reserved))
        );
        assert_eq!(facts.vbios, Some(model.vbios.clone()));
        assert_eq!(facts.power_limit_milliwatts, Some(model.power_limit_milliwatts));
        let mig = model.mig.as_ref().unwrap();
        assert_eq!((facts.max_mig_devices, facts.cores), (Some(mig.max_devices), None), "with MIG on");
        let indices: BTreeMap<u32, u32> = mig.profiles.iter().map(|known| (known.id, known.index)).collect();
        assert_eq!(facts.profile_indices, indices);
        let cut = mig.profiles.iter().enumerate();
        let cut = cut.filter(|(position, _)| gpu.instances.iter().any(|instance| instance.profile == *position));
        let parts = cut.flat_map(|(_, of)| of.compute_profiles.iter().map(|part| ((of.id, part.id), part.index)));
        assert_eq!(facts.compute_profile_indices, parts.collect());
    }
    assert_eq!(hardware.describe(&GpuUuid::new("GPU-none").unwrap()).unwrap_err().kind(), "NotFound");
}

#[test]
fn a_model_is_described_with_mig_off_too() {
    let Some(machine) = Machine::of(this_test!(), "h200-idle") else { return };
    let hardware = machine.hardware();
    let facts = hardware.describe(&machine::first(&hardware)).unwrap();
    assert_eq!((facts.max_mig_devices, facts.cores), (None, Some(16896)));
    assert_eq!((facts.profile_indices.len(), facts.compute_profile_indices.len()), (7, 0));
}
