//! What a call answered, and what it should have: every failure names the function, what was expected and what came.

use std::fmt::{Debug, Display};

use crate::code::Code;

/// A statement holds, or why not.
pub type Verdict<T = ()> = Result<T, Stop>;

/// Why a statement goes no further.
#[derive(Debug)]
pub enum Stop {
    /// NVML does something else.
    Broken(String),
    /// It cannot be tried here.
    Skipped(String),
}

/// The statement cannot be tried here.
pub fn skip<T>(reason: impl Into<String>) -> Verdict<T> {
    Err(Stop::Skipped(reason.into()))
}

/// The statement does not hold.
pub fn broken<T>(what: impl Into<String>) -> Verdict<T> {
    Err(Stop::Broken(what.into()))
}

/// `what` is as expected.
#[allow(clippy::needless_pass_by_value, reason = "most callers have values, and references are values too")]
pub fn equal<T: PartialEq + Debug>(what: impl Display, got: T, expected: T) -> Verdict {
    if got == expected { Ok(()) } else { broken(format!("{what}: expected {expected:?}, got {got:?}")) }
}

/// `what` is so.
pub fn holds(what: impl Display, so: bool) -> Verdict {
    if so { Ok(()) } else { broken(format!("{what}")) }
}

/// The answer to one call of one function.
#[must_use = "an answer that nobody looks at states nothing"]
#[derive(Debug)]
pub struct Call<T> {
    what: String,
    /// `None`: the library does not export the function.
    code: Option<Code>,
    value: T,
}

impl<T> Call<T> {
    pub(crate) fn new(function: &str, code: Option<Code>, value: T) -> Self {
        Self { what: function.to_owned(), code, value }
    }

    /// Says on what it was called.
    pub fn on(mut self, arguments: impl Display) -> Self {
        self.what = format!("{} on {arguments}", self.what);
        self
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Call<U> {
        Call { what: self.what, code: self.code, value: change(self.value) }
    }

    /// What it returned. A function that an old library lacks cannot be tried.
    pub fn code(&self) -> Verdict<Code> {
        match self.code {
            Some(code) => Ok(code),
            None => skip(format!("the library has no {}", self.what)),
        }
    }

    /// It succeeds, with this value.
    pub fn value(self) -> Verdict<T> {
        self.returns(Code::SUCCESS)?;
        Ok(self.value)
    }

    /// Its value if it succeeds, nothing if it returns `otherwise`; anything else is broken.
    pub fn value_or(self, otherwise: Code) -> Verdict<Option<T>> {
        match self.code()? {
            Code::SUCCESS => Ok(Some(self.value)),
            code if code == otherwise => Ok(None),
            code => broken(format!("{}: expected {} or {otherwise}, got {code}", self.what, Code::SUCCESS)),
        }
    }

    /// It returns this code.
    pub fn returns(&self, expected: Code) -> Verdict {
        match self.code()? {
            code if code == expected => Ok(()),
            code => broken(format!("{}: expected {expected}, got {code}", self.what)),
        }
    }

    /// It returns one of these codes, which one is not known.
    pub fn returns_one_of(&self, expected: &[Code]) -> Verdict {
        match self.code()? {
            code if expected.contains(&code) => Ok(()),
            code => broken(format!("{}: expected one of {expected:?}, got {code}", self.what)),
        }
    }
}

impl<T: PartialEq + Debug> Call<T> {
    /// It succeeds, with this very value.
    pub fn gives(self, expected: T) -> Verdict {
        let what = self.what.clone();
        equal(what, self.value()?, expected)
    }
}
