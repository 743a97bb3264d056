//! What the driver's thread is at, and since when: whoever looks can tell whether it is stuck. It wakes nobody by it.

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
pub(crate) struct Pulse(Mutex<Beat>);

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
        Self(Mutex::new(Beat::of(Phase::Asking)))
    }

    pub(crate) fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Beat::of(phase);
    }

    pub(crate) fn get(&self) -> Beat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
