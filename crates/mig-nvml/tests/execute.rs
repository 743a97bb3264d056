//! Steps, taken on a pretended machine, against what that machine is afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy takes only test functions for tests")]

mod machine;

use std::fs;
use std::ops::ControlFlow;

use fake_nvml::Permission;
use machine::{Machine, create, destroy, first, profile, survey, take};
use mig_model::{GpuUuid, MigMode, MigUuid, Placement, Step};
use mig_nvml::{Activation, Outcome, Progress, Report, StepError};

/// One empty GPU with MIG on.
const EMPTY: &str = "gpus: [{ model: A100-SXM4-40GB, mig: true }]";
/// One with two halves, the lower one shared.
const HALVES: &str = "gpus: [{ model: A100-SXM4-40GB, instances: [\
    { profile: 3g.20gb, placement: 0, id: 2, compute: [{ profile: 2c.3g.20gb }, { profile: 1c.3g.20gb }] },\
    { profile: 3g.20gb, placement: 4, id: 1 }] }]";

fn failure(report: &Report) -> &StepError {
    let Some(failed) = &report.failed else { panic!("no failure: {report:?}") };
    &failed.error
}

fn all_done(report: &Report, steps: usize) {
    assert!(report.failed.is_none(), "{report:?}");
    assert_eq!((report.done.len(), report.left.len(), report.interrupted), (steps, 0, false));
}

#[test]
fn what_is_created_is_told_as_the_driver_has_it_and_can_be_destroyed() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let steps = [create("3g.20gb", 4, 4, &["3g.20gb"]), create("3g.20gb", 0, 4, &["2c.3g.20gb", "1c.3g.20gb"])];
    let report = take(&hardware, &steps);
    all_done(&report, 2);
    let survey = survey(&hardware);
    let [lower, upper] = survey.gpu.instances.as_slice() else { panic!("{survey:?}") };
    assert_eq!(report.done[0].outcome, Outcome::Created(upper.clone()));
    assert_eq!(report.done[1].outcome, Outcome::Created(lower.clone()));
    assert_eq!(upper.placement, Some(Placement { start: 4, size: 4 }));
    let parts: Vec<String> = lower.compute_instances.iter().map(|part| part.profile.to_string()).collect();
    assert_eq!(parts, ["2c.3g.20gb", "1c.3g.20gb"], "in the order in which they were asked for");

    let report = take(&hardware, &[destroy(&survey, lower.id), destroy(&survey, upper.id)]);
    all_done(&report, 2);
    assert!(report.done.iter().all(|done| done.outcome == Outcome::Destroyed));
    assert_eq!(machine.cut(0), []);
}

#[test]
fn every_profile_can_be_created_as_the_driver_names_it() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    for known in &survey(&hardware).geometry.unwrap().profiles {
        let at = known.placements.last().unwrap();
        let step = create(&known.profile.to_string(), at.start, at.size, &[&known.profile.to_string()]);
        all_done(&take(&hardware, &[step]), 1);
        let found = survey(&hardware);
        assert_eq!(machine.cut(0)[0].1, at.start);
        all_done(&take(&hardware, &[destroy(&found, found.gpu.instances[0].id)]), 1);
    }
}

#[test]
fn a_gpu_instance_may_be_created_without_compute_instances_and_get_them_later() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let report = take(&hardware, &[create("4g.20gb", 0, 4, &[])]);
    let Outcome::Created(made) = &report.done[0].outcome else { panic!("{report:?}") };
    assert_eq!(made.compute_instances, []);
    let part = Step::CreateComputeInstance { gpu_instance: made.id, profile: profile("2c.4g.20gb") };
    let report = take(&hardware, &[part.clone(), part.clone(), part]);
    assert_eq!((report.done.len(), failure(&report).kind()), (2, "InsufficientResources"));
    let now = survey(&hardware);
    for (done, compute) in report.done.iter().zip(&now.gpu.instances[0].compute_instances) {
        let expected = Outcome::CreatedCompute { gpu_instance: made.id, compute_instance: compute.clone() };
        assert_eq!(done.outcome, expected);
    }
    let one = &now.gpu.instances[0].compute_instances[1];
    let gone = Step::DestroyComputeInstance {
        gpu_instance: made.id,
        compute_instance: one.id,
        profile: one.profile.clone(),
        uuid: one.uuid.clone(),
    };
    all_done(&take(&hardware, &[gone]), 1);
    assert_eq!(machine.cut(0)[0].2, [now.gpu.instances[0].compute_instances[0].uuid.as_str()]);
}

/// Some drivers list a second profile that takes all of a 7g instance, at index 8, which is not the one to use.
#[test]
fn of_two_compute_profiles_of_one_name_the_usual_one_is_taken() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
    let text = fs::read_to_string(format!("{models}/H200.yaml")).unwrap();
    let usual = "        - { name: 7g.141gb, index: 4, id: 4,";
    let line = text.lines().find(|line| line.starts_with(usual)).unwrap();
    let second = line.replace("index: 4, id: 4", "index: 8, id: 8");
    let model = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    fs::write(model.path(), text.replace(line, &format!("{second}\n{line}"))).unwrap();
    let scene = format!("gpus: [{{ model: {}, mig: true }}]", model.path().display());
    let Some(machine) = Machine::written(this_test!(), &scene) else { return };
    let hardware = machine.hardware();
    all_done(&take(&hardware, &[create("7g.141gb", 0, 8, &["7g.141gb"])]), 1);
    let world = machine.world();
    let profiles = &world.models[0].mig.as_ref().unwrap().profiles;
    let [made] = world.gpus[0].instances.as_slice() else { panic!("one instance") };
    assert_eq!(profiles[made.profile].compute_profiles[made.compute[0].profile].index, 4);
    let geometry = survey(&hardware).geometry.unwrap();
    let offered = &geometry.find(&profile("7g.141gb")).unwrap().compute_profiles;
    assert_eq!(
        offered.iter().filter(|part| part.profile == profile("7g.141gb")).map(|part| part.id).collect::<Vec<_>>(),
        [4]
    );
}

#[test]
fn a_compute_instance_that_fails_leaves_nothing_behind() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    machine.fail("nvmlGpuInstanceCreateComputeInstance", Some(2), "INSUFFICIENT_RESOURCES");
    let steps = [create("3g.20gb", 0, 4, &["2c.3g.20gb", "1c.3g.20gb"]), create("1g.5gb", 6, 1, &["1g.5gb"])];
    let report = take(&hardware, &steps);
    assert_eq!(failure(&report).kind(), "InsufficientResources");
    assert!(!failure(&report).changed_something());
    assert_eq!((report.done.len(), report.left.as_slice(), report.interrupted), (0, &steps[1..], false));
    assert_eq!(
        failure(&report).to_string(),
        "unable to create 3g.20gb at 0:4 with 2c.3g.20gb, 1c.3g.20gb: nvmlGpuInstanceCreateComputeInstance failed on \
         GPU 0: insufficient resources; what had been created was taken away again"
    );
    assert_eq!(machine.cut(0), []);
}

#[test]
fn what_fails_after_the_creation_is_taken_back_too() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let gpu = first(&hardware);
    for call in
        ["nvmlGpuInstanceGetInfo", "nvmlComputeInstanceGetInfo_v2", "nvmlGpuInstanceGetComputeInstanceProfileInfo"]
    {
        machine.fail(call, Some(1), "UNKNOWN");
        let steps = [create("3g.20gb", 0, 4, &["3g.20gb"])];
        let report = hardware.execute(&gpu, &steps, &mut |_| ControlFlow::Continue(()));
        assert_eq!((failure(&report).kind(), failure(&report).changed_something()), ("Unknown", false), "{call}");
        assert_eq!(machine.cut(0), [], "{call}");
        machine.change(|world| world.faults.clear());
    }
    let within = take(&hardware, &[create("3g.20gb", 0, 4, &[])]);
    let Outcome::Created(within) = &within.done[0].outcome else { panic!("{within:?}") };
    machine.fail("nvmlComputeInstanceGetInfo_v2", Some(1), "UNKNOWN");
    let step = Step::CreateComputeInstance { gpu_instance: within.id, profile: profile("1c.3g.20gb") };
    let report = hardware.execute(&gpu, &[step], &mut |_| ControlFlow::Continue(()));
    assert_eq!((failure(&report).kind(), failure(&report).changed_something()), ("Unknown", false));
    assert_eq!(machine.cut(0)[0].2.len(), 0);
}

#[test]
fn what_cannot_be_taken_away_is_told() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    machine.fail("nvmlGpuInstanceCreateComputeInstance", Some(1), "NO_PERMISSION");
    machine.fail("nvmlGpuInstanceDestroy", Some(1), "IN_USE");
    let report = take(&hardware, &[create("3g.20gb", 0, 4, &["3g.20gb"])]);
    assert_eq!(failure(&report).kind(), "NoPermission");
    assert!(failure(&report).changed_something());
    let text = failure(&report).to_string();
    assert!(text.contains("mig/config capability"), "{text}");
    assert!(
        text.contains("; and what had been created is still there: unable to take it away: nvmlGpuInstanceDestroy")
    );
    assert_eq!(machine.cut(0).len(), 1);
}

#[test]
fn what_the_driver_does_not_offer_is_not_tried() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let report = take(&hardware, &[create("2g.20gb", 0, 2, &[])]);
    assert_eq!(failure(&report).kind(), "UnknownProfile");
    let text = failure(&report).to_string();
    assert!(text.contains("there is no profile 2g.20gb here, only 1g.5gb, 2g.10gb"), "{text}");
    let report = take(&hardware, &[create("2g.10gb", 0, 2, &["1c.2g.10gb", "1c.3g.20gb"])]);
    let text = failure(&report).to_string();
    assert_eq!(failure(&report).kind(), "UnknownProfile");
    assert!(text.contains("only 1c.2g.10gb, 2g.10gb; what had been created was taken away again"), "{text}");
    assert_eq!(machine.cut(0), []);
}

#[test]
fn a_full_gpu_and_an_illegal_place_are_told_apart() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    let before = machine.cut(0);
    let full = take(&hardware, &[create("1g.5gb", 6, 1, &["1g.5gb"])]);
    let illegal = take(&hardware, &[create("3g.20gb", 2, 4, &["3g.20gb"])]);
    assert_eq!([failure(&full).kind(), failure(&illegal).kind()], ["InsufficientResources", "InvalidArgument"]);
    assert_eq!(machine.cut(0), before);
}

#[test]
fn what_a_process_uses_is_not_destroyed() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    machine.process(7, Some(1), Some(0));
    let before = machine.cut(0);
    let survey = survey(&hardware);
    let steps = [destroy(&survey, 1), destroy(&survey, 2)];
    let report = take(&hardware, &steps);
    assert_eq!((failure(&report).kind(), report.left.as_slice()), ("InUse", &steps[1..]));
    assert!(!failure(&report).changed_something());
    assert!(failure(&report).to_string().contains("end the processes that use it"), "{}", failure(&report));
    assert_eq!(machine.cut(0), before);

    // Of two compute instances the first is gone before the second turns out to be in use.
    machine.process(8, Some(2), Some(1));
    let report = take(&hardware, &steps[1..]);
    let StepError::Destroyed { destroyed, .. } = failure(&report) else { panic!("{report:?}") };
    assert_eq!((failure(&report).kind(), failure(&report).changed_something()), ("InUse", true));
    assert_eq!(destroyed[0].as_str(), before[1].2[0]);
    assert!(failure(&report).to_string().ends_with(&format!("; before that, {} had been destroyed", destroyed[0])));
    assert_eq!(machine.cut(0)[1].2, before[1].2[1..]);
}

#[test]
fn an_id_that_passed_to_another_instance_is_not_destroyed() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    let before = survey(&hardware);
    let stale = destroy(&before, 1);
    // Somebody else destroys it and creates the same again: same id, profile and place.
    all_done(&take(&hardware, &[stale.clone(), create("3g.20gb", 4, 4, &["3g.20gb"])]), 2);
    let now = survey(&hardware);
    assert_eq!(now.gpu.instances[1].id, 1, "the case that is meant");
    let cut = machine.cut(0);
    let report = take(&hardware, &[stale]);
    assert_eq!(failure(&report).kind(), "Changed");
    let text = failure(&report).to_string();
    let (was, is) = (&before.gpu.instances[1].compute_instances[0], &now.gpu.instances[1].compute_instances[0]);
    assert!(text.contains(&format!("its compute instance 0 was {} and is {}", was.uuid, is.uuid)), "{text}");
    let compute = Step::DestroyComputeInstance {
        gpu_instance: 1,
        compute_instance: 0,
        profile: was.profile.clone(),
        uuid: was.uuid.clone(),
    };
    assert_eq!(failure(&take(&hardware, &[compute])).kind(), "Changed");
    assert_eq!(machine.cut(0), cut);
}

#[test]
fn an_instance_of_another_kind_place_or_content_is_not_destroyed() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    let cut = machine.cut(0);
    let uuid = |text: &str| MigUuid::new(text).unwrap();
    let (own, at) = (uuid(&cut[0].2[0]), |start| Some(Placement { start, size: 4 }));
    for (id, name, placement, compute, now) in [
        (1, "4g.20gb", None, vec![], "a 3g.20gb at 4:4 has its number"),
        (1, "3g.20gb", at(0), vec![], "a 3g.20gb at 4:4 has its number"),
        (3, "3g.20gb", at(4), vec![], "it is gone"),
        (1, "3g.20gb", at(4), vec![(0, own.clone()), (1, uuid("MIG-1"))], "its compute instance 1 (MIG-1) is gone"),
        (1, "3g.20gb", at(4), vec![(0, uuid("MIG-2"))], "its compute instance 0 was MIG-2"),
    ] {
        let step = Step::DestroyGpuInstance {
            gpu_instance: id,
            profile: profile(name),
            placement,
            compute_instances: compute,
        };
        let report = take(&hardware, &[step]);
        assert_eq!(failure(&report).kind(), "Changed");
        assert!(failure(&report).to_string().contains(now), "{}", failure(&report));
    }
    let part = |gpu_instance, compute_instance, name: &str| Step::DestroyComputeInstance {
        gpu_instance,
        compute_instance,
        profile: profile(name),
        uuid: own.clone(),
    };
    for step in [part(1, 1, "3g.20gb"), part(3, 0, "3g.20gb"), part(1, 0, "1c.3g.20gb")] {
        assert_eq!(failure(&take(&hardware, &[step])).kind(), "Changed");
    }
    let into_nothing = Step::CreateComputeInstance { gpu_instance: 3, profile: profile("1c.3g.20gb") };
    assert_eq!(failure(&take(&hardware, &[into_nothing])).kind(), "Changed");
    assert_eq!(machine.cut(0), cut);
}

#[test]
fn compute_instances_that_came_since_the_plan_go_with_their_gpu_instance() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    let Step::DestroyGpuInstance { gpu_instance, profile, placement, mut compute_instances } =
        destroy(&survey(&hardware), 2)
    else {
        panic!("a destruction")
    };
    compute_instances.pop();
    let step = Step::DestroyGpuInstance { gpu_instance, profile, placement, compute_instances };
    all_done(&take(&hardware, &[step]), 1);
    assert_eq!(machine.cut(0).len(), 1);
}

#[test]
fn mig_mode_of_an_a100_takes_a_reset() {
    let Some(machine) = Machine::written(this_test!(), "gpus: [{ model: A100-SXM4-40GB, mig: false }]") else { return };
    let hardware = machine.hardware();
    let report = take(&hardware, &[Step::SetMigMode { enabled: true }]);
    let mode = Outcome::Mode { enabled: false, pending: true, activation: Activation::NeedsReset };
    assert_eq!(report.done[0].outcome, mode);
    machine.process(7, None, None);
    let report = take(&hardware, &[Step::SetMigMode { enabled: true }]);
    let mode = Outcome::Mode { enabled: false, pending: true, activation: Activation::ClientsInTheWay };
    assert_eq!(report.done[0].outcome, mode);
    let report = take(&hardware, &[Step::SetMigMode { enabled: false }]);
    let mode = Outcome::Mode { enabled: false, pending: false, activation: Activation::Done };
    assert_eq!(report.done[0].outcome, mode);
}

#[test]
fn mig_mode_of_an_h100_changes_at_once_and_the_gpu_is_found_again() {
    // Minor numbers and handles move with the mode here.
    let text = "minors_move: true\ngpus: [{ model: H100-80GB-HBM3, mig: false }, { model: A30, mig: false }]";
    let Some(machine) = Machine::written(this_test!(), text) else { return };
    let hardware = machine.hardware();
    let before = hardware.survey().unwrap().gpus[0].gpu.minor;
    let steps = [
        Step::SetMigMode { enabled: true },
        create("4g.40gb", 0, 4, &["4g.40gb"]),
        create("3g.40gb", 4, 4, &["1c.3g.40gb"]),
    ];
    let report = take(&hardware, &steps);
    all_done(&report, 3);
    let mode = Outcome::Mode { enabled: true, pending: true, activation: Activation::Done };
    assert_eq!(report.done[0].outcome, mode);
    let survey = hardware.survey().unwrap().gpus.remove(0);
    assert_ne!(survey.gpu.minor, before);
    assert_eq!(survey.gpu.mig, MigMode::Known { enabled: true, pending: true });
    assert_eq!(survey.gpu.instances.len(), 2);
    let report = take(&hardware, &[Step::SetMigMode { enabled: false }]);
    let mode = Outcome::Mode { enabled: true, pending: false, activation: Activation::ClientsInTheWay };
    assert_eq!(report.done[0].outcome, mode);
}

#[test]
fn a_switch_that_the_driver_will_not_note_fails() {
    let Some(machine) = Machine::of(this_test!(), "not-mig-capable") else { return };
    let hardware = machine.hardware();
    let report = take(&hardware, &[Step::SetMigMode { enabled: true }]);
    assert_eq!(failure(&report).kind(), "NotSupported");
    assert!(
        failure(&report).to_string().starts_with("unable to enable MIG mode: nvmlDeviceSetMigMode failed on GPU 0")
    );
    machine.change(|world| world.permission = Permission::Monitor);
    let other = hardware.survey().unwrap().gpus[1].gpu.uuid.clone();
    let steps = [Step::SetMigMode { enabled: false }];
    let report = hardware.execute(&other, &steps, &mut |_| ControlFlow::Continue(()));
    assert_eq!(failure(&report).kind(), "NoPermission");
    assert!(failure(&report).to_string().contains("takes root"), "{}", failure(&report));
}

#[test]
fn who_may_only_look_changes_nothing() {
    let Some(machine) = Machine::written(this_test!(), HALVES) else { return };
    let hardware = machine.hardware();
    let survey = survey(&hardware);
    let cut = machine.cut(0);
    for permission in [Permission::Monitor, Permission::None] {
        machine.change(|world| world.permission = permission);
        for step in [destroy(&survey, 1), create("1g.5gb", 6, 1, &["1g.5gb"])] {
            let report = take(&hardware, &[step]);
            assert_eq!((failure(&report).kind(), failure(&report).changed_something()), ("NoPermission", false));
        }
    }
    assert_eq!(machine.cut(0), cut);
}

#[test]
fn a_gpu_that_falls_off_the_bus_ends_the_change() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let steps =
        [create("1g.5gb", 0, 1, &["1g.5gb"]), create("1g.5gb", 1, 1, &["1g.5gb"]), create("1g.5gb", 2, 1, &["1g.5gb"])];
    let mut started = 0;
    let report = hardware.execute(&first(&hardware), &steps, &mut |progress| {
        started += u32::from(matches!(progress, Progress::Starting { .. }));
        if started == 2 {
            machine.change(|world| world.gpus[0].lost = true);
        }
        ControlFlow::Continue(())
    });
    assert_eq!((report.done.len(), failure(&report).kind(), report.left.as_slice()), (1, "GpuIsLost", &steps[2..]));
    // In the middle of a step: what it made cannot be taken back, and is told.
    machine.change(|world| world.gpus[0].lost = false);
    machine.fail("nvmlGpuInstanceCreateComputeInstance", Some(1), "GPU_IS_LOST");
    machine.fail("nvmlGpuInstanceDestroy", None, "GPU_IS_LOST");
    let report = take(&hardware, &steps[1..]);
    assert_eq!((failure(&report).kind(), failure(&report).changed_something()), ("GpuIsLost", true));
}

#[test]
fn a_gpu_that_is_not_there_is_told() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let nobody = GpuUuid::new("GPU-nobody").unwrap();
    let steps = [Step::SetMigMode { enabled: true }];
    let report = machine.hardware().execute(&nobody, &steps, &mut |_| ControlFlow::Continue(()));
    assert_eq!(failure(&report).kind(), "NotFound");
    assert!(failure(&report).to_string().contains("GPU-nobody"));
}

#[test]
fn a_change_can_be_ended_between_two_steps() {
    let Some(machine) = Machine::written(this_test!(), EMPTY) else { return };
    let hardware = machine.hardware();
    let gpu = first(&hardware);
    let steps = [create("1g.5gb", 0, 1, &["1g.5gb"]), create("1g.5gb", 1, 1, &["1g.5gb"])];
    let run = |end_at: usize| {
        let mut heard = Vec::new();
        let report = hardware.execute(&gpu, &steps, &mut |progress| {
            heard.push(match progress {
                Progress::Starting { number, of, .. } => format!("{number}/{of}"),
                Progress::Done { step } => step.to_string(),
            });
            if heard.len() == end_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(report.failed.is_none());
        let there = machine.cut(0).len();
        let survey = survey(&hardware);
        take(&hardware, &survey.gpu.instances.iter().map(|one| destroy(&survey, one.id)).collect::<Vec<_>>());
        (heard, report.done.len(), report.left, report.interrupted, there)
    };
    let told = ["1/2", "+ create 1g.5gb at 0:1", "2/2", "+ create 1g.5gb at 1:1"].map(str::to_owned);
    assert_eq!(run(1), (told[..1].to_vec(), 0, steps.to_vec(), true, 0));
    assert_eq!(run(2), (told[..2].to_vec(), 1, steps[1..].to_vec(), true, 1));
    assert_eq!(run(3), (told[..3].to_vec(), 1, steps[1..].to_vec(), true, 1));
    // Nothing was left to end.
    assert_eq!(run(4), (told.to_vec(), 2, vec![], false, 2));
    assert_eq!(run(0), (told.to_vec(), 2, vec![], false, 2));
}
