use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mig_model::{ResourceDomain, Strategy};

const EXIT_CODES: &str = "\
Exit codes:
  0  told to stop by SIGTERM or SIGINT
  1  could not start, or a part of it failed; the last line of the log says why
  2  an argument or variable is wrong

A driver or a kubelet that is missing ends nothing: the agent waits for it, and /readyz says so.";

/// Offers the MIG slices of this node's NVIDIA GPUs to the kubelet, each profile as an extended resource
/// (nvidia.com/mig-1g.5gb), and tells each container which are its own.
#[derive(Debug, Clone, Parser)]
#[command(name = "mig-agent", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// The kubelet's root directory; its sockets are in device-plugins/ and pod-resources/ below it
    #[arg(long, env = "KUBELET_ROOT", value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_root: PathBuf,

    /// How MIG devices are named: mixed (each profile a resource of its own), single (all alike, as <domain>/gpu) or
    /// none (MIG is ignored)
    #[arg(long, env = "MIG_STRATEGY", value_name = "STRATEGY", default_value_t = Strategy::Mixed)]
    pub(crate) mig_strategy: Strategy,

    /// What stands before the slash in resource names
    #[arg(long, env = "RESOURCE_DOMAIN", value_name = "DOMAIN", default_value_t = ResourceDomain::default())]
    pub(crate) resource_domain: ResourceDomain,

    /// Variables that tell a container its devices, separated by commas
    #[arg(
        long,
        env = "VISIBLE_DEVICES_ENV",
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = variable_name,
        default_value = "CUDA_VISIBLE_DEVICES,NVIDIA_VISIBLE_DEVICES"
    )]
    pub(crate) visible_devices_env: Vec<String>,

    /// Where the driver's files are: / if it is installed on the host, the mounted root of the driver's container
    /// otherwise
    #[arg(long, env = "NVIDIA_DRIVER_ROOT", value_name = "DIR", default_value = "/")]
    pub(crate) nvidia_driver_root: PathBuf,

    /// The driver's libnvidia-ml.so.1 itself; by default it is looked for below the driver root, then by the loader
    #[arg(long, env = "NVML_LIBRARY", value_name = "FILE")]
    pub(crate) nvml_library: Option<PathBuf>,

    /// Where sysfs is mounted; NUMA nodes are read from it
    #[arg(long, env = "SYS_ROOT", value_name = "DIR", default_value = "/sys")]
    pub(crate) sys_root: PathBuf,

    /// Where to answer HTTP: /healthz, /readyz, /api/v1/inventory
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) listen: SocketAddr,

    /// How often to look whether the GPUs or their slices have changed
    #[arg(long, env = "POLL_INTERVAL", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) poll_interval: Duration,

    /// How long the driver may take for one look before it counts as hung
    #[arg(long, env = "NVML_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) nvml_deadline: Duration,

    /// How long after an allocation, or after the agent's start, nothing counts as free
    #[arg(long, env = "SETTLE_TIME", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) settle_time: Duration,

    /// How to write the log, which goes to stderr
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// The least important lines to log: error, warn, info, debug or trace
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

/// A time that is long enough not to make the agent spin.
fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; expected a time such as 5s or 500ms"))?;
    if !(Duration::from_millis(10)..=Duration::from_secs(24 * 3600)).contains(&duration) {
        return Err("expected a time from 10ms to 24h".to_owned());
    }
    Ok(duration)
}

fn variable_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.is_empty() || !plain || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("expected names of environment variables: letters, digits and _".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_has_a_variable_of_its_name() {
        Args::command().debug_assert();
        for argument in Args::command().get_arguments() {
            let Some(flag) = argument.get_long().filter(|flag| !["help", "version"].contains(flag)) else { continue };
            let variable = argument.get_env().and_then(|name| name.to_str()).map(str::to_owned);
            assert_eq!(variable, Some(flag.replace('-', "_").to_ascii_uppercase()));
        }
    }

    #[test]
    fn values_are_checked_at_the_door() {
        for bad in [
            "--mig-strategy=both",
            "--resource-domain=kubernetes.io",
            "--poll-interval=0s",
            "--poll-interval=5",
            "--visible-devices-env=A,B C",
            "--visible-devices-env=1A",
            "--listen=8080",
            "--log-format=xml",
            "--log-level=loud",
            "--kubelet-rot=/",
        ] {
            let error = Args::try_parse_from(["mig-agent", bad]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
        let args =
            Args::try_parse_from(["mig-agent", "--poll-interval", "500ms", "--visible-devices-env", "A_1"]).unwrap();
        assert_eq!(
            (args.poll_interval, args.visible_devices_env),
            (Duration::from_millis(500), vec!["A_1".to_owned()])
        );
    }
}
