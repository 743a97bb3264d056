//! `kubelet-sim`: the simulated kubelet for a terminal, without a cluster.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line program")]

mod command;
mod report;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use kubelet_sim::{Kubelet, Options};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin},
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{command::Command, report::Report};

/// A kubelet for device plugins, in a directory, without a cluster.
///
/// Takes the place of a node's kubelet towards device plugins: serves DIR/device-plugins/kubelet.sock and
/// DIR/pod-resources/kubelet.sock, and prints what happens, one line each. Start a plugin with DIR in place of
/// /var/lib/kubelet and it registers here.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// The directory in place of /var/lib/kubelet; made if it is not there
    #[arg(long, value_name = "DIR", env = "KUBELET_SIM_ROOT")]
    root: PathBuf,
    /// Print JSON, one object a line, with times in nanoseconds (CLOCK_MONOTONIC and since 1970)
    #[arg(long)]
    json: bool,
    /// Seconds that a resource whose plugin is gone stays known
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    grace: u64,
}

const AFTER_HELP: &str = "\
Commands, one a line on standard input:
  admit POD [CONTAINER:]RESOURCE=COUNT ...  give a pod devices
                                            (to container `main` unless named)
  delete POD                                end a pod: its devices are free
  start POD CONTAINER                       what the container gets again
  restart                                   kill the kubelet and start it:
                                            sockets are wiped, pods stay
  show                                      resources and pods
  quit                                      stop
The end of the input is no reason to stop; SIGINT and SIGTERM are.

Example:
  kubelet-sim --root /tmp/kubelet
  admit train nvidia.com/mig-3g.20gb=1

Exit codes:
  0  stopped as asked
  1  unable to start
  2  wrong usage
  3  a plugin did what would harm a real kubelet";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Builder::new_current_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(&arguments));
        // A thread may be waiting for the next line of input, which need not come.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubelet-sim: {}", report::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options { stop_grace: std::time::Duration::from_secs(arguments.grace), ..Options::default() };
    let kubelet = Arc::new(Kubelet::start_with(&arguments.root, options).await?);
    let mut report = Report::new(arguments.json);
    let mut input = Some(BufReader::new(stdin()).lines());
    loop {
        tokio::select! {
            events = kubelet.next_events(report.seen()) => report.events(&events),
            line = next_line(&mut input) => match line.as_deref().map(str::parse) {
                None => input = None,
                Some(Ok(Command::Quit)) => break,
                Some(Ok(command)) => {
                    let outcome = command.run(&kubelet).await;
                    // What led to the outcome comes before it.
                    report.events(&kubelet.events_since(report.seen()));
                    report.outcome(outcome);
                }
                Some(Err(wrong)) => report.outcome(Err(wrong)),
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    kubelet.stop().await;
    report.events(&kubelet.events_since(report.seen()));
    // They have been printed as they came.
    let harmed = !kubelet.take_violations().is_empty();
    Ok(if harmed { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// None at the end of the input, and never again after that.
async fn next_line(input: &mut Option<Lines<BufReader<Stdin>>>) -> Option<String> {
    match input {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}
