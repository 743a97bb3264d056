//! Programs that use GPUs, as far as the driver can tell.

use std::io::{self, Write as _};

use clap::Subcommand;
use fake_nvml::{Process, Store, World};
use serde_json::{Value, json};

use super::{Done, Format, Part};

#[derive(Debug, Subcommand)]
pub(super) enum ProcessVerb {
    /// Let a process use a GPU, or an instance of it
    Add {
        #[command(flatten)]
        part: Part,
        /// Its number
        #[arg(long, value_name = "PID")]
        pid: u32,
        /// Its name [default: process-PID]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// How much GPU memory it uses
        #[arg(long, value_name = "MIB", default_value_t)]
        memory: u32,
        /// It draws, rather than computes
        #[arg(long)]
        graphics: bool,
    },
    /// Let a process end
    Remove {
        /// Its number
        #[arg(long, value_name = "PID")]
        pid: u32,
    },
    /// Show which processes use what
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub(super) fn run(verb: &ProcessVerb, store: &Store) -> Done {
    match verb {
        ProcessVerb::Add { part, pid, name, memory, graphics } => {
            let process = Process {
                pid: *pid,
                name: name.clone().unwrap_or_else(|| Process::nameless(*pid)),
                memory: u64::from(*memory) << 20,
                graphics: *graphics,
                instance: part.instance,
                compute: part.compute,
            };
            Ok(store.change(|world| Ok(world.add_process(part.gpu, process)?))?)
        }
        ProcessVerb::Remove { pid } => Ok(store.change(|world| Ok(world.remove_process(*pid)?))?),
        ProcessVerb::List { output } => list(&store.read()?.0, *output),
    }
}

fn list(world: &World, format: Format) -> Done {
    let all = world.gpus.iter().enumerate().flat_map(|(gpu, held)| held.processes.iter().map(move |own| (gpu, own)));
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            let found: Vec<Value> = all
                .map(|(gpu, process)| {
                    let mut told = of(process);
                    if let Some(fields) = told.as_object_mut() {
                        fields.insert("gpu".to_owned(), gpu.into());
                    }
                    told
                })
                .collect();
            writeln!(out, "{:#}", Value::from(found))?;
        }
        Format::Text => {
            for (gpu, process) in all {
                writeln!(out, "GPU {gpu}: {}", in_words(process))?;
            }
        }
    }
    Ok(())
}

pub(super) fn in_words(process: &Process) -> String {
    let place = match (process.instance, process.compute) {
        (Some(instance), Some(compute)) => format!("GPU instance {instance}, compute instance {compute}"),
        (Some(instance), None) => format!("GPU instance {instance}"),
        _ => "the whole GPU".to_owned(),
    };
    let does = if process.graphics { "draws" } else { "computes" };
    format!("process {} ({}) {does} on {place}, {} MiB", process.pid, process.name, process.memory >> 20)
}

pub(super) fn of(process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "name": process.name,
        "memory": process.memory,
        "graphics": process.graphics,
        "instance": process.instance,
        "compute": process.compute,
    })
}
