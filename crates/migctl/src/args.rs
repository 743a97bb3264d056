use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::selection::Selector;
use crate::{apply, capture, completions, create, destroy, disable, doctor, enable, export, list, man, plan, status};

const EXIT_CODES: &str = "\
Exit codes:
  0    done; nothing to do is done, too
  1    failed: the driver, the kubelet or the system refused; what was done by then is said
  2    usage: an argument, a variable or a file's text is wrong
  3    does not fit on the GPU, or not at that place
  4    in use: by a process or a pod, which is named; or another program is changing the GPUs now
  5    not permitted: run as root, or with the capability that is named
  6    needs a reset of the GPU or a reboot before it is in force
  7    not found: no such GPU, instance type, instance, layout, model or file
  130  interrupted between two steps; what was done and what was not is said

Answers go to stdout, everything else to stderr.";

const EXAMPLES: &str = "\
Examples:
  migctl list gpu
  migctl --gpuid 0 enable
  migctl --gpuid 0 create instance --type 3g.20gb --placement 4
  migctl --gpuid 0 list config
  migctl plan --model A100-SXM4-40GB 3g.20gb 3g.20gb 1g.5gb
  migctl apply -f layout.yaml --dry-run

";

/// Cuts NVIDIA GPUs into MIG instances: lists, plans, creates and destroys them.
#[derive(Debug, Parser)]
#[command(
    name = "migctl",
    version,
    after_help = "Exit codes are listed by `migctl --help`.",
    after_long_help = format!("{EXAMPLES}{EXIT_CODES}"),
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes, before or after its name.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// Which GPUs: index, UUID, PCI address, several separated by commas, or all. May be left out where there is one
    /// GPU; verbs that only read take all of them then
    #[arg(long, global = true, value_name = "GPU", value_delimiter = ',')]
    pub(crate) gpuid: Vec<Selector>,

    /// How to write the answer
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,

    /// Say what would be done, and touch nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,

    /// Do not ask the kubelet which pods hold instances; only the driver's word on processes counts then
    #[arg(long, global = true)]
    pub(crate) ignore_kubelet: bool,

    /// The driver's libnvidia-ml.so.1 itself; by default it is looked for below the driver root, then by the loader
    #[arg(
        long,
        global = true,
        env = "NVML_LIBRARY",
        hide_env_values = true,
        value_name = "FILE",
        hide_short_help = true
    )]
    pub(crate) nvml_library: Option<PathBuf>,

    /// Where the driver's files are: / if it is installed on the host, the mounted root of the driver's container
    /// otherwise
    #[arg(
        long,
        global = true,
        env = "NVIDIA_DRIVER_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/",
        hide_short_help = true
    )]
    pub(crate) nvidia_driver_root: PathBuf,

    /// Where the driver root is seen from here, if that is another place: in the agent's pod
    #[arg(
        long,
        global = true,
        env = "CONTAINER_DRIVER_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub(crate) container_driver_root: Option<PathBuf>,

    /// Where procfs is mounted
    #[arg(
        long,
        global = true,
        env = "PROC_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/proc",
        hide_short_help = true
    )]
    pub(crate) proc_root: PathBuf,

    /// Where sysfs is mounted
    #[arg(
        long,
        global = true,
        env = "SYS_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/sys",
        hide_short_help = true
    )]
    pub(crate) sys_root: PathBuf,

    /// The kubelet's root directory, where it tells which pod holds what
    #[arg(
        long,
        global = true,
        env = "KUBELET_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/var/lib/kubelet",
        hide_short_help = true
    )]
    pub(crate) kubelet_root: PathBuf,

    /// Held while GPUs are changed, so that no two programs do so at once
    #[arg(
        long,
        global = true,
        env = "MIG_LOCK_FILE",
        hide_env_values = true,
        value_name = "FILE",
        default_value = "/run/mig-agent/node.lock",
        hide_short_help = true
    )]
    pub(crate) lock_file: PathBuf,

    /// Where the agent of this node writes down what it gave out and what is Unhealthy; what is not there is not told
    #[arg(
        long,
        global = true,
        env = "STATE_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/run/mig-agent",
        hide_short_help = true
    )]
    pub(crate) state_dir: PathBuf,

    /// Whether to colour messages; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_short_help = true)]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// JSON, as docs/migctl.md describes it
    Json,
    /// The same as YAML
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Turn MIG mode on; says what is still needed before it is in force
    Enable(enable::Args),
    /// Turn MIG mode off
    Disable(disable::Args),
    /// List GPUs, the instance types they offer, or how they are cut
    List(list::Args),
    /// Create instances
    Create(create::Args),
    /// Destroy instances
    Destroy(destroy::Args),
    /// Say whether and where instances, or a layout, would fit; without a GPU, too (--model)
    Plan(plan::Args),
    /// Cut GPUs as a layout file says, changing as little as possible
    Apply(apply::Args),
    /// Write how the GPUs are cut as a layout that apply reads
    Export(export::Args),
    /// Draw each GPU's memory slices, who uses them, and what still fits
    Status(status::Args),
    /// Write a models/ file from a GPU
    Capture(capture::Args),
    /// Check what commonly goes wrong, and say what to do
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use mig_model::layout::GpuSelector;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_and_after_the_verb() {
        for line in ["migctl --gpuid 0,1 -o json list gpu", "migctl list gpu --gpuid 0,1 -o json"] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            let both = [0, 1].map(|index| Selector::One(GpuSelector::Index(index)));
            assert_eq!(args.options.gpuid, both, "{line}");
            assert_eq!(args.options.output, Format::Json, "{line}");
        }
    }
}
