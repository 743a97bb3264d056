//! What befalls a machine from outside NVML: programs that come and go, errors of the hardware, resets, a reboot.

use crate::{
    events::{RECOVERY_ACTION, XID_CRITICAL_ERROR},
    world::{Gpu, Process, Vitals, World},
};

/// Why a machine is in no state for what was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "named by what they hold")]
pub enum Refused {
    #[error("there is no GPU {gpu}: the machine has {}", counted(*.gpus))]
    NoGpu { gpu: usize, gpus: usize },
    #[error("GPU {gpu} has no GPU instance {instance}")]
    NoInstance { gpu: usize, instance: u32 },
    #[error("GPU instance {instance} of GPU {gpu} has no compute instance {compute}")]
    NoCompute { gpu: usize, instance: u32, compute: u32 },
    #[error("a compute instance is in a GPU instance: say which")]
    NoParent,
    #[error("no process {pid} uses a GPU")]
    NoProcess { pid: u32 },
    #[error("GPU {gpu} is in use by process {pid}")]
    InUse { gpu: usize, pid: u32 },
    #[error("GPU {gpu} is lost")]
    Lost { gpu: usize },
}

impl Refused {
    /// Whether something was asked for that is not there, rather than there at another time.
    pub fn is_of_words(&self) -> bool {
        !matches!(self, Self::InUse { .. } | Self::Lost { .. })
    }
}

fn counted(gpus: usize) -> String {
    match gpus {
        0 => "no GPUs".to_owned(),
        count => format!("0 to {}", count - 1),
    }
}

impl World {
    fn gpu_mut(&mut self, gpu: usize) -> Result<&mut Gpu, Refused> {
        let gpus = self.gpus.len();
        self.gpus.get_mut(gpu).ok_or(Refused::NoGpu { gpu, gpus })
    }

    /// The GPU, when it has these instances.
    fn part_mut(&mut self, index: usize, instance: Option<u32>, compute: Option<u32>) -> Result<&mut Gpu, Refused> {
        let gpu = self.gpu_mut(index)?;
        match (instance, compute) {
            (None, Some(_)) => Err(Refused::NoParent),
            (Some(instance), _) if !gpu.has(instance, None) => Err(Refused::NoInstance { gpu: index, instance }),
            (Some(instance), Some(compute)) if !gpu.has(instance, Some(compute)) => {
                Err(Refused::NoCompute { gpu: index, instance, compute })
            }
            _ => Ok(gpu),
        }
    }

    /// A program begins to use a GPU or a part of it. One that does so already is replaced.
    pub fn add_process(&mut self, gpu: usize, process: Process) -> Result<(), Refused> {
        let gpu = self.part_mut(gpu, process.instance, process.compute)?;
        let place = |known: &Process| (known.pid, known.graphics, known.instance, known.compute);
        gpu.processes.retain(|known| place(known) != place(&process));
        gpu.processes.push(process);
        Ok(())
    }

    /// A program ends, on every GPU that it used.
    pub fn remove_process(&mut self, pid: u32) -> Result<(), Refused> {
        if !self.gpus.iter().any(|gpu| gpu.processes.iter().any(|process| process.pid == pid)) {
            return Err(Refused::NoProcess { pid });
        }
        for gpu in &mut self.gpus {
            gpu.processes.retain(|process| process.pid != pid);
        }
        Ok(())
    }

    /// A GPU falls off the bus.
    pub fn lose_gpu(&mut self, gpu: usize) -> Result<(), Refused> {
        self.gpu_mut(gpu)?.lost = true;
        Ok(())
    }

    /// A lost GPU is back as it was.
    pub fn restore_gpu(&mut self, gpu: usize) -> Result<(), Refused> {
        self.gpu_mut(gpu)?.lost = false;
        Ok(())
    }

    /// `nvidia-smi --gpu-reset`: its instances are gone, the pending MIG mode is the present one, handles are void.
    pub fn reset_gpu(&mut self, index: usize) -> Result<(), Refused> {
        let gpu = self.gpu_mut(index)?;
        if gpu.lost {
            return Err(Refused::Lost { gpu: index });
        }
        if let Some(process) = gpu.processes.first() {
            return Err(Refused::InUse { gpu: index, pid: process.pid });
        }
        self.start_anew(index);
        Ok(())
    }

    /// The machine restarts: no programs, no instances, lost GPUs are back. MIG modes stay, which is published of Ampere
    /// and not verified of later GPUs.
    pub fn reboot(&mut self) {
        for index in 0..self.gpus.len() {
            if let Some(gpu) = self.gpus.get_mut(index) {
                gpu.processes.clear();
                gpu.lost = false;
            }
            self.start_anew(index);
        }
    }

    fn start_anew(&mut self, index: usize) {
        let serial = self.serial();
        let Some(gpu) = self.gpus.get_mut(index) else { return };
        gpu.serial = serial;
        // What no reset mends is that rows could not be replaced.
        gpu.vitals = Vitals {
            remap_failed: gpu.vitals.remap_failed,
            remapped_rows: gpu.vitals.remapped_rows,
            ..Vitals::default()
        };
        let had_instances = !gpu.instances.is_empty();
        gpu.instances.clear();
        if gpu.mig_current != gpu.mig_pending {
            self.activate(index);
        } else if had_instances {
            self.cut_anew(index);
        }
    }

    /// Its hardware does well, or not. The driver tells when it wants something else done than before.
    pub fn change_vitals(&mut self, gpu: usize, change: impl FnOnce(&mut Vitals)) -> Result<(), Refused> {
        let vitals = &mut self.gpu_mut(gpu)?.vitals;
        let before = vitals.recovery;
        change(vitals);
        if vitals.recovery != before {
            let action = vitals.recovery as u64;
            self.raise(gpu, RECOVERY_ACTION, action, None, None);
        }
        Ok(())
    }

    /// The driver reports an XID, of the whole GPU or of a part of it.
    pub fn raise_xid(
        &mut self,
        gpu: usize,
        xid: u64,
        instance: Option<u32>,
        compute: Option<u32>,
    ) -> Result<(), Refused> {
        self.part_mut(gpu, instance, compute)?;
        self.raise(gpu, XID_CRITICAL_ERROR, xid, instance, compute);
        Ok(())
    }
}
