//! Events: what the driver tells by itself.

use std::time::Duration;

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventMigConfigChange, nvmlEventSet_t, nvmlEventTypeGpuRecoveryAction,
    nvmlEventTypeGpuUnavailableError, nvmlEventTypeXidCriticalError,
};

use super::call::{Plain as _, present};
use super::{Handle, Session};
use crate::error::DriverError;

/// Errors: without these a GPU is not watched.
pub(crate) const XIDS: u64 = nvmlEventTypeXidCriticalError as u64;
/// What else is worth a look at the GPUs.
const WORTH_A_LOOK: u64 =
    nvmlEventMigConfigChange as u64 | nvmlEventTypeGpuUnavailableError as u64 | nvmlEventTypeGpuRecoveryAction as u64;
/// Where an event is of no instance.
const NO_INSTANCE: u32 = u32::MAX;

/// What events are waited for with. Freed when dropped.
pub(crate) struct EventSet<'s> {
    session: &'s Session,
    raw: nvmlEventSet_t,
}

/// Something happened to a GPU.
pub(crate) struct Event {
    /// As it was registered, perhaps.
    pub(crate) gpu: nvmlDevice_t,
    /// The XID, if it is one.
    pub(crate) xid: Option<u64>,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
}

impl Session {
    pub(crate) fn event_set(&self) -> Result<EventSet<'_>, DriverError> {
        let mut raw = nvmlEventSet_t::zero();
        self.timed("nvmlEventSetCreate", None, || {
            let function = present(&self.functions().nvmlEventSetCreate)?;
            // SAFETY: NVML is started; the pointer is to a live, writable handle.
            nvml_try(unsafe { function(&raw mut raw) })
        })?;
        Ok(EventSet { session: self, raw })
    }

    /// The GPU that an event names.
    pub(crate) fn gpu_of(&self, event: &Event) -> Handle<'_> {
        Handle { session: self, raw: event.gpu, gpu: u32::MAX }
    }
}

impl Handle<'_> {
    pub(crate) fn raw(&self) -> nvmlDevice_t {
        self.raw
    }

    /// Of what happens to it, the driver can tell these.
    pub(crate) fn supported_events(&self) -> Result<u64, DriverError> {
        let function = &self.session.functions().nvmlDeviceGetSupportedEventTypes;
        self.fill("nvmlDeviceGetSupportedEventTypes", function)
    }
}

impl EventSet<'_> {
    /// Waits for what matters of what is supported, from now on.
    pub(crate) fn register(&self, gpu: &Handle<'_>, supported: u64) -> Result<(), DriverError> {
        gpu.timed("nvmlDeviceRegisterEvents", || {
            let function = present(&self.session.functions().nvmlDeviceRegisterEvents)?;
            // SAFETY: GPU and set came from this session, which is alive.
            nvml_try(unsafe { function(gpu.raw, supported & (XIDS | WORTH_A_LOOK), self.raw) })
        })
    }

    /// The next event, if one comes in time. Not timed as other calls are: it takes as long as nothing happens.
    pub(crate) fn wait(&self, longest: Duration) -> Result<Option<Event>, DriverError> {
        let mut data = nvmlEventData_t::zero();
        // Rounded up: in the last part of a millisecond the driver would be asked again and again.
        let milliseconds = u32::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        let mut call = || {
            let function = present(&self.session.functions().nvmlEventSetWait_v2)?;
            // SAFETY: the set came from this session, which is alive; the pointer is to a live, writable struct.
            nvml_try(unsafe { function(self.raw, &raw mut data, milliseconds) })
        };
        match call() {
            Ok(()) => {}
            Err(NvmlError::Timeout) => return Ok(None),
            Err(source) => {
                self.session.metrics.refused("nvmlEventSetWait_v2", &source);
                return Err(DriverError::Call { call: "nvmlEventSetWait_v2", gpu: None, source });
            }
        }
        let instance = |id: u32| (id != NO_INSTANCE).then_some(id);
        Ok(Some(Event {
            gpu: data.device,
            xid: (data.eventType & XIDS != 0).then_some(data.eventData),
            gpu_instance: instance(data.gpuInstanceId),
            compute_instance: instance(data.computeInstanceId),
        }))
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        if let Ok(function) = present(&self.session.functions().nvmlEventSetFree) {
            // SAFETY: the set came from this session, which is alive, and nobody else has it. Should NVML refuse, the
            // set stays: there is nothing else to be done about it.
            let _ = unsafe { function(self.raw) };
        }
    }
}
