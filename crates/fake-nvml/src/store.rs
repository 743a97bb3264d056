//! Where a machine lives: one page of counters shared by all its processes, and the world it points to.
//!
//! A state directory holds `control` (that page), `world.<generation>` (the world, already resolved) and `lock`. A
//! change writes the next world beside the present one, then stores its number in the page: a single atomic step,
//! so a process killed at any instant leaves either the old machine or the new one. Readers compare one number per
//! call and read a file only when it has moved. `layout` says where the machine's files were laid out, if they were.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, fallocate, flock},
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
    thread::futex,
};

use crate::{
    faults::MAX_FAULTS,
    function::{Function, NAMES},
    layout::{self, Following, Layout, LayoutError},
    outside::Refused,
    world::World,
};

/// Changes with anything that `control` or `world.*` hold, so that an older state directory is told from a broken one.
const MAGIC: u64 = u64::from_le_bytes(*b"fkNVML\0\x03");
const SIZE: usize = size_of::<Page>();

#[repr(C)]
struct Page {
    magic: AtomicU64,
    generation: AtomicU64,
    /// Moves with every change: a futex that waiters for events sleep on.
    changes: AtomicU32,
    padding: AtomicU32,
    /// The number of the world that the laid out files show.
    laid_out: AtomicU64,
    hits: [AtomicU64; MAX_FAULTS],
    calls: [AtomicU64; NAMES.len()],
}

/// The number of the world of a machine that is no more.
const GONE: u64 = u64::MAX;

/// The shared page of a machine, mapped.
pub struct Control {
    page: NonNull<Page>,
    /// Who may not write to the machine counts for itself.
    own: Option<NonNull<Page>>,
}

// SAFETY: the page is only reached through shared references to atomics, and stays mapped as long as this lives.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    fn map(file: Option<&File>) -> io::Result<Self> {
        let page = match file {
            Some(file) => map_file(file, ProtFlags::READ | ProtFlags::WRITE)?,
            None => map_own()?,
        };
        Ok(Self { page, own: None })
    }

    /// For a process that sees the machine and may not change it, as through a mount that is read-only.
    fn map_to_read(file: &File) -> io::Result<Self> {
        let own = map_own()?;
        let page = map_file(file, ProtFlags::READ).inspect_err(|_| unmap(own))?;
        Ok(Self { page, own: Some(own) })
    }

    /// Where this process counts.
    fn counters(&self) -> &Page {
        // SAFETY: as in `page`, and nobody else's.
        self.own.map_or_else(|| self.page(), |own| unsafe { own.as_ref() })
    }

    fn page(&self) -> &Page {
        // SAFETY: page-aligned, SIZE long and mapped until drop; all of it is atomics, for which any bits are valid
        // and which other processes may change at any time.
        unsafe { self.page.as_ref() }
    }

    /// The number of the world that is now.
    pub(crate) fn generation(&self) -> u64 {
        self.page().generation.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, function: Function) {
        if let Some(calls) = self.counters().calls.get(function.number()) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one call that a fault's description fits, and says which it was.
    pub(crate) fn hit(&self, slot: usize) -> u64 {
        self.counters().hits.get(slot).map_or(0, |hits| hits.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// How often each function was called, by number.
    pub fn calls(&self) -> Vec<u64> {
        self.counters().calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect()
    }

    /// Starts counting again.
    pub fn reset_calls(&self) {
        self.counters().calls.iter().for_each(|calls| calls.store(0, Ordering::Relaxed));
    }

    /// Makes the fault in this slot count from the beginning.
    pub fn reset_hits(&self, slot: usize) {
        if let Some(hits) = self.counters().hits.get(slot) {
            hits.store(0, Ordering::Relaxed);
        }
    }

    /// A number that moves with every change.
    pub(crate) fn changes(&self) -> u32 {
        self.page().changes.load(Ordering::Acquire)
    }

    /// Sleeps until something changes after `seen`, or for `time`.
    pub(crate) fn wait(&self, seen: u32, time: Duration) {
        // Anything that wakes it, a signal too, is fine: the caller looks again.
        let time =
            rustix::thread::Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let _ = futex::wait(&self.page().changes, futex::Flags::empty(), seen, Some(&time));
    }

    fn publish(&self, generation: u64) {
        self.page().generation.store(generation, Ordering::Release);
        self.page().changes.fetch_add(1, Ordering::Release);
        let _ = futex::wake(&self.page().changes, futex::Flags::empty(), i32::MAX.cast_unsigned());
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        unmap(self.page);
        if let Some(own) = self.own {
            unmap(own);
        }
    }
}

fn map_file(file: &File, access: ProtFlags) -> io::Result<NonNull<Page>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice; the file was checked to be SIZE long.
    let address = unsafe { mmap(std::ptr::null_mut(), SIZE, access, MapFlags::SHARED, file, 0) }?;
    Ok(NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?)
}

fn map_own() -> io::Result<NonNull<Page>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let address = unsafe { mmap_anonymous(std::ptr::null_mut(), SIZE, access, MapFlags::PRIVATE) }?;
    Ok(NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?)
}

fn unmap(page: NonNull<Page>) {
    // SAFETY: mapped by one of the two above with this size, and by the only one who has it.
    let _ = unsafe { munmap(page.as_ptr().cast(), SIZE) };
}

/// A machine: its page of counters, and where its world is.
pub struct Store {
    control: Control,
    /// The state directory; a machine without one is this process's own.
    directory: Option<PathBuf>,
    /// The last world that this process has seen, and its number. Of a private machine it is the only one.
    seen: Mutex<(Arc<World>, u64)>,
}

/// Why a machine cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it.
    #[error("state directory {}: {source}", directory.display())]
    Io {
        /// The state directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is there was not written by this version.
    #[error("state directory {}: {reason}; remove it and start again", directory.display())]
    Foreign {
        /// The state directory.
        directory: PathBuf,
        /// How it shows.
        reason: &'static str,
    },
    /// There was one, and it was taken away.
    #[error("state directory {}: the machine is no more", directory.display())]
    Gone {
        /// The state directory.
        directory: PathBuf,
    },
    /// The scene that the machine was to be made from.
    #[error("{0}")]
    Scene(String),
    /// Its files below a directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The machine is in no state for the change.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Store {
    /// A machine that no other process sees.
    pub fn private(world: World) -> Result<Self, StoreError> {
        let control = Control::map(None).map_err(|source| StoreError::Io { directory: PathBuf::new(), source })?;
        control.publish(1);
        Ok(Self { control, directory: None, seen: Mutex::new((Arc::new(world), 1)) })
    }

    /// The machine of this directory; made by `create` when there is none yet.
    pub fn open(
        directory: &Path,
        create: impl FnOnce() -> Result<World, StoreError>,
    ) -> Result<(Self, World, u64), StoreError> {
        let failed = |source| StoreError::Io { directory: directory.to_owned(), source };
        let path = directory.join("control");
        let mut to_read = false;
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if is_not_allowed(&error) && path.exists() => {
                to_read = true;
                File::open(&path).map_err(failed)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(directory).map_err(failed)?;
                let _lock = lock(directory).map_err(failed)?;
                // Another process may have made it while this one waited for the lock.
                if !path.exists() {
                    let world = create()?;
                    Self::found(directory, &world).map_err(failed)?;
                }
                OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let foreign = |reason| StoreError::Foreign { directory: directory.to_owned(), reason };
        if file.metadata().map_err(failed)?.len() != SIZE as u64 {
            return Err(foreign("its control file has another size"));
        }
        let control = if to_read { Control::map_to_read(&file) } else { Control::map(Some(&file)) };
        let control = control.map_err(failed)?;
        if control.page().magic.load(Ordering::Relaxed) != MAGIC {
            return Err(foreign("its control file is of another version"));
        }
        let (world, generation) = read_world(directory, &control)?;
        let seen = Mutex::new((Arc::new(world.clone()), generation));
        Ok((Self { control, directory: Some(directory.to_owned()), seen }, world, generation))
    }

    /// Writes a first world, then the page: the machine exists once the page has its name.
    fn found(directory: &Path, world: &World) -> io::Result<()> {
        write_world(directory, 1, world)?;
        let draft = directory.join("control.new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o666).open(&draft)?;
        // Not `set_len`: a page that the disk has no room for would kill whoever touches it.
        fallocate(&file, FallocateFlags::empty(), 0, SIZE as u64)?;
        let control = Control::map(Some(&file))?;
        control.page().magic.store(MAGIC, Ordering::Relaxed);
        control.publish(1);
        fs::rename(draft, directory.join("control"))
    }

    /// The shared page.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The world that is now, and its number.
    pub fn read(&self) -> Result<(World, u64), StoreError> {
        self.snapshot().map(|(world, generation)| (World::clone(&world), generation))
    }

    /// The same, shared with whoever else in this process looks at it.
    pub(crate) fn snapshot(&self) -> Result<(Arc<World>, u64), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = self.directory.as_ref().filter(|_| seen.1 != self.control.generation()) {
            let (world, generation) = read_world(directory, &self.control)?;
            *seen = (Arc::new(world), generation);
        }
        Ok(seen.clone())
    }

    fn remember(&self, world: Arc<World>, generation: u64) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (world, generation);
    }

    /// Changes the world for all processes of the machine; one change at a time. What `edit` refuses changes nothing.
    pub fn change<T>(&self, edit: impl FnOnce(&mut World) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.edit(edit)
    }

    /// [`Self::change`] with the caller's own kind of error.
    pub(crate) fn edit<T, E: From<StoreError>>(&self, edit: impl FnOnce(&mut World) -> Result<T, E>) -> Result<T, E> {
        let Some(directory) = &self.directory else {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let mut world = World::clone(&seen.0);
            let result = edit(&mut world)?;
            *seen = (Arc::new(world), seen.1 + 1);
            self.control.publish(seen.1);
            return Ok(result);
        };
        let failed = |source| StoreError::Io { directory: directory.clone(), source };
        let _lock = lock(directory).map_err(failed)?;
        let (before, generation) = self.snapshot()?;
        let shown = self.control.page().laid_out.load(Ordering::Relaxed) == generation;
        let files = read_layout(directory).map(|layout| Following::new(layout, &before, shown));
        let mut world = World::clone(&before);
        let result = edit(&mut world)?;
        write_world(directory, generation + 1, &world).map_err(failed)?;
        self.control.publish(generation + 1);
        // Whether the files follow or not, the change is made: a root that this process cannot see or write to stays
        // behind, and whoever changes the machine next and can makes up for it.
        if let Some(Ok(())) = files.map(|files| files.change(&world)) {
            self.control.page().laid_out.store(generation + 1, Ordering::Relaxed);
        }
        self.remember(Arc::new(world), generation + 1);
        // The change is made: what is left over is not worth a failure. A process killed here leaves a file that the
        // next change takes away.
        for old in fs::read_dir(directory).into_iter().flatten().flatten() {
            let number = old.file_name().to_str().and_then(|name| name.strip_prefix("world.")?.parse::<u64>().ok());
            if number.is_some_and(|number| number <= generation) {
                let _ = fs::remove_file(old.path());
            }
        }
        Ok(result)
    }

    /// Takes the machine away: whoever has it open learns so on the next call.
    pub fn retire(self) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let failed = |source| StoreError::Io { directory: directory.clone(), source };
        let _lock = lock(directory).map_err(failed)?;
        self.control.publish(GONE);
        fs::remove_dir_all(directory).map_err(failed)
    }

    /// Lays the machine's files out, and keeps them as it is from now on.
    pub fn lay_out(&self, layout: &Layout) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else {
            return Ok(layout::lay_out(&self.snapshot()?.0, layout)?);
        };
        let failed = |source| StoreError::Io { directory: directory.clone(), source };
        let _lock = lock(directory).map_err(failed)?;
        let (world, generation) = self.snapshot()?;
        layout::lay_out(&world, layout)?;
        write_layout(directory, layout).map_err(failed)?;
        self.control.page().laid_out.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether the system refuses to have something written here, whatever it is.
pub(crate) fn is_not_allowed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn read_layout(directory: &Path) -> Option<Layout> {
    postcard::from_bytes(&fs::read(directory.join("layout")).ok()?).ok()
}

fn write_layout(directory: &Path, layout: &Layout) -> io::Result<()> {
    let draft = directory.join("layout.new");
    fs::write(&draft, postcard::to_stdvec(layout).map_err(io::Error::other)?)?;
    fs::rename(draft, directory.join("layout"))
}

fn read_world(directory: &Path, control: &Control) -> Result<(World, u64), StoreError> {
    let foreign = |reason| StoreError::Foreign { directory: directory.to_owned(), reason };
    loop {
        let generation = control.generation();
        if generation == GONE {
            return Err(StoreError::Gone { directory: directory.to_owned() });
        }
        match fs::read(world_path(directory, generation)) {
            Ok(bytes) => {
                let world = postcard::from_bytes(&bytes).map_err(|_| foreign("its world is not readable"))?;
                return Ok((world, generation));
            }
            // A change came between the two reads, and took the older file away.
            Err(error) if error.kind() == io::ErrorKind::NotFound && generation != control.generation() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(foreign("its world is gone")),
            Err(source) => return Err(StoreError::Io { directory: directory.to_owned(), source }),
        }
    }
}

fn world_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("world.{generation}"))
}

fn write_world(directory: &Path, generation: u64, world: &World) -> io::Result<()> {
    let bytes = postcard::to_stdvec(world).map_err(io::Error::other)?;
    let draft = directory.join("world.new");
    fs::write(&draft, bytes)?;
    fs::rename(draft, world_path(directory, generation))
}

/// Held until the file is closed, which a killed process does too.
fn lock(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o666).open(directory.join("lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
