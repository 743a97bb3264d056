use std::io;
use std::path::Path;

use mig_nvml::{DriverError, LockError, StepError};

/// How a run ended, as the shell sees it. Public: `migctl --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    DoesNotFit = 3,
    InUse = 4,
    NotPermitted = 5,
    NeedsReset = 6,
    NotFound = 7,
    Interrupted = 130,
}

/// Why a verb did not do what it was asked to, and what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A word for machines: `UnknownGpu`.
    pub(crate) kind: &'static str,
    /// What went wrong; lower case, no full stop.
    pub(crate) message: String,
    /// What to do, a line each.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        Self { exit, kind, message: message.into(), hints: Vec::new() }
    }

    pub(crate) fn failed(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, kind, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "Usage", message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A file that could not be read or written.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let (exit, kind) = match error.kind() {
            io::ErrorKind::NotFound => (Exit::NotFound, "FileNotFound"),
            io::ErrorKind::PermissionDenied => (Exit::NotPermitted, "NoPermission"),
            _ => (Exit::Failed, "File"),
        };
        Self::new(exit, kind, format!("unable to {doing} {}: {error}", path.display()))
    }

    /// The answer could not be written. A reader that went away wants no more, and no complaint.
    pub(crate) fn output(error: &io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { "Output" };
        Self::failed(kind, format!("unable to write the answer: {error}"))
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.kind == BROKEN_PIPE
    }
}

const BROKEN_PIPE: &str = "BrokenPipe";

/// What a word of the driver's means to the shell.
fn exit_of(kind: &str) -> Exit {
    match kind {
        "NoPermission" => Exit::NotPermitted,
        "InUse" => Exit::InUse,
        "InsufficientResources" | "Misplaced" => Exit::DoesNotFit,
        "NotFound" | "UnknownProfile" => Exit::NotFound,
        "ResetRequired" => Exit::NeedsReset,
        _ => Exit::Failed,
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self::new(exit_of(error.kind()), error.kind(), error.to_string())
    }
}

impl From<&StepError> for Failure {
    fn from(error: &StepError) -> Self {
        let failure = Self::new(exit_of(error.kind()), error.kind(), error.to_string());
        if error.kind() == "InUse" { failure.hint("who uses it: migctl list config") } else { failure }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let message = error.to_string();
        match error {
            LockError::Held { .. } => {
                Self::new(Exit::InUse, "Locked", message).hint("try again when it has ended; nothing was changed")
            }
            LockError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(Exit::NotPermitted, "NoPermission", message)
                    .hint("run as root, or name a file that you may write by --lock-file")
            }
            LockError::Io { .. } => Self::failed("Lock", message).hint("name another file by --lock-file"),
        }
    }
}
