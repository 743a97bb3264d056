//! What the agent of this node has written down. What is not there, or is of another start of the machine, is not told.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use mig_health::{Record, VERSION};
use mig_model::{NOTE_VERSION, Note};
use serde::de::DeserializeOwned;

use crate::args::Options;

/// More than any agent writes.
const MOST_BYTES: u64 = 4 << 20;

/// Faults that the driver has told it of.
pub(crate) fn faults(options: &Options) -> Option<Record> {
    let record: Record = read(options, "health.json")?;
    (record.version == VERSION && record.boot_id == boot_id(options)).then_some(record)
}

/// One of its notes on devices.
pub(crate) fn note<T: DeserializeOwned>(options: &Options, name: &str) -> Vec<T> {
    let note = read::<Note<T>>(options, name);
    let is_true = |note: &Note<T>| note.version == NOTE_VERSION && note.boot_id == boot_id(options);
    note.filter(is_true).map(|note| note.devices).unwrap_or_default()
}

fn read<T: DeserializeOwned>(options: &Options, name: &str) -> Option<T> {
    let mut text = Vec::new();
    fs::File::open(options.state_dir.join(name)).ok()?.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn boot_id(options: &Options) -> String {
    let read = |root: &Path| fs::read_to_string(root.join("sys/kernel/random/boot_id"));
    let text = read(&options.proc_root).or_else(|_| read(Path::new("/proc"))).unwrap_or_default();
    text.trim().to_owned()
}
