use crate::context::Context;
use crate::failure::Failure;
use crate::mode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, context: &Context) -> Result<(), Failure> {
    mode::switch(context, true, false)
}
