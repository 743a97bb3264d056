//! The library's state in one process, and the way into it that every call takes: count it, see whether the machine
//! moved, meet its fault, then answer.

use std::{
    cell::Cell,
    env, fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    code::{Answer, Code},
    faults::{self, Delay},
    function::Function,
    handle::{Device, Handle, Instance},
    place, resolve,
    store::{Store, StoreError, is_not_allowed},
    world::{Permission, World},
};

/// A machine as this process sees it.
pub(crate) struct Session {
    store: Arc<Store>,
    world: Arc<World>,
    generation: u64,
    /// How often `nvmlInit` was called without its `nvmlShutdown`.
    users: u32,
}

static SESSION: RwLock<Option<Session>> = RwLock::new(None);

/// What stops a call before it has its answer.
pub(crate) enum Stop {
    Return(Code),
    /// Wait without holding anything up, then return the code or go on.
    Wait(Delay, Option<Code>),
}

impl From<Code> for Stop {
    fn from(code: Code) -> Self {
        Self::Return(code)
    }
}

/// The machine during one call.
pub(crate) struct View<'session> {
    pub(crate) world: &'session World,
    store: &'session Arc<Store>,
    function: Function,
    met_its_fault: bool,
}

impl View<'_> {
    /// Meets the fault for this function on this GPU, and refuses a lost one.
    pub(crate) fn reach(&self, gpu: Option<usize>) -> Result<(), Stop> {
        if !self.met_its_fault
            && !self.world.faults.is_empty()
            && let Some(verdict) = faults::verdict(self.world, self.store.control(), self.function, gpu)
        {
            return Err(match (verdict.delay, verdict.returns) {
                (Some(delay), returns) => Stop::Wait(delay, returns),
                (None, Some(code)) => Stop::Return(code),
                (None, None) => return Ok(()),
            });
        }
        match gpu.and_then(|index| self.world.gpus.get(index)) {
            Some(gpu) if gpu.lost => Err(Stop::Return(Code::GPU_IS_LOST)),
            _ => Ok(()),
        }
    }
}

fn read() -> RwLockReadGuard<'static, Option<Session>> {
    SESSION.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Option<Session>> {
    SESSION.write().unwrap_or_else(PoisonError::into_inner)
}

/// One call. `body` may run twice: again after a delay.
pub(crate) fn call(function: Function, body: impl Fn(&View<'_>) -> Result<(), Stop>) -> Code {
    let mut counted = false;
    let mut met_its_fault = false;
    loop {
        let guard = read();
        let Some(session) = guard.as_ref() else { return Code::UNINITIALIZED };
        if !counted {
            session.store.control().count(function);
            counted = true;
        }
        if session.store.control().generation() != session.generation {
            drop(guard);
            match reload() {
                Ok(()) => continue,
                Err(code) => return code,
            }
        }
        let view = View { world: &session.world, store: &session.store, function, met_its_fault };
        match body(&view) {
            Ok(()) => return Code::SUCCESS,
            Err(Stop::Return(code)) => return code,
            Err(Stop::Wait(delay, returns)) => {
                drop(guard);
                delay.pass();
                if let Some(code) = returns {
                    return code;
                }
                met_its_fault = true;
            }
        }
    }
}

/// A call about the machine as a whole.
pub(crate) fn on_node(function: Function, body: impl Fn(&World) -> Answer) -> Code {
    call(function, |view| {
        view.reach(None)?;
        Ok(body(view.world)?)
    })
}

/// A call on a GPU or a MIG device.
pub(crate) fn on_device(function: Function, handle: Handle, body: impl Fn(Device<'_>) -> Answer) -> Code {
    call(function, |view| {
        let device = handle.device(view.world);
        view.reach(device.as_ref().ok().map(|device| device.index))?;
        Ok(body(device?)?)
    })
}

/// A call on a GPU; a MIG device is no argument for it.
pub(crate) fn on_gpu(function: Function, handle: Handle, body: impl Fn(Device<'_>) -> Answer) -> Code {
    on_device(function, handle, |device| match device.slice {
        Some(_) => Err(Code::INVALID_ARGUMENT),
        None => body(device),
    })
}

/// A call on a GPU instance.
pub(crate) fn on_instance(function: Function, handle: Handle, body: impl Fn(Instance<'_>) -> Answer) -> Code {
    call(function, |view| {
        let instance = handle.instance(view.world);
        view.reach(instance.as_ref().ok().map(|instance| instance.index))?;
        let instance = instance?;
        view.world.permit(Permission::Monitor)?;
        Ok(body(instance)?)
    })
}

/// A call on a compute instance.
pub(crate) fn on_compute(function: Function, handle: Handle, body: impl Fn(Device<'_>) -> Answer) -> Code {
    call(function, |view| {
        let compute = handle.compute_instance(view.world);
        view.reach(compute.as_ref().ok().map(|compute| compute.index))?;
        let compute = compute?;
        view.world.permit(Permission::Monitor)?;
        Ok(body(compute)?)
    })
}

/// A call that looks a device up and hands its handle to `found`.
pub(crate) fn on_lookup(
    function: Function,
    find: impl Fn(&World) -> Answer<Handle>,
    found: impl Fn(Handle) -> Answer,
) -> Code {
    call(function, |view| {
        let handle = find(view.world);
        let device = handle.as_ref().ok().and_then(|handle| handle.device(view.world).ok());
        view.reach(device.map(|device| device.index))?;
        Ok(found(handle?)?)
    })
}

/// A call that changes the GPU whose handle, or whose part's handle, it gets: looked at like any other call, then made
/// on the world as it is when nobody else changes it. What it refuses has no effect; what it hands out goes to `done`.
pub(crate) fn to_change<T>(
    function: Function,
    index: impl Fn(&World) -> Answer<usize>,
    change: impl Fn(&mut World) -> Answer<T>,
    done: impl Fn(T) -> Answer,
) -> Code {
    let store = Cell::new(None);
    let seen = call(function, |view| {
        let gpu = index(view.world);
        view.reach(gpu.as_ref().ok().copied())?;
        gpu?;
        store.set(Some(Arc::clone(view.store)));
        Ok(())
    });
    let Some(store) = store.take().filter(|_| seen == Code::SUCCESS) else { return seen };
    let changed = store.edit(|world| {
        // Somebody may have been faster.
        let gpu = index(world)?;
        match world.gpus.get(gpu) {
            Some(gpu) if gpu.lost => Err(Code::GPU_IS_LOST),
            _ => change(world),
        }
    });
    match changed.and_then(done) {
        Ok(()) => Code::SUCCESS,
        Err(code) => code,
    }
}

/// A function that the pretended driver does not support.
pub(crate) fn unsupported(function: Function, first: Handle) -> Code {
    call(function, |view| {
        // Stubs don't know whether their first argument is a device: what is none is not for them to refuse.
        view.reach(first.device(view.world).ok().map(|device| device.index))?;
        Err(Code::NOT_SUPPORTED.into())
    })
}

/// Looks at the machine as it is now, outside any call.
pub(crate) fn look<T>(body: impl Fn(&World) -> T) -> Answer<T> {
    loop {
        let guard = read();
        let session = guard.as_ref().ok_or(Code::UNINITIALIZED)?;
        if session.store.control().generation() == session.generation {
            return Ok(body(&session.world));
        }
        drop(guard);
        reload()?;
    }
}

/// The store, for waiting on it without holding the session.
pub(crate) fn store() -> Answer<Arc<Store>> {
    read().as_ref().map(|session| Arc::clone(&session.store)).ok_or(Code::UNINITIALIZED)
}

/// `nvmlInit`.
pub(crate) fn init(function: Function) -> Code {
    {
        let mut guard = write();
        if let Some(session) = guard.as_mut() {
            session.users = session.users.saturating_add(1);
        } else {
            match Session::open() {
                Ok(session) => *guard = Some(session),
                Err(error) => {
                    complain(&error);
                    return error.code();
                }
            }
        }
    }
    let code = call(function, |view| view.reach(None));
    if code != Code::SUCCESS {
        leave();
    }
    code
}

/// `nvmlShutdown`.
pub(crate) fn shutdown(function: Function) -> Code {
    let code = call(function, |view| view.reach(None));
    if code == Code::SUCCESS {
        leave();
    }
    code
}

fn leave() {
    let mut guard = write();
    if let Some(session) = guard.as_mut() {
        session.users = session.users.saturating_sub(1);
        if session.users == 0 {
            *guard = None;
        }
    }
}

fn reload() -> Answer {
    let mut guard = write();
    let session = guard.as_mut().ok_or(Code::UNINITIALIZED)?;
    if session.store.control().generation() == session.generation {
        return Ok(());
    }
    match session.store.snapshot() {
        Ok((world, generation)) => {
            session.world = world;
            session.generation = generation;
            Ok(())
        }
        Err(StoreError::Gone { .. }) => {
            // As if the driver had been unloaded: who comes back by `nvmlInit` meets the next one.
            *guard = None;
            Err(Code::DRIVER_NOT_LOADED)
        }
        Err(error) => {
            complain(&error);
            Err(Code::UNKNOWN)
        }
    }
}

impl From<StoreError> for Code {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Gone { .. } => return Self::DRIVER_NOT_LOADED,
            StoreError::Io { source, .. } if is_not_allowed(source) => return Self::NO_PERMISSION,
            _ => {}
        }
        complain(&error);
        Self::UNKNOWN
    }
}

/// Why a process cannot have its machine.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(
        "no scene: set FAKE_NVML_SCENE to a scene file, or FAKE_NVML_STATE to the directory of a machine \
         (nor is there one in a folder `fake-nvml` beside the library)"
    )]
    NoScene,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    fn code(&self) -> Code {
        match self {
            Self::NoScene | Self::Store(StoreError::Scene(_) | StoreError::Gone { .. }) => Code::DRIVER_NOT_LOADED,
            Self::Store(_) => Code::UNKNOWN,
        }
    }
}

impl Session {
    fn open() -> Result<Self, OpenError> {
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let (scene, mut state) = (path("FAKE_NVML_SCENE"), path("FAKE_NVML_STATE"));
        if scene.is_none() && state.is_none() {
            state = place::machine_beside_library();
        }
        let create = || first_world(scene.as_deref());
        let store = match &state {
            Some(directory) => match (Store::open(directory, create), &scene) {
                (Err(StoreError::Scene(reason)), None) if reason.is_empty() => return Err(OpenError::NoScene),
                (opened, _) => opened?.0,
            },
            None if scene.is_none() => return Err(OpenError::NoScene),
            None => Store::private(create()?)?,
        };
        let (world, generation) = store.snapshot()?;
        Ok(Self { store: Arc::new(store), world, generation, users: 1 })
    }
}

fn first_world(scene: Option<&Path>) -> Result<World, StoreError> {
    let Some(scene) = scene else { return Err(StoreError::Scene(String::new())) };
    resolve::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string()))
}

#[allow(clippy::print_stderr, reason = "a C library has no other way to say why it cannot start")]
fn complain(error: &impl fmt::Display) {
    eprintln!("fake-nvml: {error}");
}
