//! Scenes: which are accepted, which are refused and how that is said, and what is filled in.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::{fs, path::PathBuf};

use common::{repository, run, scene};
use fake_nvml::load;

fn files(folder: &str) -> Vec<PathBuf> {
    let files: Vec<PathBuf> =
        fs::read_dir(repository().join(folder)).unwrap().map(|file| file.unwrap().path()).collect();
    files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "yaml")).collect()
}

#[test]
fn every_scene_is_accepted() {
    for file in files("tests/scenes") {
        load(&file, 1).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_broken_scene_is_refused_with_its_line_and_reason() {
    for file in files("tests/scenes/broken") {
        let text = fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().trim_start_matches("# ").trim_end();
        let (line, reason) = expected.split_once(": ").unwrap_or((expected.trim_end_matches(':'), ""));
        let said = load(&file, 1).err().unwrap_or_else(|| panic!("{} was accepted", file.display())).to_string();
        assert!(said.contains(&format!("{}: {line}: ", file.display())), "{said}");
        assert!(said.contains(reason), "{said}\nexpected: {reason}");
        assert!(!said.contains('\n'), "more than a line: {said}");
    }
}

#[test]
fn the_command_says_the_same_and_exits_with_2() {
    let output = run(&["check".into(), scene("broken/overlap")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.ends_with("line 6: 2g.10gb at 2 overlaps 3g.20gb at 0\n"), "{said}");
    assert_eq!(run(&["check".into(), scene("demo")]).status.code(), Some(0));
    assert_eq!(run(&["check", "/nowhere.yaml"]).status.code(), Some(2));
}

#[test]
fn gpu_instances_are_numbered_as_a_driver_does() {
    let world = load(&scene("demo"), 1).unwrap();
    let ids = |gpu: usize| world.gpus[gpu].instances.iter().map(|gi| (gi.id, gi.start)).collect::<Vec<_>>();
    assert_eq!(ids(0), [(1, 4), (5, 0), (13, 2), (14, 3)]);
    assert_eq!(ids(1), [(7, 4), (8, 5), (9, 6), (11, 0), (12, 1), (13, 2), (14, 3)]);
}

#[test]
fn sizes_of_every_model_get_ids_of_their_range() {
    for name in ["a30", "a100-mixed", "h100", "h200", "rtx-pro-6000", "compute-instances"] {
        let world = load(&scene(name), 1).unwrap();
        for gpu in &world.gpus {
            let Some(mig) = &world.models[gpu.model].mig else { continue };
            for instance in &gpu.instances {
                let size = mig.profiles[instance.profile].placements.size;
                let range = match mig.memory_slices / size {
                    1 => 0..=0,
                    2 => 1..=2,
                    4 => 3..=6,
                    _ => 7..=14,
                };
                assert!(range.contains(&instance.id), "{name}: id {} for size {size}", instance.id);
            }
        }
    }
}

#[test]
fn what_a_scene_leaves_out_is_the_same_every_time_and_distinct() {
    let uuids = || {
        let world = load(&scene("eight-by-seven"), 1).unwrap();
        let slices =
            world.gpus.iter().flat_map(|gpu| &gpu.instances).flat_map(|gi| &gi.compute).map(|ci| ci.uuid.clone());
        slices.chain(world.gpus.iter().map(|gpu| gpu.uuid.clone())).collect::<Vec<_>>()
    };
    let mut first = uuids();
    assert_eq!(first, uuids());
    first.sort();
    first.dedup();
    assert_eq!(first.len(), 8 * 7 + 8);
}

#[test]
fn a_model_may_be_a_file_beside_the_scene() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(repository().join("models/A30.yaml"), folder.path().join("mine.yaml")).unwrap();
    let path = folder.path().join("scene.yaml");
    fs::write(&path, "gpus: [{ model: mine.yaml, instances: [{ profile: 4g.24gb }] }]").unwrap();
    assert_eq!(load(&path, 1).unwrap().models[0].name, "NVIDIA A30");
}

#[test]
fn models_are_consistent() {
    for file in files("models") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scene.yaml");
        fs::write(&path, format!("gpus: [{{ model: {} }}]", file.canonicalize().unwrap().display())).unwrap();
        let world = load(&path, 1).unwrap_or_else(|error| panic!("{error}"));
        let Some(mig) = &world.models[0].mig else { continue };
        for profile in &mig.profiles {
            let places = &profile.placements;
            assert!(places.starts.iter().all(|start| start + places.size <= mig.memory_slices), "{}", profile.name);
            assert!(profile.memory_mb * 1024 * 1024 <= world.models[0].memory.total, "{}", profile.name);
            let whole = profile.compute_profiles.last().unwrap();
            assert_eq!((&whole.name, whole.slices), (&profile.name, profile.slices));
            assert_eq!(whole.multiprocessors, profile.multiprocessors);
            for (field, count) in [("index", 0), ("id", 0)].map(|(field, _)| {
                let same = |other: &&fake_nvml::Profile| {
                    if field == "index" { other.index == profile.index } else { other.id == profile.id }
                };
                (field, mig.profiles.iter().filter(same).count())
            }) {
                assert_eq!(count, 1, "{}: {field} is not its own", profile.name);
            }
        }
    }
}
