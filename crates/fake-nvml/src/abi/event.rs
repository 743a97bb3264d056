//! Events.

use crate::{
    arguments::Out,
    events::{self, SUPPORTED},
    handle::Handle,
    session::{on_gpu, on_node},
    structs::{EventData, EventDataV1},
};

use events::{wait_v1, wait_v2};

entry_points! {
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, types: Out<u64>) => on_gpu(device, |_| types.set(SUPPORTED));
    fn nvmlEventSetCreate(set: Out<Handle>) => on_node(|_| events::create(set));
    fn nvmlEventSetFree(set: Handle) => on_node(|_| events::free(set));
    fn nvmlDeviceRegisterEvents(device: Handle, types: u64, set: Handle) =>
        on_gpu(device, |device| events::register(device, types, set));
    fn nvmlEventSetWait(set: Handle, data: Out<EventDataV1>, milliseconds: u32) => wait_v1(set, data, milliseconds);
    fn nvmlEventSetWait_v2(set: Handle, data: Out<EventData>, milliseconds: u32) => wait_v2(set, data, milliseconds);
}
