use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::context::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a page for each verb into this directory, as packages want them
    #[arg(long, value_name = "DIR", hide = true)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let command = crate::args::Args::command();
    let Some(dir) = &args.dir else {
        return context.output.raw(&page(command)?);
    };
    std::fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, &error))?;
    clap_mangen::generate_to(command, dir).map_err(|error| Failure::file("write into", dir, &error))
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|error| Failure::failed("Output", error.to_string()))?;
    Ok(page)
}
