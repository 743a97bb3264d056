use clap::ArgGroup;
use mig_model::plan::GpuWish;
use mig_model::{GpuSurvey, Step};

use crate::change::{Account, Change, carry_out};
use crate::context::Context;
use crate::failure::Failure;
use crate::layouts::{self, Source};
use crate::planned::{Answer, Planned, disturbs, nothing_matches, refuse, text};
use crate::users::Users;
use crate::{mode, selection};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("what").required(true).args(["file"]))]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,

    /// Switch MIG mode where the layout wants it, and cut nothing
    #[arg(long)]
    mode_only: bool,

    /// Say which other placements would serve, and why they were not taken
    #[arg(long)]
    explain: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let _lock = context.lock("apply")?;
    let node = context.node()?;
    let gpus = selection::to_read(&context.options.gpuid, &node.survey)?;
    let wishes = args.source.wishes(&gpus)?;
    if wishes.is_empty() {
        return Err(nothing_matches());
    }
    let users = Users::read(context);
    let mut planned: Vec<Planned<'_>> = wishes.iter().map(|(gpu, wish)| layouts::plan(gpu, wish, &users)).collect();
    for (planned, (gpu, wish)) in planned.iter_mut().zip(&wishes) {
        if let Ok(plan) = &mut planned.outcome {
            args.adjust(&mut plan.steps, gpu, wish);
        }
    }
    let announcement = text(&Answer::new(&planned, args.explain));
    let change = |planned: &Planned<'_>| planned.outcome.as_ref().map(|plan| plan.steps.clone()).unwrap_or_default();
    let changes: Vec<Change<'_>> =
        planned.iter().map(|planned| Change { gpu: planned.gpu, steps: change(planned) }).collect();
    // All of it is planned before any of it is done.
    refuse(planned, context)?;
    if changes.iter().any(|change| disturbs(&change.steps)) {
        users.refuse_if_unknown()?;
    }
    for change in &changes {
        mode::refuse_if_held(&users, change)?;
    }
    if !context.options.dry_run && changes.iter().any(|change| !change.steps.is_empty()) {
        context.output.note(announcement.trim_end());
    }
    carry_out(context, &node.hardware, &changes)?.tell(context, |account| report(account, &announcement))
}

impl Args {
    fn adjust(&self, steps: &mut Vec<Step>, survey: &GpuSurvey, wish: &GpuWish) {
        let switches = |step: &Step| matches!(step, Step::SetMigMode { .. });
        // A switch that waits for its clients comes into force when it is asked for again and they have gone.
        if wish.mig && !survey.gpu.mig.is_enabled() && !steps.iter().any(switches) {
            steps.insert(0, Step::SetMigMode { enabled: true });
        }
        if self.mode_only && !steps.iter().any(switches) {
            steps.clear();
        } else if self.mode_only && wish.mig {
            steps.retain(switches);
        }
    }
}

fn report(account: &Account, announcement: &str) -> String {
    if account.dry_run {
        return announcement.to_owned();
    }
    if account.is_empty() {
        return "nothing to do\n".to_owned();
    }
    account.lines_done()
}
