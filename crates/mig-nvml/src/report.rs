//! What became of the steps of a change.

use mig_model::{ComputeInstance, GpuInstance, MigUuid, Placement, Profile, Step};

use crate::error::DriverError;

/// How far a change is, for those who watch.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step is about to be taken.
    Starting {
        /// Which.
        step: &'a Step,
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// It has been taken.
    Done {
        /// Which.
        step: &'a Step,
    },
}

/// What became of a change: every step is in exactly one of `done`, `failed` and `left`.
#[derive(Debug, Default)]
pub struct Report {
    /// What was done, in order.
    pub done: Vec<Done>,
    /// What failed; nothing was tried after it.
    pub failed: Option<Failed>,
    /// What was not tried.
    pub left: Vec<Step>,
    /// Whether steps are left because whoever watched said so.
    pub interrupted: bool,
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a step, as the driver told it afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is gone.
    Destroyed,
    /// A GPU instance with its compute instances.
    Created(GpuInstance),
    /// A compute instance.
    CreatedCompute {
        /// In which GPU instance.
        gpu_instance: u32,
        /// What it is.
        compute_instance: ComputeInstance,
    },
    /// MIG mode.
    Mode {
        /// In force.
        enabled: bool,
        /// In force after the next reset.
        pending: bool,
        /// What became of the switch.
        activation: Activation,
    },
}

/// What became of a switch of MIG mode, which the driver has noted in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activation {
    /// It is in force.
    Done,
    /// Something uses the GPU; when that has ended, the GPU has to be reset.
    ClientsInTheWay,
    /// The GPU has to be reset.
    NeedsReset,
    /// Another answer of the driver's.
    Other {
        /// A word for machines.
        kind: &'static str,
        /// The driver's words.
        message: String,
    },
}

/// A step that failed.
#[derive(Debug)]
pub struct Failed {
    /// Which.
    pub step: Step,
    /// Why.
    pub error: StepError,
}

/// Why a step failed. A step that failed has changed nothing, unless the error says what.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The driver would not.
    #[error("unable to {tried}: {error}")]
    Driver {
        /// What was tried.
        tried: String,
        /// The driver's answer.
        error: DriverError,
    },
    /// What the step is about is gone, or something else has its number now.
    #[error("{what} is not what it was when this was planned: {now}. Nothing was done to it; look again and plan anew")]
    Changed {
        /// What the step is about.
        what: String,
        /// What is there instead.
        now: String,
    },
    /// The driver lists no such profile here.
    #[error("unable to {tried}: there is no profile {profile} here, only {}", list(known))]
    UnknownProfile {
        /// What was tried.
        tried: String,
        /// What was asked for.
        profile: Profile,
        /// What there is.
        known: Vec<Profile>,
    },
    /// The driver put it elsewhere.
    #[error("{profile} was asked for at {wanted}, and the driver put it at {got}")]
    Misplaced {
        /// What was created.
        profile: Profile,
        /// Where it was to be.
        wanted: Placement,
        /// Where it was put.
        got: Placement,
    },
    /// A creation failed when something had been created already.
    #[error("{cause}; {}", remains(left_behind.as_deref()))]
    Created {
        /// What failed.
        cause: Box<StepError>,
        /// None if it was taken away again, else why it could not be.
        left_behind: Option<Box<StepError>>,
    },
    /// A destruction failed when a part was destroyed already, which nothing brings back.
    #[error("{cause}; before that, {} had been destroyed", uuids(destroyed))]
    Destroyed {
        /// What failed.
        cause: Box<StepError>,
        /// Compute instances that are gone.
        destroyed: Vec<MigUuid>,
    },
}

fn list(profiles: &[Profile]) -> String {
    match profiles {
        [] => "none".to_owned(),
        profiles => profiles.iter().map(Profile::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn uuids(uuids: &[MigUuid]) -> String {
    uuids.iter().map(MigUuid::to_string).collect::<Vec<_>>().join(", ")
}

fn remains(left_behind: Option<&StepError>) -> String {
    match left_behind {
        None => "what had been created was taken away again".to_owned(),
        Some(error) => format!("and what had been created is still there: {error}"),
    }
}

// === impl StepError ===

impl StepError {
    /// A word for exit codes, metrics and tests: NVML's where the driver would not (`InUse`, `NoPermission`,
    /// `InsufficientResources`, `GpuIsLost`, ...), else what is wrong.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Driver { error, .. } => error.kind(),
            Self::Changed { .. } => "Changed",
            Self::UnknownProfile { .. } => "UnknownProfile",
            Self::Misplaced { .. } => "Misplaced",
            Self::Created { cause, .. } | Self::Destroyed { cause, .. } => cause.kind(),
        }
    }

    /// What the driver said, where it is the driver that would not.
    pub fn driver(&self) -> Option<&DriverError> {
        match self {
            Self::Driver { error, .. } => Some(error),
            Self::Created { cause, .. } | Self::Destroyed { cause, .. } => cause.driver(),
            Self::Changed { .. } | Self::UnknownProfile { .. } | Self::Misplaced { .. } => None,
        }
    }

    /// Whether the GPU is cut otherwise than before the step.
    pub fn changed_something(&self) -> bool {
        matches!(self, Self::Created { left_behind: Some(_), .. } | Self::Destroyed { .. })
    }
}
