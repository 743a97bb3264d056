//! Faults: functions that fail, are slow or never return, and GPUs that are lost.

use std::{thread, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    code::{CODES, Code},
    function::{self, Function},
    store::Control,
    world::World,
};

/// How many faults a machine can have at once: each has a counter in the shared page.
pub const MAX_FAULTS: usize = 64;

/// A function that misbehaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Which function, by number.
    pub function: usize,
    /// Only on this GPU and its MIG devices.
    pub gpu: Option<usize>,
    /// Only this call of those that match, from 1.
    pub nth: Option<u64>,
    /// What it returns; without it the call goes on after its delay.
    pub returns: Option<u32>,
    /// How long it takes.
    pub delay: Option<Delay>,
}

/// How long a slow call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delay {
    /// It never returns.
    Never,
    /// Milliseconds.
    For(u64),
}

/// What a fault makes of a call.
pub(crate) struct Verdict {
    pub(crate) delay: Option<Delay>,
    pub(crate) returns: Option<Code>,
}

impl Delay {
    /// `5s`, `250ms`, `2m` or `never`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..) {
            Some("ms") => Some(1),
            Some("s") => Some(1000),
            Some("m") => Some(60_000),
            _ => None,
        };
        digits
            .parse::<u64>()
            .ok()
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(unit))
            .map(Self::For)
            .ok_or_else(|| format!("unable to read {text:?} as a delay, expected e.g. 250ms, 5s, 2m or never"))
    }

    pub(crate) fn pass(self) {
        match self {
            Self::For(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
            Self::Never => loop {
                thread::park();
            },
        }
    }
}

/// The fault that this call meets, if any: the first that matches.
pub(crate) fn verdict(world: &World, control: &Control, function: Function, gpu: Option<usize>) -> Option<Verdict> {
    for (slot, fault) in world.faults.iter().enumerate() {
        if fault.function != function.number() || (fault.gpu.is_some() && fault.gpu != gpu) {
            continue;
        }
        if let Some(nth) = fault.nth
            && control.hit(slot) != nth
        {
            continue;
        }
        return Some(Verdict { delay: fault.delay, returns: fault.returns.map(Code) });
    }
    None
}

/// Which part of a fault is wrong.
#[derive(Debug)]
pub enum FaultPart {
    /// The function's name.
    Call,
    /// The code.
    Returns,
    /// The delay.
    Delay,
    /// Which call.
    Nth,
}

/// A fault from its words.
pub fn fault(
    call: &str,
    gpu: Option<usize>,
    nth: Option<u64>,
    returns: Option<&str>,
    delay: Option<&str>,
) -> Result<Fault, (FaultPart, String)> {
    let Some(function) = function::number_of(call) else {
        return Err((FaultPart::Call, format!("unknown function {call:?}; the library has no such export")));
    };
    let code = |name: &str| {
        Code::named(name).ok_or_else(|| {
            let known: Vec<&str> = CODES.iter().map(|(name, _, _)| *name).collect();
            (FaultPart::Returns, format!("unknown return code {name:?}; known: {}", known.join(", ")))
        })
    };
    let returns = returns.map(code).transpose()?.map(|code| code.0);
    let delay = delay.map(Delay::parse).transpose().map_err(|reason| (FaultPart::Delay, reason))?;
    if returns.is_none() && delay.is_none() {
        return Err((FaultPart::Call, "a fault needs returns, delay or both".to_owned()));
    }
    if nth == Some(0) {
        return Err((FaultPart::Nth, "nth counts from 1".to_owned()));
    }
    Ok(Fault { function, gpu, nth, returns, delay })
}
