use crate::context::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, _context: &Context) -> Result<(), Failure> {
    Err(Failure::failed("NotBuilt", "apply is not built yet"))
}
