//! `migctl`: looks at, plans and changes how NVIDIA GPUs are cut into MIG instances. One file per verb.

mod agent;
mod apply;
mod args;
mod capture;
mod change;
mod completions;
mod context;
mod create;
mod destroy;
mod disable;
mod doctor;
mod enable;
mod export;
mod failure;
mod files;
mod layouts;
mod list;
mod man;
mod misfit;
mod mode;
mod models;
mod output;
mod paper;
mod plan;
mod planned;
mod progress;
mod request;
mod selection;
mod status;
mod table;
mod users;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Verb};
use crate::context::Context;
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(error),
    };
    let context = Context::new(args.options);
    match run(&args.verb, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => context.output.fail(&failure),
    }
}

fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Enable(args) => enable::run(args, context),
        Verb::Disable(args) => disable::run(args, context),
        Verb::List(args) => list::run(args, context),
        Verb::Create(args) => create::run(args, context),
        Verb::Destroy(args) => destroy::run(args, context),
        Verb::Plan(args) => plan::run(args, context),
        Verb::Apply(args) => apply::run(args, context),
        Verb::Export(args) => export::run(args, context),
        Verb::Status(args) => status::run(args, context),
        Verb::Capture(args) => capture::run(args, context),
        Verb::Doctor(args) => doctor::run(args, context),
        Verb::Completions(args) => completions::run(args, context),
        Verb::Man(args) => man::run(args, context),
    }
}
