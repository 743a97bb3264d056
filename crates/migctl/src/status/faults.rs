//! What is wrong with GPUs and slices: what their vitals say now, and the errors that the node's agent was told of.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use mig_health::{Held, Record, VERSION, faults};
use mig_model::{Fault, Gpu, MigUuid};

use crate::args::Options;

/// More than any agent writes.
const MOST_BYTES: u64 = 4 << 20;

/// What the agent of this node wrote down; nothing if there is none.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Held>);

impl Faults {
    pub(super) fn read(directory: &Path, options: &Options) -> Self {
        Self(recorded(directory, options).map(|record| record.faults).unwrap_or_default())
    }

    fn held(&self, gpu: Option<&str>, slice: Option<&str>) -> impl Iterator<Item = Fault> {
        let is = move |held: &&Held| {
            held.ended_ms.is_none() && held.slice.as_deref() == slice && gpu.is_none_or(|gpu| held.gpu == gpu)
        };
        self.0.iter().filter(is).map(|held| Fault {
            kind: if held.xid.is_some() { "Xid" } else { "UncorrectableErrors" },
            message: held.message.replace(char::is_control, "\u{fffd}"),
        })
    }

    /// Of a whole GPU.
    pub(super) fn of_gpu(&self, gpu: &Gpu) -> Vec<Fault> {
        let told = faults(&gpu.vitals).into_iter().map(|(_, fault)| fault);
        told.chain(self.held(Some(gpu.uuid.as_str()), None)).collect()
    }

    /// Of one slice.
    pub(super) fn of_slice(&self, uuid: &MigUuid) -> Vec<Fault> {
        self.held(None, Some(uuid.as_str())).collect()
    }
}

/// What is of another start of the machine is over.
fn recorded(directory: &Path, options: &Options) -> Option<Record> {
    let mut text = Vec::new();
    fs::File::open(directory.join("health.json")).ok()?.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let boot_id = |root: &Path| fs::read_to_string(root.join("sys/kernel/random/boot_id"));
    let boot_id = boot_id(&options.proc_root).or_else(|_| boot_id(Path::new("/proc"))).unwrap_or_default();
    (record.version == VERSION && record.boot_id == boot_id.trim()).then_some(record)
}
