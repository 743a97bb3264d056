//! A resource's socket in the kubelet's directory, which belongs to one agent at a time.
//!
//! Two agents may be there: an upgrade overlaps, or somebody installed two releases. When the kubelet wipes its directory
//! both come at the same instant, and who removed the other's fresh socket as a leftover would then register over a stream
//! that is open: the kubelet drops both. So looking at the name and taking it happen under a lock.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kubelet::{SocketIdentity, is_plugin};
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};

/// Far longer than anybody needs the directory. Who has it for longer hangs, or is no agent.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(1);
/// They hold up a thread.
const TRIES_AT_THE_END: u32 = 50;

/// Somebody can connect to it, and nobody is served yet.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) guard: SocketGuard,
}

/// Who has the socket's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Ours,
    Taken,
    Empty,
}

impl Socket {
    /// Takes the name, unless somebody serves there or has just come.
    pub(crate) async fn bind(directory: &Path, file: &str) -> io::Result<Option<Self>> {
        let path = directory.join(file);
        let hold = Hold::of(directory).await;
        // What another agent made, it made under the lock, so this one listens: if it refuses, it is a leftover.
        let before = SocketIdentity::of(&path);
        drop(hold);
        // Without the lock: one that hangs would hold up every other socket of the directory.
        if is_plugin(&path).await {
            return Ok(None);
        }
        let _hold = Hold::of(directory).await;
        let now = SocketIdentity::of(&path);
        if now.is_some() && now != before {
            return Ok(None);
        }
        make_room(&path)?;
        let listener = UnixListener::bind(&path)?;
        let identity = SocketIdentity::of(&path);
        Ok(Some(Self { listener, guard: SocketGuard { path, identity } }))
    }
}

/// The name is ours, whatever has taken it meanwhile. A link is removed, and not what it leads to.
fn make_room(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{} is in the way: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A lock on the directory itself: it leaves no file behind, and the kernel gives it back whatever happens.
#[derive(Debug)]
struct Hold(File);

/// Another process has the lock.
struct Busy;

impl Hold {
    /// None where there can be no lock: an agent alone on its node loses nothing by that.
    fn at_once(directory: &Path) -> Result<Option<Self>, Busy> {
        let Ok(directory) = File::open(directory) else { return Ok(None) };
        match directory.try_lock() {
            Ok(()) => Ok(Some(Self(directory))),
            Err(TryLockError::WouldBlock) => Err(Busy),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Nor one where somebody does not let go.
    async fn of(directory: &Path) -> Option<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::at_once(directory) {
                Ok(hold) => return hold,
                Err(Busy) if Instant::now() < deadline => sleep(BETWEEN_TRIES).await,
                Err(Busy) => return None,
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Removes the socket on every way out, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketGuard {
    path: PathBuf,
    identity: Option<SocketIdentity>,
}

impl SocketGuard {
    pub(crate) fn place(&self) -> Place {
        match SocketIdentity::of(&self.path) {
            None => Place::Empty,
            now if now == self.identity => Place::Ours,
            Some(_) => Place::Taken,
        }
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // Nobody listens any more, so another agent may take the name between the look and the removal. One that hangs in
        // there is not waited for: a socket that stays is no harm, the next start removes it.
        let directory = self.path.parent().unwrap_or(&self.path);
        let mut hold = Hold::at_once(directory);
        for _ in 0..TRIES_AT_THE_END {
            if hold.is_ok() {
                break;
            }
            std::thread::sleep(BETWEEN_TRIES);
            hold = Hold::at_once(directory);
        }
        if hold.is_ok() && self.place() == Place::Ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use tokio::task::JoinSet;

    use super::*;

    const NAME: &str = "a.sock";

    /// Each with a runtime and threads of its own, as processes have.
    fn at_the_same_time<T: Send + 'static>(count: usize, each: impl Fn() -> T + Send + Sync + 'static) -> Vec<T> {
        let (start, each) = (Arc::new(Barrier::new(count)), Arc::new(each));
        let run = |_| {
            let (start, each) = (Arc::clone(&start), Arc::clone(&each));
            std::thread::spawn(move || {
                start.wait();
                each()
            })
        };
        let threads: Vec<_> = (0..count).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn of_those_who_come_at_the_same_instant_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let directories: Vec<_> = (0..64).map(|number| folder.path().join(number.to_string())).collect();
        for (number, directory) in directories.iter().enumerate() {
            std::fs::create_dir(directory).unwrap();
            if number % 2 == 1 {
                drop(std::os::unix::net::UnixListener::bind(directory.join(NAME)).unwrap());
            }
        }
        let count = directories.len();
        let had = at_the_same_time(4, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut attempts = JoinSet::new();
                for directory in directories.clone() {
                    attempts.spawn(async move { Socket::bind(&directory, NAME).await.unwrap() });
                }
                attempts.join_all().await
            })
        });
        // All are here until now: who let go sooner would leave the name to the next one.
        let places: Vec<_> = had.iter().flatten().flatten().map(|socket| socket.guard.place()).collect();
        assert_eq!(places, vec![Place::Ours; count]);
    }

    #[tokio::test]
    async fn what_has_come_while_the_question_was_asked_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let another = path.clone();
        let thread = std::thread::spawn(move || {
            let (asked, _) = listener.accept().unwrap();
            std::fs::remove_file(&another).unwrap();
            let next = std::os::unix::net::UnixListener::bind(&another).unwrap();
            drop(asked);
            next
        });
        assert!(Socket::bind(folder.path(), NAME).await.unwrap().is_none());
        thread.join().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_directory_for_ever_does_not_keep_us_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = File::open(folder.path()).unwrap();
        held.lock().unwrap();
        let socket = Socket::bind(folder.path(), NAME).await.unwrap().unwrap();
        assert_eq!(socket.guard.place(), Place::Ours);
        drop(socket);
        assert!(folder.path().join(NAME).exists(), "whoever has the lock may be taking the name");
        held.unlock().unwrap();
        drop(Socket::bind(folder.path(), NAME).await.unwrap().unwrap());
        assert!(!folder.path().join(NAME).exists());
    }
}
