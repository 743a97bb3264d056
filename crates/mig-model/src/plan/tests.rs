//! The planner against a brute force that shares nothing with it but the description of the GPU.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;
use crate::geometry::{Engines, Geometry, InstanceProfile};
use crate::identity::MigUuid;
use crate::inventory::ComputeInstance;
use crate::model::Model;

mod brute;
mod cases;
mod parts;

fn models() -> Vec<(String, Geometry)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let mut models: Vec<(String, Geometry)> = folder
        .read_dir()
        .unwrap()
        .filter_map(|file| {
            let path = file.unwrap().path();
            let model = Model::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            Some((path.file_stem().unwrap().to_string_lossy().into_owned(), model.geometry?))
        })
        .collect();
    models.sort_by(|a, b| a.0.cmp(&b.0));
    models
}

fn model(name: &str) -> Geometry {
    models().into_iter().find(|(known, _)| known == name).unwrap().1
}

fn wanted(text: &str) -> WantedInstance {
    match text.split_once('@') {
        None => WantedInstance::whole(text.parse().unwrap()),
        Some((name, start)) => {
            WantedInstance { start: Some(start.parse().unwrap()), ..WantedInstance::whole(name.parse().unwrap()) }
        }
    }
}

fn all_wanted(texts: &[&str]) -> Vec<WantedInstance> {
    texts.iter().map(|text| wanted(text)).collect()
}

/// An instance that is there, as `3g.20gb@4`, with one compute instance.
fn there(geometry: &Geometry, id: u32, text: &str) -> GpuInstance {
    let wish = wanted(text);
    let known = geometry.find(&wish.profile).unwrap();
    let placement = known.placements.iter().copied().find(|at| Some(at.start) == wish.start).unwrap();
    let one = compute(id, 0, &wish.profile.to_string(), 0, known.slices);
    GpuInstance { id, profile: wish.profile, placement: Some(placement), compute_instances: vec![one] }
}

fn compute(instance: u32, id: u32, profile: &str, start: u32, size: u32) -> ComputeInstance {
    let uuid = MigUuid::new(format!("MIG-{instance:08}-0000-0000-0000-{id:012}")).unwrap();
    ComputeInstance {
        fault: None,
        id,
        profile: profile.parse().unwrap(),
        uuid,
        index: None,
        placement: Some(Placement { start, size }),
    }
}

fn cut(geometry: &Geometry, texts: &[&str]) -> Vec<GpuInstance> {
    (1..).zip(texts).map(|(id, text)| there(geometry, id, text)).collect()
}

fn using(ids: &[u32]) -> InUse {
    let mut in_use = InUse::default();
    ids.iter().for_each(|id| in_use.insert(*id, None));
    in_use
}

/// What is there after the steps; fails where a step cannot be done.
fn after(geometry: &Geometry, now: &[GpuInstance], steps: &[Step]) -> Vec<(Profile, Placement)> {
    let mut there: Vec<(u32, Profile, Placement)> =
        now.iter().map(|one| (one.id, one.profile.clone(), one.placement.unwrap())).collect();
    for step in steps {
        match step {
            Step::DestroyGpuInstance { gpu_instance, .. } => {
                let position = there.iter().position(|(id, _, _)| id == gpu_instance).expect("it is there");
                there.remove(position);
            }
            Step::CreateGpuInstance { profile, placement, .. } => {
                let mut together: Vec<(Profile, Placement)> =
                    there.iter().map(|(_, profile, at)| (profile.clone(), *at)).collect();
                together.push((profile.clone(), *placement));
                assert!(brute::legal(geometry, &together), "{step}: {together:?}");
                there.push((1000, profile.clone(), *placement));
            }
            other => panic!("{other}"),
        }
    }
    let mut there: Vec<(Profile, Placement)> = there.into_iter().map(|(_, profile, at)| (profile, at)).collect();
    there.sort();
    there
}

fn names(instances: &[(Profile, Placement)]) -> Vec<String> {
    let mut names: Vec<String> = instances.iter().map(|(profile, _)| profile.to_string()).collect();
    names.sort();
    names
}
