mod config;
mod every;
mod gpu;
mod instance;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

pub(crate) use gpu::Mig;
pub(crate) use instance::gibibytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The GPUs of this machine
    #[command(visible_alias = "gpus")]
    Gpu,
    /// The instance types that GPUs offer: free and total, memory, processors, engines, placements
    #[command(visible_alias = "instances")]
    Instance(instance::Args),
    /// How the GPUs are cut now, and who uses it; or with --all every way to cut one
    #[command(visible_alias = "configs")]
    Config(config::Args),
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    match &args.what {
        What::Gpu => gpu::run(context),
        What::Instance(args) => instance::run(args, context),
        What::Config(args) => config::run(args, context),
    }
}
