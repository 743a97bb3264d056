use clap::{ArgGroup, Subcommand};
use std::collections::BTreeSet;

use mig_model::{ComputeInstance, GpuInstance, GpuSurvey, Step};

use crate::change::{Account, Change, carry_out};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::misfit::{instance_name, unknown_instance};
use crate::selection;
use crate::users::{User, Users, names};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// GPU instances with their compute instances, or single compute instances
    #[command(visible_alias = "instances")]
    Instance(InstanceArgs),
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("which").required(true).args(["instanceid", "uuid", "all"]))]
struct InstanceArgs {
    /// The GPU instances of these ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    instanceid: Vec<u32>,

    /// Of that GPU instance only the compute instances of these ids; the GPU instance stays
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "instanceid")]
    computeid: Vec<u32>,

    /// The MIG devices of these UUIDs, on whichever GPU; a GPU instance that is left with none goes, too
    #[arg(long, value_name = "MIG-UUIDS", value_delimiter = ',')]
    uuid: Vec<String>,

    /// Every instance of the GPU
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let What::Instance(args) = &args.what;
    if args.instanceid.len() > 1 && !args.computeid.is_empty() {
        return Err(Failure::usage("--computeid is for one GPU instance: give one --instanceid"));
    }
    let _lock = context.lock("destroy instance")?;
    let node = context.node()?;
    let gpus = if args.uuid.is_empty() || !context.options.gpuid.is_empty() {
        selection::to_change(&context.options.gpuid, &node.survey)?
    } else {
        node.survey.gpus.iter().collect()
    };
    let changes = if args.uuid.is_empty() {
        gpus.into_iter().map(|gpu| args.change(gpu)).collect::<Result<Vec<_>, Failure>>()?
    } else {
        of_uuids(&args.uuid, &gpus)?
    };
    if changes.iter().any(|change| !change.steps.is_empty()) {
        let users = Users::read(context);
        users.refuse_if_unknown()?;
        for change in &changes {
            refuse_if_in_use(&users, change.gpu, &change.steps)?;
        }
    }
    carry_out(context, &node.hardware, &changes)?.tell(context, text)
}

impl InstanceArgs {
    fn change<'s>(&self, survey: &'s GpuSurvey) -> Result<Change<'s>, Failure> {
        let instances = &survey.gpu.instances;
        let label = format!("GPU {}", survey.gpu.index);
        let find = |id: &u32| {
            instances.iter().find(|one| one.id == *id).ok_or_else(|| unknown_instance(&label, *id, instances))
        };
        let steps = if self.all {
            instances.iter().map(whole).collect()
        } else if let ([id], [_, ..]) = (self.instanceid.as_slice(), self.computeid.as_slice()) {
            let instance = find(id)?;
            once(&self.computeid).into_iter().map(|id| part(&label, instance, id)).collect::<Result<_, _>>()?
        } else {
            once(&self.instanceid).iter().map(|id| find(id).map(whole)).collect::<Result<_, _>>()?
        };
        Ok(Change { gpu: survey, steps })
    }
}

/// What is named twice goes once.
fn once(ids: &[u32]) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

/// The step that destroys a GPU instance with all that is in it.
pub(crate) fn whole(instance: &GpuInstance) -> Step {
    Step::DestroyGpuInstance {
        gpu_instance: instance.id,
        profile: instance.profile.clone(),
        placement: instance.placement,
        compute_instances: instance.compute_instances.iter().map(|one| (one.id, one.uuid.clone())).collect(),
    }
}

fn part(label: &str, instance: &GpuInstance, id: u32) -> Result<Step, Failure> {
    let Some(one) = instance.compute_instances.iter().find(|one| one.id == id) else {
        let message = format!("{label}: {} has no compute instance {id}", instance_name(instance));
        let failure = Failure::new(Exit::NotFound, "UnknownInstance", message);
        let known = |one: &ComputeInstance| format!("it has {} ({}, {})", one.id, one.profile, one.uuid);
        return Err(instance.compute_instances.iter().fold(failure, |failure, one| failure.hint(known(one))));
    };
    Ok(Step::DestroyComputeInstance {
        gpu_instance: instance.id,
        compute_instance: one.id,
        profile: one.profile.clone(),
        uuid: one.uuid.clone(),
    })
}

fn of_uuids<'s>(uuids: &[String], gpus: &[&'s GpuSurvey]) -> Result<Vec<Change<'s>>, Failure> {
    let exists = |uuid: &String| {
        let mut all = gpus.iter().flat_map(|gpu| &gpu.gpu.instances).flat_map(|instance| &instance.compute_instances);
        all.any(|one| one.uuid.as_str() == uuid)
    };
    if let Some(unknown) = uuids.iter().find(|uuid| !exists(uuid)) {
        let message = format!("there is no MIG device {unknown}");
        return Err(
            Failure::new(Exit::NotFound, "UnknownInstance", message).hint("which there are: migctl list config")
        );
    }
    let mut changes = Vec::new();
    for survey in gpus {
        let mut steps = Vec::new();
        for instance in &survey.gpu.instances {
            let meant = |one: &&ComputeInstance| uuids.iter().any(|uuid| uuid == one.uuid.as_str());
            let goes: Vec<&ComputeInstance> = instance.compute_instances.iter().filter(meant).collect();
            if !goes.is_empty() && goes.len() == instance.compute_instances.len() {
                steps.push(whole(instance));
            } else {
                let label = format!("GPU {}", survey.gpu.index);
                for one in goes {
                    steps.push(part(&label, instance, one.id)?);
                }
            }
        }
        if !steps.is_empty() {
            changes.push(Change { gpu: survey, steps });
        }
    }
    Ok(changes)
}

/// Names everybody who uses what the steps destroy.
pub(crate) fn refuse_if_in_use(users: &Users, survey: &GpuSurvey, steps: &[Step]) -> Result<(), Failure> {
    let destroys = |step: &Step| matches!(step, Step::DestroyGpuInstance { .. } | Step::DestroyComputeInstance { .. });
    if !survey.processes_known && steps.iter().any(destroys) {
        let message = format!("GPU {}: the driver does not let you see which processes run on it", survey.gpu.index);
        return Err(Failure::new(Exit::NotPermitted, "UsersUnknown", message).hint("nothing was changed; run as root"));
    }
    let mut used: Vec<(String, Vec<User>)> = Vec::new();
    for step in steps {
        let id = match step {
            Step::DestroyGpuInstance { gpu_instance, .. } | Step::DestroyComputeInstance { gpu_instance, .. } => {
                gpu_instance
            }
            _ => continue,
        };
        let Some(instance) = survey.gpu.instances.iter().find(|one| one.id == *id) else { continue };
        let (name, by) = match step {
            Step::DestroyComputeInstance { compute_instance, profile, .. } => {
                let one = instance.compute_instances.iter().find(|one| one.id == *compute_instance);
                let by = one.map(|one| users.of_compute(survey, instance, one)).unwrap_or_default();
                (format!("compute instance {compute_instance} of GPU instance {id} ({profile})"), by)
            }
            _ => (instance_name(instance), users.of_instance(survey, instance)),
        };
        if !by.is_empty() {
            used.push((name, by));
        }
    }
    in_use(survey, &used)
}

fn in_use(survey: &GpuSurvey, used: &[(String, Vec<User>)]) -> Result<(), Failure> {
    let index = survey.gpu.index;
    let message = match used {
        [] => return Ok(()),
        [(name, by)] => format!("GPU {index}: {name} is in use by {}", names(by)),
        all => format!("GPU {index}: {} instances are in use", all.len()),
    };
    let mut failure = Failure::new(Exit::InUse, "InUse", message);
    if used.len() > 1 {
        for (name, by) in used {
            failure = failure.hint(format!("{name}: {}", names(by)));
        }
    }
    Err(failure.hint("nothing was changed; end what uses it, and try again"))
}

fn text(account: &Account) -> String {
    if account.is_empty() {
        return "nothing to destroy\n".to_owned();
    }
    if account.dry_run {
        return account.lines_left();
    }
    account.lines_done()
}
