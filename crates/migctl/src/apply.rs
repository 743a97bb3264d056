use clap::ArgGroup;
use mig_model::Step;
use mig_model::plan::{GpuPlan, GpuWish, Room};

use crate::change::{Account, Change, carry_out};
use crate::context::Context;
use crate::failure::Failure;
use crate::layouts::{self, Source};
use crate::mode;
use crate::planned::{Answer, Planned, disturbs, refuse, text};
use crate::users::Users;

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
    let layout = args.source.read()?.ok_or_else(|| Failure::usage("which layout? name a file by -f"))?;
    let _lock = context.lock("apply")?;
    let node = context.node()?;
    let wishes = layout.wishes(&node.survey, context)?;
    let users = Users::read(context);
    let mut planned: Vec<Planned<'_>> = wishes.iter().map(|(gpu, wish)| layouts::plan(gpu, wish, &users)).collect();
    if args.mode_only {
        for (planned, (_, wish)) in planned.iter_mut().zip(&wishes) {
            if let Ok(plan) = &mut planned.outcome {
                mode_only(plan, wish);
            }
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
    if context.output.is_for_people()
        && !context.options.dry_run
        && changes.iter().any(|change| !change.steps.is_empty())
    {
        context.output.note(announcement.trim_end());
    }
    carry_out(context, &node.hardware, &changes)?.tell(context, |account| report(account, &announcement))
}

/// Leaves the switch, and what has to go before MIG can be off.
fn mode_only(plan: &mut GpuPlan, wish: &GpuWish) {
    let is_switch = |step: &Step| matches!(step, Step::SetMigMode { .. });
    let switches = plan.steps.iter().any(is_switch);
    plan.steps.retain(|step| switches && (is_switch(step) || !wish.mig));
    plan.room = Room::default();
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
