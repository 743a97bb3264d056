//! `mig-agent`: offers the MIG slices of a node's GPUs to its kubelet.

mod args;
mod cluster;
mod config;
mod health;
mod http;
mod known;
mod labels;
mod listener;
mod metrics;
mod notes;
mod offers;
mod page;
mod run;
mod slices;
mod state_file;
mod telemetry;
mod tidy;

use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::args::Args;

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let _log = telemetry::init(&args);
    args.nvidias.warn();
    // Whoever can talk to the plugin's sockets can ask it for devices: they are root's alone.
    umask(Mode::RWXG | Mode::RWXO);
    match run::to_the_end(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
