use clap::ValueEnum;
use fake_nvml::{Recovery, Store};

use super::Done;

#[derive(Debug, clap::Args)]
pub(super) struct Vitals {
    /// The GPU's index
    #[arg(long, value_name = "INDEX")]
    gpu: usize,
    /// Memory errors since the last reset that could not be corrected
    #[arg(long, value_name = "COUNT")]
    uncorrectable_errors: Option<u64>,
    /// Whether rows of memory are to be replaced at the next reset
    #[arg(long, value_name = "BOOL")]
    remap_pending: Option<bool>,
    /// Whether a row could not be replaced
    #[arg(long, value_name = "BOOL")]
    remap_failed: Option<bool>,
    /// What the driver wants done
    #[arg(long, value_enum, value_name = "ACTION")]
    recovery: Option<Action>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
}

impl Vitals {
    pub(super) fn run(&self, store: &Store) -> Done {
        store.change(|world| {
            Ok(world.change_vitals(self.gpu, |vitals| {
                vitals.uncorrectable_errors = self.uncorrectable_errors.unwrap_or(vitals.uncorrectable_errors);
                vitals.remap_pending = self.remap_pending.unwrap_or(vitals.remap_pending);
                vitals.remap_failed = self.remap_failed.unwrap_or(vitals.remap_failed);
                vitals.recovery = self.recovery.map_or(vitals.recovery, Recovery::from);
            })?)
        })?;
        Ok(())
    }
}

impl From<Action> for Recovery {
    fn from(action: Action) -> Self {
        match action {
            Action::None => Self::None,
            Action::GpuReset => Self::GpuReset,
            Action::NodeReboot => Self::NodeReboot,
            Action::DrainP2p => Self::DrainP2p,
            Action::DrainAndReset => Self::DrainAndReset,
        }
    }
}
