//! What else could be cut from a GPU. Large profiles lie in the halves of a GPU's memory slices, smaller ones in the quarters,
//! and so on: as long as nothing in such a part is in use, it can be cut anew.

use mig_model::Placement;

/// Memory slices that are asked about; no GPU has more.
const MOST: u32 = 64;

/// A GPU's memory slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    end: u32,
    /// Whether everything on it is three slices long, or a multiple: then it has twelve, and not eight.
    thirds: bool,
}

/// How much can be cut from a GPU: the number of its whole, halves, quarters... that are free, the larger before the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(u64);

impl Score {
    /// How much less the other is.
    pub(super) fn less(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

/// The memory slices of a placement, one bit each.
pub(super) fn mask(placement: Placement) -> u64 {
    let ones = |count: u32| u64::MAX.checked_shr(MOST.saturating_sub(count)).unwrap_or_default();
    if placement.end() > MOST { 0 } else { ones(placement.end()) & !ones(placement.start) }
}

impl Room {
    pub(super) fn new() -> Self {
        Self { end: 0, thirds: true }
    }

    /// Something that lies on the GPU.
    pub(super) fn add(&mut self, placement: Option<Placement>) {
        let known = placement.filter(|placement| placement.size > 0 && placement.end() <= MOST);
        if let Some(placement) = known {
            self.end = self.end.max(placement.end());
            self.thirds &= placement.size.is_multiple_of(3);
        }
    }

    /// What can be cut while these memory slices are in use.
    pub(super) fn score(self, busy: u64) -> Score {
        let (unit, fewest) = if self.thirds { (3, 4) } else { (1, 8) };
        let all = unit * self.end.div_ceil(unit).next_power_of_two().max(fewest);
        let mut score = 0_u64;
        let mut size = all;
        while size >= unit {
            let part = |start| mask(Placement { start, size });
            let free = (0..all.min(MOST) / size).filter(|number| part(number * size) & busy == 0).count();
            score = (score << 8) | u64::try_from(free).unwrap_or_default();
            if size == unit {
                break;
            }
            size /= 2;
        }
        Score(score)
    }
}
