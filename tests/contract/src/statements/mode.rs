//! Changing the MIG mode of a GPU on which nothing is cut.

use super::{Statement, statements};
use crate::{
    bench::{Bench, done},
    call::{Verdict, broken, equal, holds, skip},
    code::Code,
};

pub(super) const STATEMENTS: &[Statement] = statements![Mode:
    a_mode_that_there_is_not_is_an_invalid_argument,
    the_mode_that_is_can_be_set_again,
    the_mode_that_was_set_is_pending_and_is_there_if_it_was_activated,
    hopper_and_later_change_at_once,
    ampere_changes_when_it_is_reset,
    a_change_can_be_taken_back_before_it_is_activated,
    a_process_on_the_gpu_is_in_the_way,
    with_mig_off_nothing_can_be_made,
    with_mig_on_there_may_be_mig_devices_and_are_none,
    a_change_of_mode_is_an_event,
];

/// `NVML_DEVICE_ARCH_AMPERE` and `NVML_DEVICE_ARCH_HOPPER`.
const AMPERE: u32 = 7;
const HOPPER: u32 = 9;

/// Sets a mode, and goes on where that is activated at once.
fn activate(bench: &Bench, mode: u32) -> Verdict {
    match bench.nvml.set_mig_mode(bench.device, mode).value()? {
        Code::SUCCESS => equal("nvmlDeviceGetMigMode after the activation", bench.capable()?, (mode, mode)),
        status => skip(format!("the mode is not activated at once: {status}")),
    }
}

fn a_mode_that_there_is_not_is_an_invalid_argument(bench: &Bench) -> Verdict {
    bench.nvml.set_mig_mode(bench.device, 2).returns(Code::INVALID_ARGUMENT)?;
    equal("nvmlDeviceGetMigMode afterwards", bench.capable()?, (bench.found(), bench.found()))
}

fn the_mode_that_is_can_be_set_again(bench: &Bench) -> Verdict {
    bench.nvml.set_mig_mode(bench.device, bench.found()).gives(Code::SUCCESS)?;
    equal("nvmlDeviceGetMigMode afterwards", bench.capable()?, (bench.found(), bench.found()))
}

fn the_mode_that_was_set_is_pending_and_is_there_if_it_was_activated(bench: &Bench) -> Verdict {
    let other = 1 - bench.found();
    let status = bench.nvml.set_mig_mode(bench.device, other).value()?;
    let current = if status == Code::SUCCESS { other } else { bench.found() };
    equal(format!("nvmlDeviceGetMigMode after an activation of {status}"), bench.capable()?, (current, other))
}

/// Of a GPU that nobody uses.
fn hopper_and_later_change_at_once(bench: &Bench) -> Verdict {
    let architecture = bench.nvml.architecture(bench.device).value()?;
    if architecture < HOPPER {
        return skip(format!("architecture {architecture} is older than Hopper"));
    }
    if !bench.nvml.processes(bench.device).value()?.is_empty() {
        return skip("somebody uses the GPU");
    }
    for mode in [1 - bench.found(), bench.found()] {
        bench.nvml.set_mig_mode(bench.device, mode).gives(Code::SUCCESS)?;
        equal("nvmlDeviceGetMigMode afterwards", bench.capable()?, (mode, mode))?;
    }
    Ok(())
}

/// Where NVML does not reset it itself.
fn ampere_changes_when_it_is_reset(bench: &Bench) -> Verdict {
    let architecture = bench.nvml.architecture(bench.device).value()?;
    if architecture != AMPERE {
        return skip(format!("architecture {architecture} is not Ampere"));
    }
    let outside = bench.outside()?;
    for mode in [1 - bench.found(), bench.found()] {
        let before = bench.again()?;
        bench.nvml.set_mig_mode(before.device, mode).gives(Code::RESET_REQUIRED)?;
        equal("nvmlDeviceGetMigMode before the reset", before.capable()?, (1 - mode, mode))?;
        done((outside.reset)(bench.index))?;
        equal("nvmlDeviceGetMigMode after the reset", bench.again()?.capable()?, (mode, mode))?;
    }
    Ok(())
}

fn a_change_can_be_taken_back_before_it_is_activated(bench: &Bench) -> Verdict {
    let (found, other) = (bench.found(), 1 - bench.found());
    bench.nvml.set_mig_mode(bench.device, other).value()?;
    bench.nvml.set_mig_mode(bench.device, found).value()?;
    equal("nvmlDeviceGetMigMode afterwards", bench.capable()?, (found, found))
}

fn a_process_on_the_gpu_is_in_the_way(bench: &Bench) -> Verdict {
    let outside = bench.outside()?;
    let (found, other) = (bench.found(), 1 - bench.found());
    done((outside.start_process)(4242, bench.index, None))?;
    let listed = bench.nvml.processes(bench.device).value()?;
    equal("the processes on the GPU", listed.iter().map(|process| process.pid).collect(), vec![4242])?;
    bench.nvml.set_mig_mode(bench.device, other).gives(Code::IN_USE)?;
    equal("nvmlDeviceGetMigMode with a process", bench.capable()?, (found, other))?;
    done((outside.end_process)(4242))
}

fn with_mig_off_nothing_can_be_made(bench: &Bench) -> Verdict {
    activate(bench, 0)?;
    for offer in bench.offers()? {
        bench.nvml.create_gpu_instance(bench.device, offer.profile.id).returns(Code::NOT_SUPPORTED)?;
        let Some(place) = bench.nvml.placements(bench.device, offer.profile.id).value()?.first().copied() else {
            return broken(format!("{} has no placement", offer.name));
        };
        bench.nvml.create_gpu_instance_at(bench.device, offer.profile.id, place).returns(Code::NOT_SUPPORTED)?;
    }
    Ok(())
}

fn with_mig_on_there_may_be_mig_devices_and_are_none(bench: &Bench) -> Verdict {
    activate(bench, 1)?;
    let most = bench.nvml.max_mig_devices(bench.device).value()?;
    holds(format!("nvmlDeviceGetMaxMigDeviceCount: {most} is at least 2"), most >= 2)?;
    (0..most).try_for_each(|index| bench.nvml.mig_device(bench.device, index).returns(Code::NOT_FOUND))?;
    for offer in bench.offers()? {
        bench.nvml.gpu_instances(bench.device, offer.profile.id).gives(Vec::new())?;
        bench.nvml.remaining(bench.device, offer.profile.id).gives(offer.profile.instances)?;
    }
    Ok(())
}

fn a_change_of_mode_is_an_event(bench: &Bench) -> Verdict {
    let set = bench.nvml.create_event_set().value()?;
    bench.nvml.register_events(bench.device, super::events::MIG_CONFIG_CHANGE, set).value()?;
    activate(bench, 1 - bench.found())?;
    let event = bench.nvml.wait(set, 5000).value()?;
    equal("eventType", event.kind, super::events::MIG_CONFIG_CHANGE)?;
    bench.nvml.free_event_set(set).value()
}
