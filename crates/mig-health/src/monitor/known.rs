//! What is remembered of a GPU from one look to the next.

use std::time::Duration;

use mig_model::{Gpu, MigUuid, Recovery as Wanted, Vitals};

use crate::Moment;

/// Memory errors come with an XID that says whose they are. Where it is late, or was missed, the counter counts.
pub(super) const DOUBT: Duration = Duration::from_secs(1);
/// An XID of memory explains what counters show for so long.
const EXPLAINED: Duration = Duration::from_secs(10);
/// What the last readings told of a GPU.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// It could not be reached, which only a reset mends.
    pub(super) lost: bool,
    /// Whether the driver wants something done, and whether rows wait to be replaced: its last words on it.
    pub(super) wanted: Option<bool>,
    pub(super) pending: Option<bool>,
    pub(super) errors: Option<u64>,
    /// Since when a counter has risen without an XID that says why.
    pub(super) doubt: Option<Moment>,
    /// When the last XID of memory came.
    pub(super) memory: Option<Moment>,
    pub(super) read: bool,
    /// It could be read the last time.
    pub(super) answers: bool,
    pub(super) cut: bool,
    pub(super) slices: Vec<Slice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) instance: u32,
    pub(super) compute: u32,
    pub(super) uuid: MigUuid,
}

impl Known {
    /// Whether errors of memory have to count here, because no XID says whose they are.
    pub(super) fn rises(&mut self, vitals: &Vitals, now: Moment) -> bool {
        let (Some(count), Some(before)) = (vitals.uncorrectable_errors, self.errors) else {
            // Those of the time before the first look have been dealt with, or the driver wants something done.
            self.errors = vitals.uncorrectable_errors.or(self.errors);
            self.doubt = None;
            return false;
        };
        if count <= before {
            self.doubt = None;
            return false;
        }
        if self.memory.is_some_and(|at| now.saturating_sub(at) <= EXPLAINED) {
            (self.errors, self.doubt) = (Some(count), None);
            return false;
        }
        let since = *self.doubt.get_or_insert(now);
        let rises = now.saturating_sub(since) >= DOUBT;
        if rises {
            (self.errors, self.doubt) = (Some(count), None);
        }
        rises
    }

    /// Whether it was reset since the last look, by what a reset alone brings about.
    pub(super) fn was_reset(&mut self, vitals: &Vitals) -> bool {
        let wanted = vitals.recovery.map(|recovery| recovery != Wanted::None).or(self.wanted);
        let pending = vitals.remapped_rows.map(|rows| rows.pending).or(self.pending);
        let ended = |before: Option<bool>, now: Option<bool>| before == Some(true) && now == Some(false);
        let fell = vitals.uncorrectable_errors.zip(self.errors).is_some_and(|(now, before)| now < before);
        if fell {
            self.errors = vitals.uncorrectable_errors;
        }
        let reset = self.lost || fell || ended(self.wanted, wanted) || ended(self.pending, pending);
        (self.lost, self.wanted, self.pending) = (false, wanted, pending);
        reset
    }
}

pub(super) fn slices(gpu: &Gpu) -> Vec<Slice> {
    let parts = gpu.instances.iter().flat_map(|instance| instance.compute_instances.iter().map(move |c| (instance, c)));
    parts
        .map(|(instance, compute)| Slice { instance: instance.id, compute: compute.id, uuid: compute.uuid.clone() })
        .collect()
}
