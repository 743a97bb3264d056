//! Each GPU at a glance: how it is cut, who uses it, and what still fits.

mod cells;
mod draw;
mod faults;

use mig_model::plan::place;
use mig_model::{
    ComputeInstance, Driver, Fault, GpuInstance, GpuSurvey, GpuUuid, MigUuid, Placement, Profile, UnreadableGpu,
};
use serde::Serialize;

use crate::context::{Context, Patience};
use crate::failure::Failure;
use crate::list::Mig;
use crate::paper::Paper;
use crate::selection::{self, Selector};
use crate::status::faults::{Faults, Gone, Wrong};
use crate::users::{User, Users};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List every instance with its users, however many GPUs there are; else this is for up to four
    #[arg(long)]
    details: bool,

    /// Draw with ASCII characters only, as in a locale that is not UTF-8
    #[arg(long)]
    ascii: bool,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Serialize)]
struct Answer<'s> {
    driver: &'s Driver,
    /// False where a kubelet is there and does not say which pods hold what: who is not in a list of users may be one.
    pods_known: bool,
    gpus: Vec<Cut<'s>>,
    unreadable: &'s [UnreadableGpu],
    /// What is on no GPU any more, and may be held by a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Gone>,
}

/// A GPU and how it is cut.
#[derive(Serialize)]
struct Cut<'s> {
    index: u32,
    uuid: &'s GpuUuid,
    name: &'s str,
    pci_address: Option<&'s str>,
    memory_bytes: Option<u64>,
    mig: Mig,
    /// How many there are in all, where the driver says how it can be cut.
    memory_slices: Option<u32>,
    compute_slices: Option<u32>,
    /// By placement.
    instances: Vec<Instance<'s>>,
    /// With MIG on, and where the driver says how it is cut.
    uncut: Option<Uncut>,
    /// Everybody who uses it or a part of it.
    users: Vec<User>,
    fault: Option<&'s Fault>,
    /// Why no pod is given any of it though it answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unhealthy: Vec<Wrong>,
    /// What is said where nobody is known to use it.
    #[serde(skip)]
    idle: &'static str,
}

#[derive(Serialize)]
struct Instance<'s> {
    id: u32,
    profile: &'s Profile,
    placement: Option<Placement>,
    compute_slices: u8,
    users: Vec<User>,
    compute_instances: Vec<Compute<'s>>,
}

#[derive(Serialize)]
struct Compute<'s> {
    id: u32,
    profile: &'s Profile,
    uuid: &'s MigUuid,
    /// In compute slices of its GPU instance.
    placement: Option<Placement>,
    compute_slices: u8,
    users: Vec<User>,
    /// Why no pod is given it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unhealthy: Vec<Wrong>,
}

/// What is in no instance.
#[derive(Serialize)]
struct Uncut {
    /// Stretches of memory slices.
    memory: Vec<Placement>,
    compute_slices: u32,
    /// What still fits: of each type so many, if nothing else were added.
    room: Vec<Fitting>,
}

#[derive(Serialize)]
struct Fitting {
    profile: Profile,
    count: u32,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let known = Faults::read(&context.options);
    let asked = context.patiently(args.patience.timeout, |own| own.node().map(|node| node.survey));
    let survey = match asked {
        Some(survey) => survey?,
        None => {
            let failure = args.patience.exhausted();
            return Err(known.summary().into_iter().fold(failure, Failure::hint));
        }
    };
    let gpus = selection::to_read(&context.options.gpuid, &survey)?;
    let users = Users::read(context);
    users.warn_if_unknown(context);
    let named = context.options.gpuid.iter().any(|selector| *selector != Selector::All);
    let unreadable = if named { &[] } else { survey.unreadable.as_slice() };
    let gone = if named { Vec::new() } else { known.gone(&survey) };
    let gpus = gpus.into_iter().map(|gpu| cut(gpu, &users, &known)).collect();
    let answer = Answer { driver: &survey.driver, pods_known: users.are_known(), gpus, unreadable, gone };
    let paper = Paper::new(context, args.ascii);
    context.output.drawing(&answer, |answer| draw::draw(&paper, answer, args.details))
}

fn cut<'s>(survey: &'s GpuSurvey, users: &Users, known: &Faults) -> Cut<'s> {
    let GpuSurvey { gpu, geometry, .. } = survey;
    let instance = |instance: &'s GpuInstance| Instance {
        id: instance.id,
        profile: &instance.profile,
        placement: instance.placement,
        compute_slices: instance.profile.slices(),
        users: users.of_instance(survey, instance),
        compute_instances: instance
            .compute_instances
            .iter()
            .map(|one| compute(survey, instance, one, users, known))
            .collect(),
    };
    let mut unhealthy = known.of_gpu(gpu);
    // The driver says so itself.
    unhealthy.retain(|wrong| gpu.fault.as_ref().is_none_or(|fault| *wrong != Wrong::from(fault)));
    Cut {
        index: gpu.index,
        uuid: &gpu.uuid,
        name: &gpu.name,
        pci_address: gpu.pci_address.as_deref(),
        memory_bytes: survey.memory_bytes,
        mig: gpu.mig.into(),
        memory_slices: geometry.as_ref().map(|geometry| geometry.memory_slices),
        compute_slices: geometry.as_ref().map(|geometry| geometry.compute_slices),
        instances: gpu.instances.iter().map(instance).collect(),
        uncut: uncut(survey),
        users: users.of_gpu(survey),
        fault: gpu.fault.as_ref(),
        unhealthy,
        idle: if users.are_known() { "free" } else { "free?" },
    }
}

fn compute<'s>(
    survey: &GpuSurvey,
    instance: &GpuInstance,
    compute: &'s ComputeInstance,
    users: &Users,
    known: &Faults,
) -> Compute<'s> {
    Compute {
        id: compute.id,
        profile: &compute.profile,
        uuid: &compute.uuid,
        placement: compute.placement,
        compute_slices: compute.profile.compute_slices(),
        users: users.of_compute(survey, instance, compute),
        unhealthy: known.of_slice(&survey.gpu, &compute.uuid),
    }
}

/// None of a GPU of which not everything is known: what looks free need not be.
fn uncut(survey: &GpuSurvey) -> Option<Uncut> {
    let GpuSurvey { gpu, geometry: Some(geometry), .. } = survey else { return None };
    if gpu.fault.is_some() || !gpu.mig.is_enabled() {
        return None;
    }
    let plan = place(geometry, &gpu.instances, &[]).ok()?;
    let taken: u32 = gpu.instances.iter().map(|instance| u32::from(instance.profile.slices())).sum();
    let fitting = |(profile, count)| Fitting { profile, count };
    Some(Uncut {
        memory: gaps(gpu.instances.iter().filter_map(|instance| instance.placement), geometry.memory_slices),
        compute_slices: geometry.compute_slices.saturating_sub(taken),
        room: plan.room.0.into_iter().filter(|(_, count)| *count > 0).map(fitting).collect(),
    })
}

/// The stretches that are in none of these.
fn gaps(taken: impl Iterator<Item = Placement>, slices: u32) -> Vec<Placement> {
    let mut taken: Vec<Placement> = taken.collect();
    taken.sort();
    let mut gaps = Vec::new();
    let mut next = 0;
    for at in taken.into_iter().chain([Placement { start: slices, size: 0 }]) {
        if at.start > next {
            gaps.push(Placement { start: next, size: at.start - next });
        }
        next = next.max(at.end());
    }
    gaps
}
