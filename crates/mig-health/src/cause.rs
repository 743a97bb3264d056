//! One thing that keeps a GPU or a slice from being well, from its first occurrence until it is forgotten.
//!
//! ```text
//!            occurs                     nothing speaks for it any more, for `wait`
//!   (none) ---------> present --> fading ------------------------------------------> over --longest--> forgotten
//!                        ^           | occurs                                          | occurs: the next wait is twice
//!                        +-----------+<------------------------------------------------+ as long, up to `longest`
//! ```

use std::time::Duration;

use mig_model::{Fault, GpuUuid, MigUuid};

use crate::Moment;
use crate::policy::Recovery;
use crate::states::State;
use crate::table::Ending;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The driver does not answer for it.
    Driver,
    /// The driver answers for nothing.
    Hang,
    /// Its vitals say so.
    State(State),
    /// An error that the driver has reported.
    Xid(u64),
    /// Nobody would learn of its errors.
    Unwatched,
}

/// What it is, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) gpu: GpuUuid,
    /// Nothing if it concerns the whole GPU.
    pub(crate) slice: Option<MigUuid>,
    pub(crate) what: What,
}

/// How it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) fault: Fault,
    /// When an event is over; nothing for a state.
    pub(crate) ending: Option<Ending>,
    /// When it first occurred.
    pub(crate) since: Moment,
    /// When it last occurred.
    pub(crate) last: Moment,
    /// Since when nothing speaks for it any more.
    pub(crate) fading: Option<Fading>,
    /// How often it has come back.
    pub(crate) returns: u32,
    /// When it was over.
    pub(crate) over: Option<Moment>,
}

/// Why it is about to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fading {
    pub(crate) since: Moment,
    pub(crate) proof: Proof,
}

/// What speaks for the end of a fault of hardware, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    /// The GPU answers, and what it tells is fine.
    Answers,
    /// And the driver says that it wants nothing done.
    Confirmed,
    /// It was reset since.
    Reset,
}

impl Cause {
    pub(crate) fn new(fault: Fault, ending: Option<Ending>, now: Moment) -> Self {
        let mut cause = Self { fault, ending, since: now, last: now, fading: None, returns: 0, over: None };
        cause.starts_to_fade_at_once();
        cause
    }

    /// It happens, or is seen, again.
    pub(crate) fn occurs(&mut self, fault: Fault, recovery: &Recovery, now: Moment) {
        if let Some(over) = self.over.take() {
            let soon = now.saturating_sub(over) <= recovery.longest;
            self.returns = if soon { self.returns.saturating_add(1) } else { 0 };
            self.since = now;
        }
        self.fault = fault;
        self.last = now;
        self.fading = None;
        self.starts_to_fade_at_once();
    }

    /// Another kind of end counts from now on.
    pub(crate) fn ends_by(&mut self, ending: Ending) {
        if self.ending != Some(ending) {
            self.ending = Some(ending);
            self.fading = None;
            self.starts_to_fade_at_once();
        }
    }

    /// A program's error is a moment: quiet begins with its end.
    fn starts_to_fade_at_once(&mut self) {
        if self.ending == Some(Ending::Application) {
            self.fading = Some(Fading { since: self.last, proof: Proof::Answers });
        }
    }

    /// Nothing speaks for it any more. What has been so stays so from when it began.
    pub(crate) fn fades(&mut self, proof: Proof, now: Moment) {
        match &mut self.fading {
            Some(fading) => fading.proof = fading.proof.max(proof),
            None => self.fading = Some(Fading { since: now, proof }),
        }
    }

    /// How long it has to stay away.
    pub(crate) fn wait(&self, recovery: &Recovery) -> Duration {
        let proof = self.fading.map_or(Proof::Confirmed, |fading| fading.proof);
        let base = match (self.ending, proof) {
            (Some(Ending::Application), _) => recovery.application,
            (Some(Ending::Hardware), Proof::Answers) => recovery.unconfirmed,
            (Some(Ending::Hardware), Proof::Confirmed) => recovery.hardware,
            (Some(Ending::Hardware), Proof::Reset) | (None, _) => recovery.state,
        };
        base.saturating_mul(2_u32.saturating_pow(self.returns)).min(recovery.longest)
    }

    /// When it will be over, if nothing happens.
    pub(crate) fn end(&self, recovery: &Recovery) -> Option<Moment> {
        self.fading.map(|fading| fading.since.saturating_add(self.wait(recovery)))
    }

    /// Marks it as over if it is. What is over for long enough may be forgotten: then the answer is false.
    pub(crate) fn settle(&mut self, recovery: &Recovery, now: Moment) -> bool {
        if self.over.is_none() {
            self.over = self.end(recovery).filter(|end| *end <= now);
        }
        self.over.is_none_or(|over| now.saturating_sub(over) <= recovery.longest)
    }

    pub(crate) fn counts(&self) -> bool {
        self.over.is_none()
    }

    /// The worst comes first; of equals, the older.
    pub(crate) fn rank(&self, what: What) -> (u8, Moment) {
        let rank = match (what, self.ending) {
            (What::Driver, _) => 0,
            (What::Hang, _) => 1,
            (What::State(State::RecoveryWanted), _) => 2,
            (What::Xid(_), Some(Ending::Hardware)) => 3,
            (What::State(State::RowRemapFailed), _) => 4,
            (What::State(State::UncorrectableErrors), _) => 5,
            (What::State(State::RowRemapPending), _) => 6,
            (What::Xid(_), _) => 7,
            (What::Unwatched, _) => 8,
        };
        (rank, self.since)
    }

    /// What is wrong, and what has to happen. The same words for as long as nothing changes: each other word is a list
    /// for the kubelet.
    pub(crate) fn told(&self, recovery: &Recovery) -> Fault {
        let wait = humantime::format_duration(self.wait(recovery));
        let then = match (self.ending, self.fading.map(|fading| fading.proof)) {
            (Some(Ending::Application), _) => format!("; well again {wait} after the last one"),
            (Some(Ending::Hardware), None) => {
                "; well again when the GPU answers and the driver wants nothing done, or after a reset".to_owned()
            }
            (Some(Ending::Hardware), Some(Proof::Answers)) => {
                format!("; the GPU answers, well again if that stays so for {wait}")
            }
            (Some(Ending::Hardware), Some(Proof::Confirmed)) => {
                format!("; the driver wants nothing done, well again if that stays so for {wait}")
            }
            (Some(Ending::Hardware), Some(Proof::Reset)) => {
                format!("; it was reset, well again if nothing happens for {wait}")
            }
            (None, Some(_)) => format!("; that is over, well again if it stays so for {wait}"),
            (None, None) => String::new(),
        };
        Fault { kind: self.fault.kind, message: format!("{}{then}", self.fault.message) }
    }
}
