//! `demo`: the main job of mig-agent in a terminal, without a GPU and without a cluster. It is a test as well: what it
//! shows has been checked, and anything unexpected ends it with a message and exit code 1.

#![allow(clippy::print_stderr, reason = "this is a command line program")]

mod agent;
mod leftovers;
mod machine;
mod paint;
mod picture;
mod story;

use std::{io::stdout, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{
    leftovers::Leftovers,
    paint::{ColorChoice, Paint},
};

/// Show how the MIG slices of GPUs come to pods, on this machine, without a GPU and without a cluster.
///
/// Starts mig-agent between a pretended driver and a simulated kubelet in a temporary directory, admits three pods, shows
/// what each container receives, and removes everything again.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 all was as expected, 1 something was not, 2 wrong usage, 128 + N ended by signal N."
)]
struct Arguments {
    /// Where mig-agent, fake-nvml and libfake_nvml.so are [default: the folder of this program]
    #[arg(long, value_name = "DIR", env = "DEMO_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// Other GPUs than the demo's own; the pods need a 3g.20gb, a 2g.10gb and three 1g.5gb [default: built in]
    #[arg(long, value_name = "FILE", env = "DEMO_SCENE")]
    scene: Option<PathBuf>,
    /// When to use colour; `auto` heeds NO_COLOR and CLICOLOR_FORCE
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    leftovers::clear_on_panic();
    let outcome = run(&arguments);
    leftovers::clear();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bin_dir = match &arguments.bin_dir {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("this program has no folder")?.to_owned(),
    };
    let bin_dir = bin_dir.canonicalize().with_context(|| format!("unable to find {}", bin_dir.display()))?;
    let paint = Paint::new(arguments.color);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let folder = Leftovers::folder()?;
        let mut out = stdout();
        tokio::select! {
            told = story::tell(&mut out, paint, &bin_dir, &folder, arguments.scene.as_deref()) => {
                told.map(|()| ExitCode::SUCCESS)
            }
            _ = interrupt.recv() => Ok(ExitCode::from(128 + 2)),
            _ = terminate.recv() => Ok(ExitCode::from(128 + 15)),
            _ = hang_up.recv() => Ok(ExitCode::from(128 + 1)),
        }
    })
}
