//! `fake-nvml`: looks at a pretended machine and changes it from outside.

mod control;

use std::{io::ErrorKind, process::ExitCode};

use clap::Parser;
use control::Failure;

#[allow(clippy::print_stderr, reason = "this is a command line program")]
fn main() -> ExitCode {
    match control::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(Failure::Print(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-nvml: {error}");
            error.exit_code()
        }
    }
}
