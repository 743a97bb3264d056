//! Event sets: which GPUs a client wants to hear of, and waiting for it.

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
    structs::EventData,
    world::World,
};

/// What driver 580 supports on an H200.
pub(crate) const SUPPORTED: u64 = 65439;

struct Sets {
    next: u32,
    /// The UUIDs of the GPUs in each set: handles do not outlive a change, these do.
    gpus: BTreeMap<u32, Vec<String>>,
}

static SETS: Mutex<Sets> = Mutex::new(Sets { next: 1, gpus: BTreeMap::new() });

fn sets() -> MutexGuard<'static, Sets> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn create(set: Out<Handle>) -> Answer {
    let mut sets = sets();
    set.set(Handle::of_event_set(sets.next))?;
    let number = sets.next;
    sets.gpus.insert(number, Vec::new());
    sets.next = sets.next.wrapping_add(1);
    Ok(())
}

pub(crate) fn free(set: Handle) -> Answer {
    sets().gpus.remove(&set.event_set()?).map(|_| ()).ok_or(Code::INVALID_ARGUMENT)
}

pub(crate) fn register(device: Device<'_>, types: u64, set: Handle) -> Answer {
    let mut sets = sets();
    let gpus = sets.gpus.get_mut(&set.event_set()?).ok_or(Code::INVALID_ARGUMENT)?;
    if types & !SUPPORTED != 0 {
        return Err(Code::NOT_SUPPORTED);
    }
    if !gpus.contains(&device.gpu.uuid) {
        gpus.push(device.gpu.uuid.clone());
    }
    Ok(())
}

/// Waits outside the session, so that nothing else waits with it.
pub(crate) fn wait(function: Function, set: Handle, data: Out<EventData>, milliseconds: u32) -> Code {
    let known = session::on_node(function, |_| {
        let number = set.event_set()?;
        if data.is_null() || !sets().gpus.contains_key(&number) { Err(Code::INVALID_ARGUMENT) } else { Ok(()) }
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
            Ok(Some(code)) | Err(code) => return code,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Code::TIMEOUT;
        }
        store.control().wait(seen, left);
    }
}

/// A lost GPU ends every wait for it.
fn news(world: &World, set: Handle) -> Option<Code> {
    let sets = sets();
    let gpus = set.event_set().ok().and_then(|number| sets.gpus.get(&number))?;
    world.gpus.iter().any(|gpu| gpu.lost && gpus.contains(&gpu.uuid)).then_some(Code::GPU_IS_LOST)
}
