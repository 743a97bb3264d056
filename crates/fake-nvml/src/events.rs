//! Events: what happened to GPUs, which of it each event set of this process asks for, and waiting for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    arguments::Out,
    code::{Answer, Code},
    function::Function,
    handle::{Device, Handle},
    session,
    structs::{EventData, EventDataV1},
    world::{Event, Gpu, Permission, World},
};

/// What driver 580 supports on an H200.
pub(crate) const SUPPORTED: u64 = 65439;
/// `nvmlEventTypeXidCriticalError`.
pub(crate) const XID_CRITICAL_ERROR: u64 = 0x8;
/// `nvmlEventMigConfigChange`.
pub(crate) const MIG_CONFIG_CHANGE: u64 = 0x100;
/// `nvmlEventTypeGpuRecoveryAction`.
pub(crate) const RECOVERY_ACTION: u64 = 0x8000;
/// Where an event is of no instance.
const NO_INSTANCE: u32 = u32::MAX;
/// So many of the last events a machine keeps: who does not fetch them before as many have come loses the oldest.
const KEPT: usize = 1024;

impl World {
    /// Something happens to a GPU, which those who wait for it learn.
    pub(crate) fn raise(&mut self, index: usize, kind: u64, data: u64, instance: Option<u32>, compute: Option<u32>) {
        let serial = self.serial();
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event { serial, gpu: index, kind, data, instance, compute });
    }
}

/// What one event set asks for.
#[derive(Default)]
struct Set {
    /// By the GPUs' UUIDs: handles do not outlive a change, these do.
    gpus: BTreeMap<String, Wish>,
    /// The first event that it has not delivered.
    next: u32,
}

struct Wish {
    kinds: u64,
    /// Of what was before it registered it hears nothing.
    since: u32,
}

struct Sets {
    next: u32,
    known: BTreeMap<u32, Set>,
}

static SETS: Mutex<Sets> = Mutex::new(Sets { next: 1, known: BTreeMap::new() });

fn sets() -> MutexGuard<'static, Sets> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn create(set: Out<Handle>) -> Answer {
    let mut sets = sets();
    set.set(Handle::of_event_set(sets.next))?;
    let number = sets.next;
    sets.known.insert(number, Set::default());
    sets.next = sets.next.wrapping_add(1);
    Ok(())
}

pub(crate) fn free(set: Handle) -> Answer {
    sets().known.remove(&set.event_set()?).map(|_| ()).ok_or(Code::INVALID_ARGUMENT)
}

pub(crate) fn register(device: Device<'_>, kinds: u64, set: Handle) -> Answer {
    let mut sets = sets();
    let set = sets.known.get_mut(&set.event_set()?).ok_or(Code::INVALID_ARGUMENT)?;
    if kinds & !SUPPORTED != 0 {
        return Err(Code::NOT_SUPPORTED);
    }
    let since = device.world.next_serial;
    set.gpus.entry(device.gpu.uuid.clone()).or_insert(Wish { kinds: 0, since }).kinds |= kinds;
    Ok(())
}

/// `nvmlEventSetWait`, whose structure has no room for instances.
pub(crate) fn wait_v1(function: Function, set: Handle, data: Out<EventDataV1>, milliseconds: u32) -> Code {
    wait(function, set, data, milliseconds, |data, event| {
        data.set(EventDataV1 { device: event.device, eventType: event.eventType, eventData: event.eventData })
    })
}

/// `nvmlEventSetWait_v2`.
pub(crate) fn wait_v2(function: Function, set: Handle, data: Out<EventData>, milliseconds: u32) -> Code {
    wait(function, set, data, milliseconds, Out::set)
}

/// Waits outside the session, so that nothing else waits with it.
fn wait<T>(
    function: Function,
    set: Handle,
    data: Out<T>,
    milliseconds: u32,
    deliver: impl Fn(Out<T>, EventData) -> Answer,
) -> Code {
    let known = session::on_node(function, |_| {
        let number = set.event_set()?;
        if data.is_null() || !sets().known.contains_key(&number) { Err(Code::INVALID_ARGUMENT) } else { Ok(()) }
    });
    if known != Code::SUCCESS {
        return known;
    }
    let store = match session::store() {
        Ok(store) => store,
        Err(code) => return code,
    };
    let deadline = Instant::now() + Duration::from_millis(milliseconds.into());
    loop {
        // Read before looking, so that a change in between wakes the wait at once.
        let seen = store.control().changes();
        match session::look(|world| news(world, set)) {
            Ok(None) => {}
            Ok(Some(Ok(event))) => return deliver(data, event).err().unwrap_or(Code::SUCCESS),
            Ok(Some(Err(code))) | Err(code) => return code,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Code::TIMEOUT;
        }
        store.control().wait(seen, left);
    }
}

/// The next event that the set asks for; after these, a lost GPU ends every wait for it.
fn news(world: &World, set: Handle) -> Option<Answer<EventData>> {
    let mut sets = sets();
    let set = set.event_set().ok().and_then(|number| sets.known.get_mut(&number))?;
    let next = set.next;
    for event in world.events.iter().filter(|event| event.serial >= next) {
        // Not to be looked at again, whoever it is for.
        set.next = event.serial.wrapping_add(1);
        let Some(gpu) = world.gpus.get(event.gpu) else { continue };
        if let Some(data) = set.gpus.get(&gpu.uuid).and_then(|wish| meant(world, gpu, wish, event)) {
            return Some(Ok(data));
        }
    }
    world.gpus.iter().any(|gpu| gpu.lost && set.gpus.contains_key(&gpu.uuid)).then_some(Err(Code::GPU_IS_LOST))
}

/// The event, when it is meant for who wished this.
fn meant(world: &World, gpu: &Gpu, wish: &Wish, event: &Event) -> Option<EventData> {
    // Those who may not look at instances hear only of what befalls the whole GPU.
    let hidden = event.instance.is_some() && world.permission < Permission::Monitor;
    if event.serial < wish.since || event.kind & wish.kinds == 0 || hidden {
        return None;
    }
    Some(EventData {
        device: Handle::of_gpu(event.gpu, gpu),
        eventType: event.kind,
        eventData: event.data,
        gpuInstanceId: event.instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: event.compute.unwrap_or(NO_INSTANCE),
    })
}
