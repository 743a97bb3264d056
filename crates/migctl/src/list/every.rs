//! `list config --all`: every way to fill a GPU.

use mig_model::plan::{Configuration, maximal_configurations};
use mig_model::{Geometry, Placement, Profile};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::{misfit, models};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Every set of instances to which none can be added
    #[arg(long)]
    pub(super) all: bool,

    /// Of a GPU model, without a GPU: a built-in name, or a file like those in models/
    #[arg(long, value_name = "NAME|FILE", requires = "all")]
    model: Option<String>,

    /// Use these types only, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', requires = "all")]
    profiles: Vec<Profile>,

    /// Only say how many there are
    #[arg(long, requires = "all")]
    count: bool,
}

#[derive(Serialize)]
struct Answer {
    name: String,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    configurations: Option<Vec<Vec<Placed>>>,
}

#[derive(Serialize)]
struct Placed {
    profile: Profile,
    placement: Placement,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let (name, geometry) = match &args.model {
        Some(model) => {
            let model = models::find_instead_of_gpus(model, context)?;
            (model.name, model.geometry)
        }
        None => of_gpu(context)?,
    };
    for profile in &args.profiles {
        if !geometry.profiles.iter().any(|known| known.profile == *profile) {
            return Err(misfit::unknown_type(&name, profile, &geometry));
        }
    }
    let found = maximal_configurations(&geometry, &args.profiles);
    let count = found.len();
    let listed = |Configuration(instances): Configuration| -> Vec<Placed> {
        instances.into_iter().map(|(profile, placement)| Placed { profile, placement }).collect()
    };
    let configurations = (!args.count).then(|| found.into_iter().map(listed).collect());
    context.output.answer(&Answer { name, count, configurations }, text)
}

/// What an instance can be cut into a driver tells only of those that there are, so GPUs of one kind may differ in it.
fn without_parts(geometry: &Geometry) -> Geometry {
    let mut whole = geometry.clone();
    whole.profiles.iter_mut().for_each(|profile| profile.compute_profiles.clear());
    whole
}

fn of_gpu(context: &Context) -> Result<(String, Geometry), Failure> {
    let node = context.node()?;
    let gpus = context.gpus_to_read(&node.survey)?;
    let mut offers: Vec<(&str, &Geometry)> = Vec::new();
    for gpu in gpus {
        let known = |own: &&Geometry| offers.iter().any(|(_, known)| without_parts(known) == without_parts(own));
        if let Some(geometry) = gpu.geometry.as_ref().filter(|own| !known(own)) {
            offers.push((&gpu.gpu.name, geometry));
        }
    }
    match offers.as_slice() {
        [(name, geometry)] => Ok(((*name).to_owned(), (*geometry).clone())),
        [] => Err(Failure::failed("NotSupported", "no GPU here can be cut").hint("name a model by --model")),
        _ => Err(Failure::new(Exit::Usage, "WhichGpu", "the GPUs here differ: say which by --gpuid")),
    }
}

/// A line each, and nothing else: for `sort`, `grep` and `wc -l`.
fn text(answer: &Answer) -> String {
    let Some(configurations) = &answer.configurations else { return format!("{}\n", answer.count) };
    let mut text = String::new();
    for configuration in configurations {
        let one = |placed: &Placed| format!("{}@{}", placed.profile, placed.placement.start);
        text.push_str(&configuration.iter().map(one).collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    text
}
