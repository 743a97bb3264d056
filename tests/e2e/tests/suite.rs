//! The end-to-end suite: real pods on a real Kubernetes, whose node has the slices of `tests/scenes/demo.yaml`.
//!
//! GPU 0 is cut into 3g.20gb + 2g.10gb + 2x 1g.5gb, GPU 1 into 7x 1g.5gb. Run it with `make e2e`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use e2e::cluster::Cluster;
use e2e::namespace::Namespace;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

#[path = "suite/cdi.rs"]
mod cdi;
#[path = "suite/chart.rs"]
mod chart;
#[path = "suite/config.rs"]
mod config;
#[path = "suite/death.rs"]
mod death;
#[path = "suite/labels.rs"]
mod labels;
#[path = "suite/security.rs"]
mod security;
#[path = "suite/slices.rs"]
mod slices;
#[path = "suite/tidy.rs"]
mod tidy;

/// One trial for each test, by its function's name.
macro_rules! trials {
    ($run:ident: $($test:ident),* $(,)?) => { [$($crate::$run(stringify!($test), $test)),*] };
}
use trials;

fn main() -> ExitCode {
    let trials = [
        slices::trials(),
        security::trials(),
        labels::trials(),
        death::trials(),
        cdi::trials(),
        chart::trials(),
        config::trials(),
        tidy::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<T>(name: &str, test: T) -> Trial
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()> + Send + 'static,
{
    Trial::test(name, move || Ok(on_cluster(test)?))
}

/// One that needs something of the cluster: `lacks` says what is missing, if it is.
fn trial_where<T>(name: &str, lacks: fn() -> Option<&'static str>, test: T) -> Trial
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        if let Some(reason) = lacks() {
            return Ok(Completion::ignored_with(reason));
        }
        on_cluster(test)?;
        Ok(Completion::Completed)
    })
}

/// Runs a test in a namespace of its own, on a cluster where every slice is free.
fn on_cluster<T>(test: T) -> Result<(), Failure>
where
    T: for<'a> AsyncFnOnce(&'a Namespace<'a>) -> Result<()>,
{
    let outcome = async {
        let cluster = Cluster::take().await?;
        let namespace = Namespace::create(&cluster).await?;
        let outcome = test(&namespace).await;
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(namespace.diagnosis().await)),
        };
        let cleaned = namespace.delete().await;
        outcome.and(cleaned)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start a runtime");
    runtime.and_then(|runtime| runtime.block_on(outcome)).map_err(Failure)
}

/// The message of a failed test: the error first, what the cluster looked like after it.
struct Failure(anyhow::Error);

impl From<Failure> for Failed {
    fn from(Failure(error): Failure) -> Self {
        let mut lines: Vec<_> = error.chain().map(ToString::to_string).collect();
        lines.reverse();
        lines.join("\n").into()
    }
}
