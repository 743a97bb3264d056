//! A GPU that may be changed, for one statement: empty when it is lent, and given back as it was found.

use std::ops::Deref;

use crate::{
    call::{Verdict, broken, skip},
    code::Code,
    gpu::Gpu,
};

/// See above.
pub struct Bench {
    gpu: Gpu,
    found: u32,
}

impl Deref for Bench {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl Bench {
    /// Takes a GPU on which nothing is cut. Its mode is left as it is.
    pub fn take(gpu: Gpu, writable: bool) -> Verdict<Self> {
        if !writable {
            return skip("the GPU may not be changed");
        }
        let (current, pending) = gpu.capable()?;
        if current != pending {
            return skip("a change of MIG mode is pending");
        }
        if current == 1 && !gpu.instances()?.is_empty() {
            return skip("the GPU is cut, and what is on it is not this suite's");
        }
        Ok(Self { gpu, found: current })
    }

    /// Switches MIG on, for statements about instances.
    pub fn switch_on(&self) -> Verdict {
        if self.found == 1 {
            return Ok(());
        }
        match self.nvml.set_mig_mode(self.device, 1).value_or(Code::NO_PERMISSION)? {
            None => skip("this user may not change the MIG mode"),
            Some(Code::SUCCESS) if self.capable()? == (1, 1) => Ok(()),
            Some(status) => skip(format!("MIG is not on at once: its activation says {status}")),
        }
    }

    /// The mode it had.
    pub fn found(&self) -> u32 {
        self.found
    }

    /// Gives the GPU back.
    pub fn give_back(&self) -> Verdict {
        restore(&self.gpu, self.found)
    }
}

/// Removes all instances and sets the mode.
pub fn restore(gpu: &Gpu, mode: u32) -> Verdict {
    let (current, _) = gpu.capable()?;
    if current == 1 {
        for (_, instance) in gpu.instances()? {
            for (_, compute) in gpu.computes(instance)? {
                gpu.nvml.destroy_compute_instance(compute).value()?;
            }
            gpu.nvml.destroy_gpu_instance(instance).value()?;
        }
    }
    if gpu.capable()? != (mode, mode) {
        gpu.nvml.set_mig_mode(gpu.device, mode).value()?;
    }
    match gpu.capable()? {
        now if now == (mode, mode) => Ok(()),
        now => broken(format!("the GPU is not as it was found: MIG mode {now:?} instead of {mode}")),
    }
}
