use mig_model::{ComputeInstance, GpuInstance, GpuSurvey, GpuUuid, MigUuid, Placement, Profile};
use serde::Serialize;

use super::every;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::Table;
use crate::users::{User, Users, names};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    every: every::Args,
}

#[derive(Serialize)]
struct Answer<'s> {
    gpus: Vec<Cut<'s>>,
}

/// A GPU and how it is cut.
#[derive(Serialize)]
struct Cut<'s> {
    index: u32,
    uuid: &'s GpuUuid,
    name: &'s str,
    mig_enabled: bool,
    instances: Vec<Instance<'s>>,
}

#[derive(Serialize)]
struct Instance<'s> {
    id: u32,
    profile: &'s Profile,
    placement: Option<Placement>,
    users: Vec<User>,
    compute_instances: Vec<Compute<'s>>,
}

#[derive(Serialize)]
struct Compute<'s> {
    id: u32,
    profile: &'s Profile,
    uuid: &'s MigUuid,
    placement: Option<Placement>,
    users: Vec<User>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if args.every.all {
        return every::run(&args.every, context);
    }
    let node = context.node()?;
    let gpus = context.gpus_to_read(&node.survey)?;
    let users = Users::read(context);
    users.warn_if_unknown(context);
    let answer = Answer { gpus: gpus.into_iter().map(|gpu| cut(gpu, &users)).collect() };
    context.output.answer(&answer, text)
}

fn cut<'s>(survey: &'s GpuSurvey, users: &Users) -> Cut<'s> {
    let gpu = &survey.gpu;
    let compute = |instance: &'s GpuInstance, one: &'s ComputeInstance| Compute {
        id: one.id,
        profile: &one.profile,
        uuid: &one.uuid,
        placement: one.placement,
        users: users.of_compute(survey, instance, one),
    };
    let instance = |instance: &'s GpuInstance| Instance {
        id: instance.id,
        profile: &instance.profile,
        placement: instance.placement,
        users: users.of_instance(survey, instance),
        compute_instances: instance.compute_instances.iter().map(|one| compute(instance, one)).collect(),
    };
    Cut {
        index: gpu.index,
        uuid: &gpu.uuid,
        name: &gpu.name,
        mig_enabled: gpu.mig.is_enabled(),
        instances: gpu.instances.iter().map(instance).collect(),
    }
}

fn text(answer: &Answer<'_>) -> String {
    let mut table = Table::new(&["GPU", "GI", "CI", "TYPE", "PLACEMENT", "UUID", "USERS"]);
    let mut rows = 0;
    for gpu in &answer.gpus {
        for instance in &gpu.instances {
            let place = instance.placement.map(|at| at.to_string()).unwrap_or_default();
            let mut row = |compute: String, profile: &Profile, uuid: String, users: &[User]| {
                let (gpu, instance) = (gpu.index.to_string(), instance.id.to_string());
                table.row([gpu, instance, compute, profile.to_string(), place.clone(), uuid, names(users)]);
                rows += 1;
            };
            if instance.compute_instances.is_empty() {
                row(String::new(), instance.profile, String::new(), &instance.users);
            }
            for one in &instance.compute_instances {
                row(one.id.to_string(), one.profile, one.uuid.to_string(), &one.users);
            }
        }
    }
    if rows == 0 { "no instances\n".to_owned() } else { table.render() }
}
