use clap::Subcommand;
use mig_model::{ComputeInstance, GpuInstance, GpuSurvey, NodeSurvey, Placement, Profile, Step};

use crate::change::{Account, Change, DoneStep, carry_out};
use crate::context::Context;
use crate::failure::Failure;
use crate::mode;
use crate::request::{MOST, Request, Target, TypeName};
use crate::selection;
use crate::table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// GPU instances, each with a compute instance, or compute instances in GPU instances that are there
    #[command(visible_alias = "instances")]
    Instance(InstanceArgs),
}

#[derive(Debug, clap::Args)]
struct InstanceArgs {
    /// What to create, several separated by commas: 3g.20gb; 3g.20gb@4 (at memory slice 4); 19 (the driver's id of a type);
    /// 1c.3g.20gb (a compute instance, in a GPU instance with room, else in a new one)
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',', required = true)]
    types: Vec<TypeName>,

    /// At which memory slice it shall begin; by default where most can be created afterwards
    #[arg(long, value_name = "START")]
    placement: Option<u32>,

    /// So many of each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,

    /// Create the compute instances in the GPU instance of this id
    #[arg(long = "in", value_name = "ID", conflicts_with_all = ["placement", "no_compute"])]
    within: Option<u32>,

    /// Create GPU instances without compute instances
    #[arg(long)]
    no_compute: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let What::Instance(args) = &args.what;
    let types = args.types()?;
    let request = Request { types: &types, within: args.within, bare: args.no_compute };
    let _lock = context.lock("create instance")?;
    let node = context.node()?;
    let gpus = selection::to_change(&context.options.gpuid, &node.survey)?;
    // All of it is planned before any of it is done.
    let changes = gpus.into_iter().map(|gpu| change(&request, gpu)).collect::<Result<Vec<_>, Failure>>()?;
    carry_out(context, &node.hardware, &changes)?.tell(context, |account| text(account, &node.survey))
}

impl InstanceArgs {
    fn types(&self) -> Result<Vec<TypeName>, Failure> {
        if self.placement.is_some() && (self.types.len() > 1 || self.count > 1) {
            return Err(Failure::usage("--placement is for one instance")
                .hint("for several, write each with its own place: --type 3g.20gb@4,1g.5gb@0"));
        }
        let mut types = Vec::new();
        for name in &self.types {
            if name.start.is_some() && (self.placement.is_some() || self.count > 1) {
                return Err(Failure::usage(format!("{name} has a place already: leave out --placement and --count")));
            }
            let mut name = name.clone();
            name.start = name.start.or(self.placement);
            types.extend((0..self.count).map(|_| name.clone()));
        }
        Ok(types)
    }
}

fn change<'s>(request: &Request<'_>, gpu: &'s GpuSurvey) -> Result<Change<'s>, Failure> {
    let geometry = mode::geometry_in_force(gpu)?;
    let label = format!("GPU {}", gpu.gpu.index);
    let plan = request.plan(Target { label: &label, geometry, now: &gpu.gpu.instances })?;
    Ok(Change { gpu, steps: plan.steps })
}

fn text(account: &Account, survey: &NodeSurvey) -> String {
    if account.dry_run {
        return account.lines_left();
    }
    let mut table = Table::new(&["GPU", "GI", "CI", "TYPE", "PLACEMENT", "UUID"]);
    let mut rows = 0;
    for gpu in &account.gpus {
        for done in &gpu.done {
            rows += row(&mut table, gpu.index, done, survey);
        }
    }
    if rows == 0 { String::new() } else { table.render() }
}

fn row(table: &mut Table, gpu: u32, done: &DoneStep, before: &NodeSurvey) -> u32 {
    let mut add = |id: u32, at: Option<Placement>, profile: &Profile, compute: Option<&ComputeInstance>| {
        table.row([
            gpu.to_string(),
            id.to_string(),
            compute.map(|one| one.id.to_string()).unwrap_or_default(),
            profile.to_string(),
            at.map(|at| at.to_string()).unwrap_or_default(),
            compute.map(|one| one.uuid.to_string()).unwrap_or_default(),
        ]);
    };
    match done {
        DoneStep { created: Some(GpuInstance { id, profile, placement, compute_instances }), .. } => {
            if compute_instances.is_empty() {
                add(*id, *placement, profile, None);
            }
            for one in compute_instances {
                add(*id, *placement, &one.profile, Some(one));
            }
            1
        }
        DoneStep { created_compute: Some(one), step: Step::CreateComputeInstance { gpu_instance, .. }, .. } => {
            let instances = before.gpus.iter().filter(|one| one.gpu.index == gpu).flat_map(|one| &one.gpu.instances);
            let host = instances.into_iter().find(|instance| instance.id == *gpu_instance);
            add(*gpu_instance, host.and_then(|host| host.placement), &one.profile, Some(one));
            1
        }
        _ => 0,
    }
}
