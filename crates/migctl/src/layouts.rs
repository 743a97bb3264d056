//! Layout files: read, matched with the GPUs there are, and planned.

use std::path::PathBuf;

use mig_model::layout::{GpuIdentity, Layout, LayoutError, LayoutFile};
use mig_model::plan::{GpuWish, plan_gpu};
use mig_model::{Geometry, GpuSurvey, NodeSurvey, PlanError};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::misfit::{self, instance_name};
use crate::planned::Planned;
use crate::request::Target;
use crate::selection;
use crate::users::{Users, names};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Source {
    /// A layout file, in mig-parted's format (version: v1) or ours (version: mig-agent/v1); - reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Which of its layouts; may be left out where it has one
    #[arg(short, long, value_name = "NAME", requires = "file")]
    pub(crate) config: Option<String>,
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// As the user named it.
    file: String,
    layout: Layout,
}

impl Source {
    /// Reads the file, if one was named: before the lock is taken, since stdin may keep us waiting.
    pub(crate) fn read(&self) -> Result<Option<Chosen>, Failure> {
        let Some(path) = &self.file else { return Ok(None) };
        let file = path.display().to_string();
        let parsed = LayoutFile::parse(&files::read(path)?).map_err(|error| failure(&file, &error))?;
        let layout = parsed.select(self.config.as_deref()).map_err(|error| failure(&file, &error))?.clone();
        Ok(Some(Chosen { file, layout }))
    }
}

impl Chosen {
    /// What the layout wants of each GPU that it speaks of and that was chosen; never nothing.
    pub(crate) fn wishes<'s>(
        &self,
        survey: &'s NodeSurvey,
        context: &Context,
    ) -> Result<Vec<(&'s GpuSurvey, GpuWish)>, Failure> {
        let chosen = selection::to_read(&context.options.gpuid, survey)?;
        context.warn_of_unreadable(survey);
        let identities: Vec<GpuIdentity<'_>> = survey.gpus.iter().map(GpuIdentity::from).collect();
        let wishes = self.layout.resolve(&identities).map_err(|error| match error {
            LayoutError::NoSuchGpu { .. } => selection::with_unreadable(failure(&self.file, &error), survey),
            _ => failure(&self.file, &error),
        })?;
        let meant = wishes.into_iter().filter_map(|(position, wish)| Some((survey.gpus.get(position)?, wish)));
        let meant: Vec<(&GpuSurvey, GpuWish)> =
            meant.filter(|(gpu, _)| chosen.iter().any(|one| one.gpu.uuid == gpu.gpu.uuid)).collect();
        if meant.is_empty() {
            return Err(Failure::new(Exit::NotFound, "UnknownGpu", "the layout speaks of none of these GPUs"));
        }
        Ok(meant)
    }
}

fn failure(file: &str, error: &LayoutError) -> Failure {
    let (exit, kind, hint) = match error {
        LayoutError::Syntax(_) | LayoutError::TooLong => {
            (Exit::Usage, "BadLayout", "what a layout looks like: docs/migctl.md")
        }
        LayoutError::Parts { .. } => {
            (Exit::NotFound, "UnknownType", "which types there are: migctl list instance --compute")
        }
        LayoutError::Contradiction { .. } | LayoutError::RuledOut { .. } => {
            (Exit::Usage, "Contradiction", "each GPU can be cut in one way only; narrow one of the selectors")
        }
        LayoutError::Which(_) => (Exit::Usage, "WhichLayout", "choose one by --config"),
        LayoutError::Unknown { .. } => (Exit::NotFound, "UnknownLayout", "choose one of these by --config"),
        LayoutError::NoSuchGpu { .. } => (Exit::NotFound, "UnknownGpu", "which GPUs there are: migctl list gpu"),
    };
    Failure::new(exit, kind, format!("{file}: {error}")).hint(hint)
}

/// The way from what a GPU is to what it shall be.
pub(crate) fn plan<'s>(survey: &'s GpuSurvey, wish: &GpuWish, users: &Users) -> Planned<'s> {
    let label = format!("GPU {}", survey.gpu.index);
    let outcome = match &survey.gpu.fault {
        Some(fault) => Err(Failure::failed(fault.kind, format!("{label}: {}", fault.message))),
        None => match plan_gpu(survey, &users.in_use(survey), wish) {
            Ok(plan) => Ok(plan),
            Err(error) => Err(refusal(survey, &label, &error, users)),
        },
    };
    Planned { gpu: survey, label, pretended: false, outcome }
}

fn refusal(survey: &GpuSurvey, label: &str, error: &PlanError, users: &Users) -> Failure {
    let nothing = Geometry { memory_slices: 0, compute_slices: 0, profiles: Vec::new() };
    let geometry = survey.geometry.as_ref().unwrap_or(&nothing);
    // A layout replaces what is there: what would fit beside it is of no interest.
    let failure = misfit::failure(Target { label, geometry, now: &[] }, error);
    let PlanError::InTheWay { instances, .. } = error else { return failure };
    let in_the_way = survey.gpu.instances.iter().filter(|instance| instances.contains(&instance.id));
    in_the_way.fold(failure, |failure, instance| {
        let by = users.of_instance(survey, instance);
        if by.is_empty() {
            return failure;
        }
        failure.hint(format!("{} is used by {}", instance_name(instance), names(&by)))
    })
}
