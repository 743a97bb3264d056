use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::args::{Args, LogFormat};

/// Logs go to stderr. Of other people's crates only warnings are of interest, whatever level is asked for.
pub(crate) fn init(args: &Args) {
    let ours = ["mig_agent", "mig_device_plugin", "mig_nvml", "mig_model", "kubelet"];
    let level = LevelFilter::from_level(args.log_level);
    let targets =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours.map(|name| (name, level)));
    // It tells each failed request anew; `labels` tells each reason once.
    let targets = targets.with_target("kube_client", LevelFilter::OFF);
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = match args.log_format {
        LogFormat::Text => fmt::layer().with_writer(stderr).with_ansi(colour).with_target(false).boxed(),
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
}
