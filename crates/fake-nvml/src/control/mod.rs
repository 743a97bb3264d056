//! The command line, one file per verb that is more than a few lines.

mod node;
mod process;
mod show;
mod vitals;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use fake_nvml::{Layout, LayoutError, NAMES, Refused, SceneError, Store, StoreError, World};

/// Look at a pretended GPU machine and change it while programs use it.
///
/// Programs that load the fake libnvidia-ml.so.1 with the same FAKE_NVML_STATE see one machine, made from
/// FAKE_NVML_SCENE by the first that comes. This command is one of them.
#[derive(Debug, Parser)]
#[command(name = "fake-nvml", version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or broken scene.")]
pub(crate) struct Arguments {
    /// The machine's state directory [default: that of the driver root in FAKE_NVML_ROOT]
    #[arg(long, value_name = "DIR", env = "FAKE_NVML_STATE", global = true)]
    state: Option<PathBuf>,
    /// The scene that the machine is made from when the directory holds none yet
    #[arg(long, value_name = "FILE", env = "FAKE_NVML_SCENE", global = true)]
    scene: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a scene: say what is wrong and on which line, or nothing
    Check {
        /// The scene file
        scene: PathBuf,
    },
    /// Show the machine: GPUs, instances, placements, UUIDs
    Show {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Replace the whole machine by another scene, in one step; handles from before become invalid
    Set {
        /// The scene file
        scene: PathBuf,
    },
    /// Say how often each function was called since the machine was made
    Calls {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        /// Start counting again after printing
        #[arg(long)]
        reset: bool,
    },
    /// Make functions fail, be slow, or never return
    #[command(subcommand)]
    Fault(FaultVerb),
    /// Let a GPU fall off the bus: every call on it returns GPU_IS_LOST
    LoseGpu {
        /// The GPU's index
        gpu: usize,
    },
    /// Bring a lost GPU back
    RestoreGpu {
        /// The GPU's index
        gpu: usize,
    },
    /// Reset a GPU that no process uses: its instances are gone, its pending MIG mode is the current one
    ResetGpu {
        /// The GPU's index
        gpu: usize,
    },
    /// Restart the machine: no processes, no instances, pending MIG modes are current, lost GPUs are back
    Reboot,
    /// Let programs use GPUs, so that nothing under them can be changed
    #[command(subcommand)]
    Process(process::ProcessVerb),
    /// Say how a GPU's hardware does; what is left out stays as it is
    Vitals(vitals::Vitals),
    /// Raise an XID error of a GPU, or of an instance of it
    Xid {
        /// The XID
        xid: u64,
        #[command(flatten)]
        part: Part,
    },
    /// Lay the machine's device nodes and /proc and /sys files out below a directory, and keep them as the machine is
    Layout {
        /// The directory; its dev/nvidia*, proc/devices, proc/driver/nvidia* and sys/bus/pci/devices are replaced
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// Make plain files in place of device nodes, as is done anyway where mknod is not permitted
        #[arg(long)]
        plain_files: bool,
        /// Leave the nodes of instances in dev/nvidia-caps to others, as a driver does
        #[arg(long)]
        without_instance_nodes: bool,
        /// Also copy this library to usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 (or this architecture's folder)
        #[arg(long, value_name = "PATH")]
        library: Option<PathBuf>,
    },
    /// Be a node's driver until SIGTERM: lay everything out below a directory, the library and its machine too, then take it away
    Node(node::Node),
    /// Say by the exit code whether `node` of this host name is the directory's driver now (0) or not (1)
    Ready {
        /// The directory
        #[arg(long, value_name = "DIR", env = "FAKE_NVML_ROOT")]
        root: PathBuf,
    },
}

/// A GPU or a part of it.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Part {
    /// The GPU's index
    #[arg(long, value_name = "INDEX")]
    gpu: usize,
    /// A GPU instance of it, by id
    #[arg(long, value_name = "ID")]
    instance: Option<u32>,
    /// A compute instance in that, by id
    #[arg(long, value_name = "ID", requires = "instance")]
    compute: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum FaultVerb {
    /// Add a fault; of several that match a call the first one added counts
    #[command(group = clap::ArgGroup::new("effect").required(true).multiple(true).args(["returns", "delay"]))]
    Add {
        /// The function, e.g. nvmlDeviceGetMigMode
        #[arg(long, value_name = "FUNCTION")]
        call: String,
        /// Only on this GPU, by index, and its MIG devices
        #[arg(long, value_name = "INDEX")]
        gpu: Option<usize>,
        /// Only the Nth such call from now on
        #[arg(long, value_name = "N")]
        nth: Option<u64>,
        /// What it returns, e.g. GPU_IS_LOST or NOT_SUPPORTED
        #[arg(long, value_name = "CODE")]
        returns: Option<String>,
        /// How long it takes, e.g. 250ms, 5s or never
        #[arg(long, value_name = "TIME")]
        delay: Option<String>,
    },
    /// Take all faults away, the scene's too
    Clear,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Scene(#[from] SceneError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0}")]
    Node(String),
    #[error("unable to print: {0}")]
    Print(#[from] io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Scene(_) | Self::Store(StoreError::Scene(_)) => ExitCode::from(2),
            Self::Layout(LayoutError::OwnFiles) | Self::Store(StoreError::Layout(LayoutError::OwnFiles)) => {
                ExitCode::from(2)
            }
            Self::Store(StoreError::Refused(refused)) if refused.is_of_words() => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

type Done<T = ()> = Result<T, Failure>;

impl Arguments {
    pub(crate) fn run(mut self) -> Done {
        // Beside a `node` that was told of its directory by the environment, other verbs are about its machine.
        let of_node = || std::env::var_os("FAKE_NVML_ROOT").filter(|root| !root.is_empty());
        self.state = self.state.or_else(|| of_node().map(|root| node::state(root.as_ref())));
        match &self.verb {
            Verb::Check { scene } => fake_nvml::load(scene, 1).map(|_| ()).map_err(Failure::from),
            Verb::Show { output } => {
                let world = self.world()?;
                match output {
                    Format::Text => show::text(&world, &mut io::stdout().lock()),
                    Format::Json => show::json(&world, &mut io::stdout().lock()),
                }
            }
            Verb::Set { scene } => self.set(scene),
            Verb::Calls { output, reset } => {
                let store = self.store()?;
                calls(&store, *output)?;
                if *reset {
                    store.control().reset_calls();
                }
                Ok(())
            }
            Verb::Fault(verb) => self.fault(verb),
            Verb::LoseGpu { gpu } => Ok(self.store()?.change(|world| Ok(world.lose_gpu(*gpu)?))?),
            Verb::RestoreGpu { gpu } => Ok(self.store()?.change(|world| Ok(world.restore_gpu(*gpu)?))?),
            Verb::ResetGpu { gpu } => Ok(self.store()?.change(|world| Ok(world.reset_gpu(*gpu)?))?),
            Verb::Reboot => Ok(self.store()?.change(|world| {
                world.reboot();
                Ok(())
            })?),
            Verb::Process(verb) => process::run(verb, &self.store()?),
            Verb::Xid { xid, part } => {
                let raise = |world: &mut World| world.raise_xid(part.gpu, *xid, part.instance, part.compute);
                Ok(self.store()?.change(|world| Ok(raise(world)?))?)
            }
            Verb::Vitals(vitals) => vitals.run(&self.store()?),
            Verb::Node(node) => node.run(&self),
            Verb::Ready { root } => node::is_ready(root),
            Verb::Layout { root, plain_files, without_instance_nodes, library } => {
                let root = std::path::absolute(root).map_err(|error| Failure::Io(root.clone(), error))?;
                let layout = Layout { root, plain_files: *plain_files, instance_nodes: !without_instance_nodes };
                match &self.state {
                    Some(_) => self.store()?.lay_out(&layout)?,
                    None => fake_nvml::lay_out(&self.world()?, &layout)?,
                }
                Ok(library.iter().try_for_each(|library| fake_nvml::copy_library(&layout.root, library))?)
            }
        }
    }

    /// The machine of the state directory.
    fn store(&self) -> Done<Store> {
        self.open().map(|(store, _)| store)
    }

    fn open(&self) -> Done<(Store, World)> {
        let Some(directory) = &self.state else {
            return Err(Failure::Usage("no machine: give --state DIR or set FAKE_NVML_STATE".to_owned()));
        };
        let create = || match &self.scene {
            Some(scene) => fake_nvml::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string())),
            None => Err(StoreError::Scene(format!(
                "{} holds no machine yet: give --scene FILE or set FAKE_NVML_SCENE",
                directory.display()
            ))),
        };
        let (store, world, _) = Store::open(directory, create)?;
        Ok((store, world))
    }

    /// The machine of the state directory, or without one that of the scene.
    fn world(&self) -> Done<World> {
        match (&self.state, &self.scene) {
            (None, Some(scene)) => Ok(fake_nvml::load(scene, 1)?),
            (None, None) => Err(Failure::Usage("no machine: give --state DIR or --scene FILE".to_owned())),
            (Some(_), _) => Ok(self.open()?.1),
        }
    }

    fn set(&self, scene: &std::path::Path) -> Done {
        // A scene that is broken must not cost the machine that there is.
        fake_nvml::load(scene, 1)?;
        let create =
            Self { state: self.state.clone(), scene: Some(scene.to_owned()), verb: Verb::Fault(FaultVerb::Clear) };
        replace(&create.store()?, scene)
    }

    fn fault(&self, verb: &FaultVerb) -> Done {
        let store = self.store()?;
        let FaultVerb::Add { call, gpu, nth, returns, delay } = verb else {
            return Ok(store.change(|world| {
                world.faults.clear();
                Ok(())
            })?);
        };
        let fault = fake_nvml::fault(call, *gpu, *nth, returns.as_deref(), delay.as_deref())
            .map_err(|(_, reason)| Failure::Usage(reason))?;
        let refused = store.change(|world| {
            if let Some(gpu) = gpu.filter(|gpu| *gpu >= world.gpus.len()) {
                return Err(Refused::NoGpu { gpu, gpus: world.gpus.len() }.into());
            }
            if world.faults.len() >= fake_nvml::MAX_FAULTS {
                return Ok(Some(format!("more than {} faults", fake_nvml::MAX_FAULTS)));
            }
            store.control().reset_hits(world.faults.len());
            world.faults.push(fault);
            Ok(None)
        })?;
        refused.map_or(Ok(()), |reason| Err(Failure::Usage(reason)))
    }
}

/// Puts another machine in the place of the one that there is.
fn replace(store: &Store, scene: &std::path::Path) -> Done {
    store.change(|world| {
        *world = fake_nvml::load(scene, world.next_serial).map_err(|error| StoreError::Scene(error.to_string()))?;
        (0..world.faults.len()).for_each(|slot| store.control().reset_hits(slot));
        Ok(())
    })?;
    Ok(())
}

fn calls(store: &Store, format: Format) -> Done {
    use std::io::Write as _;
    let counts = store.control().calls();
    let mut named: Vec<(&str, u64)> = NAMES.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect();
    named.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let total: u64 = named.iter().map(|(_, count)| count).sum();
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            let functions: serde_json::Map<_, _> =
                named.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
            writeln!(out, "{}", serde_json::json!({ "total": total, "functions": functions }))?;
        }
        Format::Text => {
            for (name, count) in named {
                writeln!(out, "{count:>9}  {name}")?;
            }
            writeln!(out, "{total:>9}  in all")?;
        }
    }
    Ok(())
}
