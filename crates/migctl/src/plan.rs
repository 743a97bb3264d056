use clap::ArgGroup;
use mig_model::{GpuSurvey, NodeSurvey, Step};

use crate::context::Context;
use crate::failure::Failure;
use crate::layouts::{self, Chosen, Source};
use crate::planned::{Answer, Planned, refuse, text};
use crate::request::{Request, Target, TypeName};
use crate::users::Users;
use crate::{mode, models, selection};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("what").required(true).args(["types", "file"]))]
pub(crate) struct Args {
    /// Instances to create beside those that are there, as create instance --type takes them: 3g.20gb 1g.5gb@6
    #[arg(value_name = "TYPES", value_delimiter = ',')]
    types: Vec<TypeName>,

    #[command(flatten)]
    source: Source,

    /// For a GPU of this model, and no GPU needed: a built-in name, or a file like those in models/
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,

    /// How many such GPUs there are; --gpuid means these then
    #[arg(long, value_name = "N", requires = "model", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    gpus: u32,

    /// Say which other placements would serve, and why they were not taken
    #[arg(long)]
    explain: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let layout = args.source.read()?;
    let (survey, users) = match &args.model {
        Some(name) => (models::find(name)?.machine(args.gpus)?, Users::none()),
        None => {
            let node =
                context.node().map_err(|failure| failure.hint("for a plan without a GPU name one by --model"))?;
            (node.survey, Users::read(context))
        }
    };
    users.warn_if_unknown(context);
    let planned = args.planned(layout.as_ref(), &survey, &users, context)?;
    context.output.answer(&Answer::new(&planned, args.explain), text)?;
    refuse(planned, context)
}

impl Args {
    fn planned<'s>(
        &self,
        layout: Option<&Chosen>,
        survey: &'s NodeSurvey,
        users: &Users,
        context: &Context,
    ) -> Result<Vec<Planned<'s>>, Failure> {
        if let Some(layout) = layout {
            let wishes = layout.wishes(survey, context)?;
            let plan = |(gpu, wish): (&'s GpuSurvey, _)| Planned {
                pretended: self.model.is_some(),
                ..layouts::plan(gpu, &wish, users)
            };
            return Ok(wishes.into_iter().map(plan).collect());
        }
        let gpus = context.gpus_to_read(survey)?;
        if gpus.is_empty() {
            return selection::to_change(&context.options.gpuid, survey).map(|_| Vec::new());
        }
        let request = Request { types: &self.types, within: None, bare: false };
        let plan = |gpu: &'s GpuSurvey| {
            let label = self.label(gpu.gpu.index, &gpu.gpu.name);
            let (geometry, off) = mode::geometry(gpu)?;
            let mut plan = request.plan(Target { label: &label, geometry, now: &gpu.gpu.instances })?;
            if off {
                plan.steps.insert(0, Step::SetMigMode { enabled: true });
            }
            Ok(plan)
        };
        let planned = |gpu: &'s GpuSurvey| {
            let label = self.label(gpu.gpu.index, &gpu.gpu.name);
            Planned { gpu, label, pretended: self.model.is_some(), outcome: plan(gpu) }
        };
        Ok(gpus.into_iter().map(planned).collect())
    }

    fn label(&self, index: u32, name: &str) -> String {
        if self.model.is_some() && self.gpus == 1 { name.to_owned() } else { format!("GPU {index}") }
    }
}
