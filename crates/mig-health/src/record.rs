//! What has to outlive the process: nobody tells an XID twice. Kept by whoever does I/O, as `health.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of this form. Another's is not read.
pub const VERSION: u32 = 1;

/// What is known of events that the driver has told once. Times are milliseconds after the machine's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Of which start of the machine; what another start has seen is over. Filled in by who keeps it.
    pub boot_id: String,
    /// Whose kubelet's agent wrote it: another's, on the same machine, may see other GPUs. Filled in by who keeps it.
    pub kubelet_root: String,
    /// Each event that counts, or counted not long ago.
    pub faults: Vec<Held>,
    /// Memory errors that could not be corrected, as last seen of each GPU.
    pub uncorrectable_errors: BTreeMap<String, u64>,
}

impl Record {
    /// With what an earlier process wrote down and nobody has taken up yet.
    #[must_use]
    pub fn beside(mut self, earlier: &Self) -> Self {
        let is_known = |held: &&Held| {
            self.faults.iter().any(|own| (&own.gpu, &own.slice, own.xid) == (&held.gpu, &held.slice, held.xid))
        };
        let others: Vec<Held> = earlier.faults.iter().filter(|held| !is_known(held)).cloned().collect();
        self.faults.extend(others);
        // What has risen since is not known to anybody.
        self.uncorrectable_errors.extend(earlier.uncorrectable_errors.clone());
        self
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// On which GPU.
    pub gpu: String,
    /// In which of its slices; nothing if it concerns the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// The XID; nothing if an error counter has risen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u64>,
    /// For people.
    pub message: String,
    /// When it first happened.
    pub since_ms: u64,
    /// When it last happened.
    pub last_ms: u64,
    /// How often it has come back since.
    #[serde(default)]
    pub returns: u32,
    /// When it was over, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}
