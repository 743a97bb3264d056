//! Events.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;

use super::{Device, Event, EventSet, Nvml, zeroed};
use crate::{call::Call, code::Code};

/// Events.
impl Nvml {
    /// `nvmlEventSetCreate`
    pub fn create_event_set(&self) -> Call<EventSet> {
        get!(self, nvmlEventSetCreate(; null_mut())).map(EventSet)
    }

    /// `nvmlDeviceRegisterEvents`
    pub fn register_events(&self, device: Device, kinds: u64, set: EventSet) -> Call<()> {
        Call::new("nvmlDeviceRegisterEvents", code!(self, nvmlDeviceRegisterEvents(device.0, kinds, set.0)), ())
            .on(format_args!("event types {kinds:#x}"))
    }

    /// `nvmlEventSetWait_v2`
    pub fn wait(&self, set: EventSet, milliseconds: u32) -> Call<Event> {
        let mut data = zeroed::<sys::nvmlEventData_t>();
        let code = code!(self, nvmlEventSetWait_v2(set.0, &raw mut data, milliseconds));
        let event = Event {
            device: Device(data.device),
            kind: data.eventType,
            data: data.eventData,
            gpu_instance: data.gpuInstanceId,
            compute_instance: data.computeInstanceId,
        };
        Call::new("nvmlEventSetWait_v2", code, event)
    }

    /// `nvmlEventSetFree`
    pub fn free_event_set(&self, set: EventSet) -> Call<()> {
        Call::new("nvmlEventSetFree", code!(self, nvmlEventSetFree(set.0)), ())
    }
}
