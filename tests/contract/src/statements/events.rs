//! Events, of which none happens here.

use std::time::{Duration, Instant};

use super::{Statement, statements};
use crate::{
    call::{Verdict, equal, holds},
    code::Code,
    gpu::Gpu,
};

pub(super) const STATEMENTS: &[Statement] = statements![Gpu:
    every_supported_event_can_be_registered,
    an_event_that_is_not_supported_cannot_be_registered,
    after_a_refusal_the_set_still_serves,
    xids_are_supported_and_so_are_changes_of_mig,
    waiting_takes_as_long_as_it_was_told,
    waiting_no_time_at_all_times_out,
    sets_are_freed_and_made_again,
];

/// `nvmlEventTypeXidCriticalError`
pub(super) const XID: u64 = 0x8;
/// `nvmlEventMigConfigChange`
pub(super) const MIG_CONFIG_CHANGE: u64 = 0x100;

/// **[M]** for XIDs, ECC errors and changes of MIG.
fn every_supported_event_can_be_registered(gpu: &Gpu) -> Verdict {
    let supported = gpu.nvml.supported_events(gpu.device).value()?;
    let set = gpu.nvml.create_event_set().value()?;
    for bit in (0..u64::BITS).map(|shift| 1 << shift).filter(|bit| supported & bit != 0) {
        gpu.nvml.register_events(gpu.device, bit, set).value()?;
    }
    gpu.nvml.register_events(gpu.device, supported, set).value()?;
    gpu.nvml.free_event_set(set).value()
}

fn an_event_that_is_not_supported_cannot_be_registered(gpu: &Gpu) -> Verdict {
    let supported = gpu.nvml.supported_events(gpu.device).value()?;
    let missing = 1_u64 << 62;
    equal("nvmlDeviceGetSupportedEventTypes on an event that no header has", supported & missing, 0)?;
    let set = gpu.nvml.create_event_set().value()?;
    // The header has both: invalid event types, and not supported ones.
    let refused = [Code::NOT_SUPPORTED, Code::INVALID_ARGUMENT];
    gpu.nvml.register_events(gpu.device, missing, set).returns_one_of(&refused)?;
    gpu.nvml.free_event_set(set).value()
}

fn after_a_refusal_the_set_still_serves(gpu: &Gpu) -> Verdict {
    let set = gpu.nvml.create_event_set().value()?;
    let refused = gpu.nvml.register_events(gpu.device, XID | 1 << 62, set);
    refused.returns_one_of(&[Code::NOT_SUPPORTED, Code::INVALID_ARGUMENT])?;
    gpu.nvml.register_events(gpu.device, XID, set).value()?;
    gpu.nvml.wait(set, 1).returns(Code::TIMEOUT)?;
    gpu.nvml.free_event_set(set).value()
}

/// **[M]** on a GPU that has MIG.
fn xids_are_supported_and_so_are_changes_of_mig(gpu: &Gpu) -> Verdict {
    let supported = gpu.nvml.supported_events(gpu.device).value()?;
    equal("nvmlDeviceGetSupportedEventTypes & nvmlEventTypeXidCriticalError", supported & XID, XID)?;
    if gpu.mode()?.is_some() {
        let change = supported & MIG_CONFIG_CHANGE;
        equal("nvmlDeviceGetSupportedEventTypes & nvmlEventMigConfigChange", change, MIG_CONFIG_CHANGE)?;
    }
    Ok(())
}

/// **[M]**: 200 ms.
fn waiting_takes_as_long_as_it_was_told(gpu: &Gpu) -> Verdict {
    let set = gpu.nvml.create_event_set().value()?;
    gpu.nvml.register_events(gpu.device, XID, set).value()?;
    let start = Instant::now();
    gpu.nvml.wait(set, 200).returns(Code::TIMEOUT)?;
    let waited = start.elapsed();
    gpu.nvml.free_event_set(set).value()?;
    // Clocks may tick differently; how much later it comes is the machine's load.
    holds(format!("nvmlEventSetWait_v2 on 200 ms took {waited:?}"), waited > Duration::from_millis(190))
}

fn waiting_no_time_at_all_times_out(gpu: &Gpu) -> Verdict {
    let set = gpu.nvml.create_event_set().value()?;
    gpu.nvml.register_events(gpu.device, XID, set).value()?;
    gpu.nvml.wait(set, 0).returns(Code::TIMEOUT)?;
    gpu.nvml.free_event_set(set).value()
}

fn sets_are_freed_and_made_again(gpu: &Gpu) -> Verdict {
    for _ in 0..100 {
        let set = gpu.nvml.create_event_set().value()?;
        gpu.nvml.register_events(gpu.device, XID, set).value()?;
        gpu.nvml.free_event_set(set).value()?;
    }
    Ok(())
}
