//! What the vitals of a GPU say by themselves.

use mig_model::{Fault, Recovery, Vitals};
use serde::Deserialize;

/// Something about a GPU's hardware that keeps it from being well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The driver wants something done.
    RecoveryWanted,
    /// A row of memory could not be replaced.
    RowRemapFailed,
    /// There were new memory errors that could not be corrected. Not a state of the moment: the counter has risen.
    UncorrectableErrors,
    /// Rows of memory wait to be replaced.
    RowRemapPending,
}

impl State {
    /// As faults and metrics have it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::RecoveryWanted => "RecoveryWanted",
            Self::RowRemapFailed => "RowRemapFailed",
            Self::UncorrectableErrors => "UncorrectableErrors",
            Self::RowRemapPending => "RowRemapPending",
        }
    }

    pub(crate) fn fault(self, vitals: &Vitals) -> Fault {
        let message = match self {
            Self::RecoveryWanted => wanted(vitals.recovery.unwrap_or(Recovery::None)),
            Self::RowRemapFailed => {
                "a memory row could not be replaced by a spare one: reset the GPU, and have it replaced if that stays \
                 (nvidia-smi -q -d ROW_REMAPPER)"
                    .to_owned()
            }
            Self::UncorrectableErrors => {
                "memory errors that could not be corrected: reset the GPU when its slices are free (nvidia-smi -q -d ECC)"
                    .to_owned()
            }
            Self::RowRemapPending => {
                "memory rows wait to be replaced by spare ones: reset the GPU when its slices are free".to_owned()
            }
        };
        Fault { kind: self.kind(), message }
    }
}

fn wanted(recovery: Recovery) -> String {
    match recovery {
        Recovery::None => "the driver wants nothing done".to_owned(),
        Recovery::GpuReset => {
            "the driver wants the GPU to be reset: end what uses it, then nvidia-smi --gpu-reset, or restart the node"
                .to_owned()
        }
        Recovery::NodeReboot => "the driver wants the node to be restarted".to_owned(),
        Recovery::DrainP2p => {
            "the driver wants programs that move data between GPUs to end (drain the node), and nothing new until then"
                .to_owned()
        }
        Recovery::DrainAndReset => {
            "the driver wants programs that move data between GPUs to end, and the GPU to be reset: drain the node, then \
             nvidia-smi --gpu-reset"
                .to_owned()
        }
        Recovery::Other(number) => {
            format!("the driver wants something done that is not known here (recovery action {number}): see nvidia-smi -q")
        }
    }
}

/// What is wrong at this moment, worst first.
pub fn faults(vitals: &Vitals) -> Vec<(State, Fault)> {
    let rows = vitals.remapped_rows.unwrap_or_default();
    let present = [
        (State::RecoveryWanted, vitals.recovery.is_some_and(|recovery| recovery != Recovery::None)),
        (State::RowRemapFailed, rows.failed),
        (State::RowRemapPending, rows.pending),
    ];
    present.into_iter().filter(|(_, present)| *present).map(|(state, _)| (state, state.fault(vitals))).collect()
}
