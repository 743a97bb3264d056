mod extras;
mod nvidias;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use mig_device_plugin::{DeviceIdStrategy, DeviceListStrategy, PreferredAllocation, SharedAllocation};
use mig_model::{ResourceDomain, Strategy};

use crate::config::ConfigArgs;
use crate::health::HealthArgs;
use crate::labels::NodeLabels;
use extras::ExtraArgs;
use nvidias::Nvidias;

const EXIT_CODES: &str = "\
Exit codes:
  0  told to stop by SIGTERM, SIGINT or SIGQUIT
  1  could not start, or a part of it failed; the last line of the log says why
  2  an argument or variable is wrong

A driver or a kubelet that is missing ends nothing: the agent waits for it, and /readyz says so.";

/// Offers the MIG slices of this node's NVIDIA GPUs to the kubelet, each profile as an extended resource
/// (nvidia.com/mig-1g.5gb), and tells each container which are its own.
#[derive(Debug, Clone, Parser)]
#[command(name = "mig-agent", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// What the command line or a variable said, by the field's name.
    #[arg(skip)]
    given: BTreeSet<String>,

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

    /// By which ways a container's devices are told to its runtime, separated by commas: envvar (NVIDIA's runtime),
    /// volume-mounts (the same, which images cannot forge), cdi-annotations, cdi-cri (any runtime with CDI)
    #[arg(long, env = "DEVICE_LIST_STRATEGY", value_name = "NAMES", value_delimiter = ',', default_value = "envvar")]
    pub(crate) device_list_strategy: Vec<DeviceListStrategy>,

    /// By what NVIDIA's runtime is told a device: uuid, or index (0:1), which is another device's after a change of
    /// layout. CUDA_VISIBLE_DEVICES and CDI have UUIDs in any case
    #[arg(long, env = "DEVICE_ID_STRATEGY", value_name = "KIND", default_value = "uuid")]
    pub(crate) device_id_strategy: DeviceIdStrategy,

    /// Pass device nodes on through the kubelet, for containers that NVIDIA's runtime does not start; missing capability
    /// nodes are made. Without effect where all strategies are CDI's
    #[arg(
        long,
        env = "PASS_DEVICE_SPECS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) pass_device_specs: bool,

    /// Which of equally good devices a container gets: packed (on as few GPUs as possible) or spread (on as many)
    #[arg(long, env = "PREFERRED_ALLOCATION", value_name = "KIND", default_value = "packed")]
    pub(crate) preferred_allocation: PreferredAllocation,

    /// Which slices containers get that are shared in time: distributed (those that the fewest share) or packed (the most)
    #[arg(long, env = "SHARED_DEVICES_ALLOCATION_POLICY", value_name = "KIND", default_value = "distributed")]
    pub(crate) shared_devices_allocation_policy: SharedAllocation,

    /// Where the driver's files are on the node: / if it is installed there, the root of the driver's container otherwise
    #[arg(long, env = "NVIDIA_DRIVER_ROOT", value_name = "DIR", default_value = "/", value_parser = absolute)]
    pub(crate) nvidia_driver_root: PathBuf,

    /// Where that directory is mounted for the agent, if elsewhere; DRIVER_ROOT_CTR_PATH is read too
    #[arg(long, env = "CONTAINER_DRIVER_ROOT", value_name = "DIR", value_parser = absolute)]
    container_driver_root: Option<PathBuf>,

    /// The directory on the node that has dev/ with the GPUs' nodes; by default the driver root if it has them, else /
    #[arg(long, env = "NVIDIA_DEV_ROOT", alias = "dev-root", value_name = "DIR", value_parser = absolute)]
    pub(crate) nvidia_dev_root: Option<PathBuf>,

    /// Where that directory is mounted for the agent, if elsewhere
    #[arg(long, env = "CONTAINER_DEV_ROOT", value_name = "DIR", value_parser = absolute)]
    pub(crate) container_dev_root: Option<PathBuf>,

    /// Where /proc is mounted; numbers of device nodes are read from it
    #[arg(long, env = "PROC_ROOT", value_name = "DIR", default_value = "/proc")]
    pub(crate) proc_root: PathBuf,

    /// Where the container runtime reads CDI specs; the strategies of CDI write one
    #[arg(long, env = "CDI_DIR", value_name = "DIR", default_value = "/var/run/cdi")]
    pub(crate) cdi_dir: PathBuf,

    /// What stands before the names of CDI annotations
    #[arg(
        long,
        env = "CDI_ANNOTATION_PREFIX",
        value_name = "PREFIX",
        default_value = "cdi.k8s.io/",
        value_parser = annotation_prefix
    )]
    pub(crate) cdi_annotation_prefix: String,

    /// Where labels go that say what the node's GPUs are
    #[arg(long, env = "NODE_LABELS", value_name = "WHERE", default_value = "feature-file")]
    pub(crate) node_labels: NodeLabels,

    /// The folder from which node-feature-discovery reads feature files; where it does not run, there is none
    #[arg(
        long,
        env = "FEATURES_DIR",
        value_name = "DIR",
        default_value = "/etc/kubernetes/node-feature-discovery/features.d"
    )]
    pub(crate) features_dir: PathBuf,

    /// Take the names of resources that the node has none of any more out of its status, where the kubelet leaves them
    /// with 0 for ever
    #[arg(
        long,
        env = "TIDY_NODE_STATUS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) tidy_node_status: bool,

    /// How long a resource must have been gone for that; the kubelet writes the name again in the first five minutes
    #[arg(long, env = "TIDY_NODE_STATUS_AFTER", value_name = "TIME", value_parser = duration, default_value = "6m")]
    pub(crate) tidy_node_status_after: Duration,

    /// The name of the own Node object; needed with --node-labels=node, --config-file-srcdir and --tidy-node-status
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = node_name)]
    pub(crate) node_name: Option<String>,

    /// The driver's libnvidia-ml.so.1 itself; by default it is looked for below the driver root, then by the loader
    #[arg(long, env = "NVML_LIBRARY", value_name = "FILE")]
    pub(crate) nvml_library: Option<PathBuf>,

    /// Where sysfs is mounted; NUMA nodes are read from it
    #[arg(long, env = "SYS_ROOT", value_name = "DIR", default_value = "/sys")]
    pub(crate) sys_root: PathBuf,

    /// Where to answer HTTP: / (the status page), /metrics, /healthz, /readyz, /api/v1/inventory
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

    #[command(flatten)]
    pub(crate) health: HealthArgs,

    #[command(flatten)]
    pub(crate) extras: ExtraArgs,

    #[command(flatten)]
    pub(crate) nvidias: Nvidias,

    /// The kubelet's socket: NVIDIA's name for what `--kubelet-root` says
    #[arg(long, env = "KUBELET_SOCKET", value_name = "FILE", hide = true, value_parser = kubelet_socket)]
    kubelet_socket: Option<PathBuf>,

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

impl Args {
    /// What the command line and the variables say. Where they are wrong, or ask for no more than help, that is told, and
    /// the process is to end with this code.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        let matches = unless_empty(Self::command()).try_get_matches();
        let read = matches
            .and_then(|matches| Self::from_arg_matches(&matches).and_then(|args| args.sourced(&matches).checked()));
        read.map_err(|said| tell(&said))
    }

    /// With note of what is not merely the default.
    fn sourced(mut self, matches: &ArgMatches) -> Self {
        let is_given =
            |id: &&str| matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        self.given = matches.ids().map(clap::Id::as_str).filter(is_given).map(str::to_owned).collect();
        self
    }

    /// What was given here, else what the file says, else the default.
    pub(crate) fn unless_given<T>(&self, field: &str, here: T, file: Option<T>) -> T {
        if self.given.contains(field) { here } else { file.unwrap_or(here) }
    }

    fn checked(mut self) -> Result<Self, clap::Error> {
        if let Some(root) = self.kubelet_socket.take() {
            if self.given.contains("kubelet_root") && self.kubelet_root != root {
                let message = "--kubelet-socket and --kubelet-root name different places: leave one out";
                return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
            }
            self.kubelet_root = root;
        }
        let needs_name = [
            ("--node-labels=node", self.node_labels == NodeLabels::Node),
            ("--config-file-srcdir", self.config.config_file_srcdir.is_some()),
            ("--tidy-node-status", self.tidy_node_status),
        ];
        if let Some((flag, _)) = needs_name.iter().find(|(_, needs)| *needs && self.node_name.is_none()) {
            let message = format!(
                "{flag} needs --node-name, the name of the own Node object (in a pod, NODE_NAME from the field spec.nodeName)"
            );
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(self)
    }

    /// Where the driver root is from here.
    pub(crate) fn driver_root_here(&self) -> PathBuf {
        let nvidias = || std::env::var_os("DRIVER_ROOT_CTR_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let given = self.container_driver_root.clone().or_else(nvidias);
        given.unwrap_or_else(|| self.nvidia_driver_root.clone())
    }
}

/// Prints what clap has to say, help and version too.
fn tell(said: &clap::Error) -> ExitCode {
    match said.print() {
        Err(broken) if broken.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: unable to write the answer: {broken}");
            ExitCode::FAILURE
        }
        _ if said.use_stderr() => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    }
}

/// A variable that is empty is one that is not set, as for NVIDIA's plugin: manifests leave them so.
fn unless_empty(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let is_empty = argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { argument.env(Resettable::Reset) } else { argument }
    })
}

/// The kubelet's root directory, by the socket in it.
fn kubelet_socket(text: &str) -> Result<PathBuf, String> {
    let root = Path::new(text).parent().filter(|folder| folder.ends_with("device-plugins")).and_then(Path::parent);
    match root {
        Some(root) if root.is_absolute() && text.ends_with("/kubelet.sock") => Ok(root.to_owned()),
        _ => Err("expected ROOT/device-plugins/kubelet.sock; --kubelet-root=ROOT says the same".to_owned()),
    }
}

/// A name that Kubernetes gives to nodes.
fn node_name(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(part) {
        return Err(
            "expected a node's name as kubectl get nodes shows it: lower case letters, digits, - and .".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Paths of the node end up in CDI specs, where there is no working directory.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
}

/// A DNS name and a slash, and not more than an annotation's key may have.
pub(crate) fn annotation_prefix(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('/').unwrap_or_default();
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if domain.len() > 253 || !domain.split('.').all(label) {
        return Err("expected a domain and a slash, such as cdi.k8s.io/".to_owned());
    }
    Ok(text.to_owned())
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
    fn labels_on_the_node_need_its_name() {
        let args = |given: &[&str]| Args::try_parse_from([&["mig-agent"], given].concat()).unwrap().checked();
        let error = args(&["--node-labels=node"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--node-name") && error.to_string().contains("spec.nodeName"), "{error}");
        let error = args(&["--config-file-srcdir=/configs"]).unwrap_err();
        assert!(error.to_string().contains("--config-file-srcdir needs --node-name"), "{error}");
        let error = args(&["--tidy-node-status"]).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("--tidy-node-status needs --node-name"),
            "{error}"
        );
        assert_eq!(args(&["--node-labels=node", "--node-name=a.b-1"]).unwrap().node_name.as_deref(), Some("a.b-1"));
        assert_eq!(args(&[]).unwrap().node_labels, NodeLabels::FeatureFile);
    }

    #[test]
    fn values_are_checked_at_the_door() {
        for bad in [
            "--mig-strategy=both",
            "--resource-domain=kubernetes.io",
            "--node-labels=api",
            "--node-name=",
            "--node-name=../nodes/a",
            "--node-name=-a",
            "--poll-interval=0s",
            "--poll-interval=5",
            "--visible-devices-env=A,B C",
            "--visible-devices-env=1A",
            "--device-list-strategy=envvar,cdi",
            "--device-list-strategy=",
            "--device-id-strategy=UUID",
            "--pass-device-specs=perhaps",
            "--nvidia-driver-root=driver",
            "--cdi-annotation-prefix=cdi.k8s.io",
            "--cdi-annotation-prefix=/",
            "--cdi-annotation-prefix=Cdi.k8s.io/",
            "--preferred-allocation=best",
            "--listen=8080",
            "--log-format=xml",
            "--log-level=loud",
            "--kubelet-rot=/",
            "--fallback-strategies=first",
            "--node-label=",
            "--node-label=nvidia.com/",
            "--node-label=/config",
            "--node-label=a/b/c",
            "--node-label=Nvidia.com/config",
            "--node-label=-config",
            "--gds-enabled=perhaps",
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

    #[test]
    fn strategies_are_taken_as_nvidias_plugin_takes_them() {
        let strategies = |arguments: &[&str]| {
            let args = Args::try_parse_from([&["mig-agent"], arguments].concat()).unwrap();
            args.device_list_strategy.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(strategies(&[]), "envvar");
        assert_eq!(strategies(&["--device-list-strategy=cdi-cri,envvar"]), "cdi-cri envvar");
        let repeated = ["--device-list-strategy", "volume-mounts", "--device-list-strategy", "cdi-annotations"];
        assert_eq!(strategies(&repeated), "volume-mounts cdi-annotations");
        for (given, passes) in [
            (&[][..], false),
            (&["--pass-device-specs"], true),
            (&["--pass-device-specs=true"], true),
            (&["--pass-device-specs=0"], false),
            // Theirs takes the word that follows for no value of the flag; here it is one.
            (&["--pass-device-specs", "false"], false),
            (&["--pass-device-specs", "--gds-enabled", "true"], true),
        ] {
            let args = Args::try_parse_from([&["mig-agent"], given].concat()).unwrap();
            assert_eq!(args.pass_device_specs, passes, "{given:?}");
        }
    }

    #[test]
    fn the_driver_root_is_looked_at_where_it_is_mounted() {
        let args = |arguments: &[&str]| Args::try_parse_from([&["mig-agent"], arguments].concat()).unwrap();
        let root = "--nvidia-driver-root=/run/nvidia/driver";
        assert_eq!(args(&[root]).driver_root_here(), PathBuf::from("/run/nvidia/driver"));
        assert_eq!(args(&[root, "--container-driver-root=/root"]).driver_root_here(), PathBuf::from("/root"));
        assert_eq!(args(&["--dev-root=/"]).nvidia_dev_root, Some(PathBuf::from("/")));
    }
}
