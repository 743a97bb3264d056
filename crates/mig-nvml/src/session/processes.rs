//! What runs on a GPU or a MIG device.

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlProcessInfo_t};

use super::Handle;
use super::call::{Plain as _, Symbol, present};
use crate::error::DriverError;

/// Far more than run on a GPU.
const MOST_PROCESSES: u32 = 1 << 16;
/// As many as a driver is asked for at first.
const USUAL_PROCESSES: u32 = 64;
/// How often a list may have grown while it was asked for.
const ATTEMPTS: u32 = 5;

/// A process as the driver describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: u32,
    /// Both none where it says nothing of instances.
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
}

type List = unsafe extern "C" fn(nvmlDevice_t, *mut u32, *mut nvmlProcessInfo_t) -> u32;

impl Handle<'_> {
    /// Everything that runs on it: computing, as a client of MPS, and drawing. A process may be in several of the lists.
    pub(crate) fn processes(&self) -> Result<Vec<Seen>, DriverError> {
        let nvml = self.session.functions();
        let mut seen = self.computing()?;
        let mps = self.listed(
            ("nvmlDeviceGetMPSComputeRunningProcesses_v3", &nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3),
            ("nvmlDeviceGetMPSComputeRunningProcesses_v2", &nvml.nvmlDeviceGetMPSComputeRunningProcesses_v2),
        );
        let graphics = self.listed(
            ("nvmlDeviceGetGraphicsRunningProcesses_v3", &nvml.nvmlDeviceGetGraphicsRunningProcesses_v3),
            ("nvmlDeviceGetGraphicsRunningProcesses_v2", &nvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
        );
        for more in [mps, graphics] {
            match more {
                Ok(more) => seen.extend(more),
                // A driver that has no such processes may say so this way.
                Err(error) if error.is_unsaid() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    /// What computes on it: one question, for those who ask often.
    pub(crate) fn computing(&self) -> Result<Vec<Seen>, DriverError> {
        let nvml = self.session.functions();
        self.listed(
            ("nvmlDeviceGetComputeRunningProcesses_v3", &nvml.nvmlDeviceGetComputeRunningProcesses_v3),
            ("nvmlDeviceGetComputeRunningProcesses_v2", &nvml.nvmlDeviceGetComputeRunningProcesses_v2),
        )
    }

    /// Versions 2 and 3 fill the same struct.
    fn listed<E>(
        &self,
        newer: (&'static str, &Symbol<List, E>),
        older: (&'static str, &Symbol<List, E>),
    ) -> Result<Vec<Seen>, DriverError> {
        match self.list(newer.0, newer.1) {
            Err(error) if error.is_absent() => self.list(older.0, older.1),
            other => other,
        }
    }

    fn list<E>(&self, name: &'static str, function: &Symbol<List, E>) -> Result<Vec<Seen>, DriverError> {
        let mut room = USUAL_PROCESSES;
        for _ in 0..ATTEMPTS {
            let mut list = vec![nvmlProcessInfo_t::zero(); usize::try_from(room).unwrap_or_default()];
            let mut count = room;
            let answer = self.timed(name, || {
                let function = present(function)?;
                // SAFETY: `raw` came from this session, which is alive; the list has room for as many as `count` says,
                // which NVML reads before it fills any and then overwrites: both are live and writable.
                nvml_try(unsafe { function(self.raw, &raw mut count, list.as_mut_ptr()) })
            });
            let absurd = match answer {
                Ok(()) if count <= room => {
                    list.truncate(usize::try_from(count).unwrap_or_default());
                    return Ok(list.iter().map(Seen::of).collect());
                }
                Ok(()) => true,
                Err(error) if matches!(error.nvml(), Some(NvmlError::InsufficientSize(_))) => count > MOST_PROCESSES,
                Err(error) => return Err(error),
            };
            if absurd {
                return Err(DriverError::Implausible { what: "processes on one GPU", count });
            }
            // Some may be started until it is asked again.
            room = count.max(room).saturating_mul(2);
        }
        Err(DriverError::Call { call: name, gpu: Some(self.gpu), source: NvmlError::InsufficientSize(None) })
    }
}

impl Seen {
    fn of(info: &nvmlProcessInfo_t) -> Self {
        /// `NVML_VALUE_NOT_AVAILABLE`.
        const UNKNOWN_MEMORY: u64 = u64::MAX;
        let known = |id: u32| (id != u32::MAX).then_some(id);
        Self {
            pid: info.pid,
            gpu_instance: known(info.gpuInstanceId),
            compute_instance: known(info.computeInstanceId),
            memory_bytes: (info.usedGpuMemory != UNKNOWN_MEMORY).then_some(info.usedGpuMemory),
        }
    }
}
