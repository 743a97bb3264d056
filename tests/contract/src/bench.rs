//! A GPU that may be changed, for one statement: empty when it is lent, and given back as it was found.

use std::ops::Deref;

use crate::{
    call::{Stop, Verdict, broken, skip},
    code::Code,
    gpu::{ComputeOffer, Gpu, Offer},
    nvml::{ComputeInstance, GpuInstance},
};

/// What came of something done from outside NVML.
pub type Done = Result<(), String>;

/// What befalls a GPU from outside NVML. Only a pretended one can be told to.
#[allow(missing_docs, reason = "named by what they do")]
pub struct Outside {
    /// With its number, the GPU, and the ids of the GPU instance and compute instance that it uses, if it does.
    pub start_process: fn(u32, u32, Option<(u32, u32)>) -> Done,
    pub end_process: fn(u32) -> Done,
    pub reset: fn(u32) -> Done,
}

/// See above.
pub struct Bench {
    gpu: Gpu,
    found: u32,
    outside: Option<&'static Outside>,
}

impl Deref for Bench {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl Bench {
    /// Takes a GPU on which nothing is cut. Its mode is left as it is.
    pub fn take(gpu: Gpu, writable: bool, outside: Option<&'static Outside>) -> Verdict<Self> {
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
        Ok(Self { gpu, found: current, outside })
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

    /// Goes on where processes and resets can be pretended.
    pub fn outside(&self) -> Verdict<&'static Outside> {
        self.outside.map_or_else(|| skip("only a scene can pretend processes and resets"), Ok)
    }

    /// Makes a GPU instance.
    pub fn make(&self, offer: &Offer) -> Verdict<GpuInstance> {
        self.nvml.create_gpu_instance(self.device, offer.profile.id).value()
    }

    /// Makes a GPU instance and a compute instance that takes all of it.
    pub fn make_slice(&self, offer: &Offer) -> Verdict<(GpuInstance, ComputeInstance)> {
        let instance = self.make(offer)?;
        let whole = self.whole_compute(instance)?;
        Ok((instance, self.make_within(instance, &whole)?))
    }

    /// Makes a compute instance.
    pub fn make_within(&self, instance: GpuInstance, offer: &ComputeOffer) -> Verdict<ComputeInstance> {
        self.nvml.create_compute_instance(instance, offer.profile.id).value()
    }

    /// Removes every instance.
    pub fn clear(&self) -> Verdict {
        clear(&self.gpu)
    }

    /// How many of each profile there may yet be.
    pub fn all_remaining(&self) -> Verdict<Vec<(String, u32)>> {
        let offers = self.offers()?;
        let left = |offer: Offer| Ok((offer.name, self.nvml.remaining(self.device, offer.profile.id).value()?));
        offers.into_iter().map(left).collect()
    }

    /// Gives the GPU back.
    pub fn give_back(&self) -> Verdict {
        restore(&self.gpu.again()?, self.found)
    }
}

/// What is done from outside has to work.
pub fn done(outcome: Done) -> Verdict {
    outcome.map_err(Stop::Broken)
}

fn clear(gpu: &Gpu) -> Verdict {
    for (_, instance) in gpu.instances()? {
        for (_, compute) in gpu.computes(instance)? {
            gpu.nvml.destroy_compute_instance(compute).value()?;
        }
        gpu.nvml.destroy_gpu_instance(instance).value()?;
    }
    Ok(())
}

/// Removes all instances and sets the mode.
pub fn restore(gpu: &Gpu, mode: u32) -> Verdict {
    if gpu.capable()?.0 == 1 {
        clear(gpu)?;
    }
    if gpu.capable()? != (mode, mode) {
        gpu.nvml.set_mig_mode(gpu.device, mode).value()?;
    }
    match gpu.capable()? {
        now if now == (mode, mode) => Ok(()),
        now => broken(format!("the GPU is not as it was found: MIG mode {now:?} instead of {mode}")),
    }
}
