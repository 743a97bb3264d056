use crate::context::Context;
use crate::failure::Failure;
use crate::mode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Destroy the instances that are there first; without it, they are a reason not to go on
    #[arg(long)]
    destroy_instances: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    mode::switch(context, false, args.destroy_instances)
}
