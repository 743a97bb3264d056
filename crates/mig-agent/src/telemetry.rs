use std::io::{IsTerminal as _, stderr};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::args::{Args, LogFormat};

/// So much of the log may wait for whoever reads it; then lines are lost.
const WAITING_LINES: usize = 4096;

/// Logs go to stderr, by a thread of their own: if nobody reads them, lines are lost, and no container waits. Of other
/// people's crates only warnings are of interest, whatever level is asked for. What waits is written when the guard is
/// dropped.
pub(crate) fn init(args: &Args) -> WorkerGuard {
    let ours = ["mig_agent", "mig_device_plugin", "mig_nvml", "mig_model", "kubelet"];
    let level = LevelFilter::from_level(args.log_level);
    let targets =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours.map(|name| (name, level)));
    // It tells each failed request anew; `labels` tells each reason once.
    let targets = targets.with_target("kube_client", LevelFilter::OFF);
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
    let (writer, guard) = builder.thread_name("log").finish(stderr());
    let layer = match args.log_format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colour).with_target(false).boxed(),
        LogFormat::Json => fmt::layer().with_writer(writer).json().flatten_event(true).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
    guard
}
