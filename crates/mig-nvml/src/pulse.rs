//! What the driver's thread is at, and since when: whoever looks can tell whether it is stuck. It wakes nobody by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It asks the driver.
    Asking,
    /// It waits in the driver for events, for so long at most.
    Waiting(Duration),
    /// It has nothing to do with the driver.
    Resting,
}

/// A phase, and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    phase: Phase,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Pulse {
    beat: Mutex<Beat>,
    /// A call was late, and others were told.
    late: AtomicBool,
}

impl Beat {
    fn of(phase: Phase) -> Self {
        Self { phase, since: Instant::now() }
    }

    /// By when the driver should have answered; nothing if it was not asked.
    pub(crate) fn due(self, deadline: Duration) -> Option<Instant> {
        match self.phase {
            Phase::Asking => self.since.checked_add(deadline),
            Phase::Waiting(longest) => self.since.checked_add(longest.saturating_add(deadline)),
            Phase::Resting => None,
        }
    }
}

impl Pulse {
    /// Before the thread runs, so that a first call that hangs at once is noticed.
    pub(crate) fn new() -> Self {
        Self { beat: Mutex::new(Beat::of(Phase::Asking)), late: AtomicBool::new(false) }
    }

    pub(crate) fn set(&self, phase: Phase) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Beat::of(phase);
    }

    pub(crate) fn get(&self) -> Beat {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others are told that it is late.
    pub(crate) fn mark_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// Whether others were told so since this was asked last: only a reading says that it is over.
    pub(crate) fn was_late(&self) -> bool {
        self.late.swap(false, Ordering::Relaxed)
    }
}
