use std::collections::BTreeMap;
use std::fmt::Write as _;

use mig_model::{Engines, Geometry, GpuSurvey, InstanceProfile, Placement, Profile};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::table::Table;
use crate::{mode, models};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also the types into which GPU instances can be cut (1c.3g.20gb)
    #[arg(long)]
    compute: bool,

    /// What a GPU model offers, without a GPU: a built-in name, or a file like those in models/
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    groups: Vec<Group>,
}

/// GPUs that offer the same.
#[derive(Serialize, PartialEq)]
struct Group {
    gpus: Vec<u32>,
    name: String,
    mig_enabled: bool,
    memory_slices: u32,
    compute_slices: u32,
    types: Vec<Type>,
}

#[derive(Serialize, PartialEq)]
struct Type {
    profile: Profile,
    id: u32,
    /// How many more the GPU takes now, where the driver says.
    free: Option<u32>,
    total: u32,
    compute_slices: u32,
    memory_mib: u64,
    multiprocessors: u32,
    engines: Engines,
    placements: Vec<Placement>,
    compute_types: Vec<ComputeType>,
}

#[derive(Serialize, PartialEq)]
struct ComputeType {
    profile: Profile,
    id: u32,
    /// How many one GPU instance takes.
    total: u32,
    compute_slices: u32,
    multiprocessors: u32,
    /// In compute slices of the GPU instance.
    placements: Vec<Placement>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let groups = match &args.model {
        Some(name) => {
            let model = models::find_instead_of_gpus(name, context)?;
            vec![group(&model.geometry, model.name, false, &BTreeMap::new())]
        }
        None => groups(context)?,
    };
    let compute = args.compute;
    context.output.answer(&Answer { groups }, |answer| text(answer, compute))
}

fn groups(context: &Context) -> Result<Vec<Group>, Failure> {
    let node = context.node()?;
    let gpus = context.gpus_to_read(&node.survey)?;
    let mut groups: Vec<Group> = Vec::new();
    for GpuSurvey { gpu, geometry, remaining, .. } in gpus {
        let Some(geometry) = geometry else {
            if gpu.fault.is_none() {
                context.output.warn(&format!("GPU {} is left out: {}", gpu.index, mode::why_no_geometry(gpu)));
            }
            continue;
        };
        let mut own = group(geometry, gpu.name.clone(), gpu.mig.is_enabled(), remaining);
        let same = groups.iter_mut().find(|known| {
            own.gpus.clone_from(&known.gpus);
            **known == own
        });
        match same {
            Some(known) => known.gpus.push(gpu.index),
            None => {
                own.gpus = vec![gpu.index];
                groups.push(own);
            }
        }
    }
    Ok(groups)
}

fn group(geometry: &Geometry, name: String, mig_enabled: bool, remaining: &BTreeMap<u32, u32>) -> Group {
    Group {
        gpus: Vec::new(),
        name,
        mig_enabled,
        memory_slices: geometry.memory_slices,
        compute_slices: geometry.compute_slices,
        types: geometry.profiles.iter().map(|profile| instance_type(geometry, profile, remaining)).collect(),
    }
}

fn instance_type(geometry: &Geometry, profile: &InstanceProfile, remaining: &BTreeMap<u32, u32>) -> Type {
    let compute_types = geometry.compute_profiles(profile);
    Type {
        profile: profile.profile.clone(),
        id: profile.id,
        free: remaining.get(&profile.id).copied(),
        total: profile.max_instances,
        compute_slices: profile.slices,
        memory_mib: profile.memory_mib,
        multiprocessors: profile.multiprocessors,
        engines: profile.engines,
        placements: profile.placements.clone(),
        compute_types: compute_types
            .iter()
            .map(|part| ComputeType {
                profile: part.profile.clone(),
                id: part.id,
                total: part.max_instances,
                compute_slices: part.slices,
                multiprocessors: part.multiprocessors,
                placements: part.placements.clone(),
            })
            .collect(),
    }
}

fn text(answer: &Answer, compute: bool) -> String {
    let mut text = String::new();
    for (position, group) in answer.groups.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        let gpus: Vec<String> = group.gpus.iter().map(u32::to_string).collect();
        let which = match gpus.as_slice() {
            [] => String::new(),
            gpus => format!("GPU {}: ", gpus.join(", ")),
        };
        let off = if gpus.is_empty() || group.mig_enabled { "" } else { "; MIG is off" };
        let _ = writeln!(
            text,
            "{which}{}, {} memory slices, {} compute slices{off}",
            group.name, group.memory_slices, group.compute_slices
        );
        text.push_str(&table(group, compute).render());
    }
    text
}

fn table(group: &Group, compute: bool) -> Table {
    let mut table =
        Table::new(&["TYPE", "ID", "FREE", "MEMORY", "SMS", "CE", "DEC", "ENC", "JPG", "OFA", "PLACEMENTS"]);
    for one in &group.types {
        let Engines { copy, decoder, encoder, jpeg, ofa } = one.engines;
        table.row([
            one.profile.to_string(),
            one.id.to_string(),
            one.free.map_or_else(|| format!("-/{}", one.total), |free| format!("{free}/{}", one.total)),
            gibibytes(one.memory_mib),
            one.multiprocessors.to_string(),
            copy.to_string(),
            decoder.to_string(),
            encoder.to_string(),
            jpeg.to_string(),
            ofa.to_string(),
            starts(&one.placements),
        ]);
        for part in one.compute_types.iter().filter(|part| compute && part.profile != one.profile) {
            table.row([
                format!("  {}", part.profile),
                part.id.to_string(),
                format!("-/{}", part.total),
                String::new(),
                part.multiprocessors.to_string(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                starts(&part.placements),
            ]);
        }
    }
    table
}

/// `4.75 GiB`.
pub(crate) fn gibibytes(mebibytes: u64) -> String {
    format!("{:.2} GiB", mebibytes as f64 / 1024.0)
}

/// `{0,4}:4`, as NVIDIA's tools write it.
fn starts(placements: &[Placement]) -> String {
    let starts: Vec<String> = placements.iter().map(|at| at.start.to_string()).collect();
    let size = placements.first().map_or(0, |at| at.size);
    format!("{{{}}}:{size}", starts.join(","))
}
