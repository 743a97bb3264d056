use std::io;
use std::path::Path;

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
