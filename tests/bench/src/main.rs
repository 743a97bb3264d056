//! `bench`: figures of mig-agent, and of NVIDIA's device plugin beside it, on the same pretended hardware, against the same
//! kubelet, asked by the same client. `tests/bench/run` builds what it needs; docs/benchmarks.md says what each row means.

mod client;
mod kubelet;
mod machine;
mod measure;
mod planner;
mod plugin;
mod table;

use std::{
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{machine::Surroundings, measure::Measurement, plugin::Side};

/// Measure mig-agent, and NVIDIA's device plugin if one is given; tests/bench/run calls this with everything it needs.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 everything was measured, 1 something could not be, 2 wrong usage, 128 + N ended by signal N."
)]
struct Arguments {
    /// mig-agent
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// NVIDIA's plugin; then the kubelet's root must be /var/lib/kubelet, and /proc/driver this program's to lay out
    #[arg(long, value_name = "FILE", requires = "driver_files")]
    nvidia: Option<PathBuf>,
    /// What NVIDIA's plugin is called in the output
    #[arg(long, value_name = "TEXT", default_value = "NVIDIA's plugin")]
    nvidia_name: String,
    /// Where the driver's files are to be laid out, for a plugin that cannot be told to look elsewhere
    #[arg(long, value_name = "DIR")]
    driver_files: Option<PathBuf>,
    /// Where the pretended libnvidia-ml.so.1 and its command are
    #[arg(long, value_name = "DIR")]
    fake_nvml: PathBuf,
    /// The kubelet's root; what is in it is removed before each start
    #[arg(long, value_name = "DIR")]
    kubelet_root: PathBuf,
    /// A directory for everything else, which the caller removes
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
    /// Few runs and 10 s of idleness, for a look; not for figures that anybody quotes
    #[arg(long)]
    quick: bool,
    /// How long the soak takes: the agent's times are made shorter by as much as this is shorter than an hour
    #[arg(long, env = "BENCH_SOAK", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=3600))]
    soak: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell it to, if standard error is gone.
            let _ = writeln!(stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // What is dropped with the measurement kills the plugin that runs.
        tokio::select! {
            complete = measure(arguments) => Ok(if complete? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            _ = interrupt.recv() => Ok(ExitCode::from(128 + 2)),
            _ = terminate.recv() => Ok(ExitCode::from(128 + 15)),
            _ = hang_up.recv() => Ok(ExitCode::from(128 + 1)),
        }
    })
}

/// Says whether everything could be measured.
async fn measure(arguments: &Arguments) -> anyhow::Result<bool> {
    let sides = sides(arguments)?;
    let mut out = stdout();
    writeln!(out, "{}", Surroundings::now())?;
    for side in &sides {
        writeln!(out, "  {}: {}", side.label, side.version)?;
    }
    let measurement = Measurement::new(arguments, sides);
    let (figures, failures) = measurement.run().await?;
    write!(out, "\n{figures}")?;
    write!(out, "\n{}", planner::figures(if arguments.quick { 21 } else { 301 })?)?;
    if arguments.quick {
        writeln!(out, "\n--quick: few runs, and 10 s of idleness times six instead of a minute")?;
    }
    for failure in &failures {
        writeln!(out, "\nnot measured: {failure}")?;
    }
    Ok(failures.is_empty())
}

fn sides(arguments: &Arguments) -> anyhow::Result<Vec<Side>> {
    let library = arguments.fake_nvml.join("libnvidia-ml.so.1");
    std::fs::metadata(&library).with_context(|| format!("unable to find {}", library.display()))?;
    let mut sides = vec![Side::ours(&arguments.agent, &library, &arguments.kubelet_root)?];
    if let Some(program) = &arguments.nvidia {
        sides.push(Side::nvidias(program, &arguments.nvidia_name, &arguments.fake_nvml));
    }
    Ok(sides)
}
