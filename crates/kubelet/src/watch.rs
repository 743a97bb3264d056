//! Notices that the kubelet, or somebody, changed something in the device-plugins directory.
//!
//! inotify tells of it at once; a slow poll stands behind it, since the directory itself may be deleted and made anew,
//! and a watch on the old one then says nothing.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use crate::paths::KubeletPaths;
use crate::socket::SocketIdentity;

/// While all is well, inotify has the word.
const SLOW: Duration = Duration::from_secs(10);
/// While there is no kubelet: that a mounted directory is deleted is no event.
const WAITING: Duration = Duration::from_secs(1);
/// While there is no directory to watch.
const FAST: Duration = Duration::from_millis(200);

/// What is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryState {
    /// The kubelet's socket, if it has one.
    pub kubelet: Option<SocketIdentity>,
    /// Goes up with every change seen in the directory, so that plugins look after their own sockets.
    pub changes: u64,
}

/// The directory was deleted, but a mount still holds it: what is made anew in its place is not seen here.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kubelet's directory {} was deleted and is still mounted here: what takes its place can only be seen after a restart",
    .0.display()
)]
pub struct DirectoryLost(PathBuf);

/// Publishes the state of the directory for as long as somebody listens, or until no more can be seen of it.
pub async fn watch_directory(paths: KubeletPaths, state: watch::Sender<DirectoryState>) -> Result<(), DirectoryLost> {
    watch_by(open, paths, state).await
}

async fn watch_by(
    open: impl Fn(&Path) -> io::Result<EventStream<Vec<u8>>>,
    paths: KubeletPaths,
    state: watch::Sender<DirectoryState>,
) -> Result<(), DirectoryLost> {
    let directory = paths.device_plugins();
    let socket = paths.registration_socket();
    let mut watched: Option<(SocketIdentity, EventStream<Vec<u8>>)> = None;
    let mut told = false;
    let mut seen = None;
    let mut is_event = true;
    loop {
        let current = identity_of_directory(&directory)?;
        if watched.as_ref().map(|(identity, _)| *identity) != current {
            watched = None;
            match current.map(|identity| (identity, open(&directory))) {
                Some((identity, Ok(stream))) => watched = Some((identity, stream)),
                Some((_, Err(error))) if !told => {
                    told = true;
                    let every = FAST.as_millis();
                    tracing::warn!(directory = %directory.display(), %error, "unable to watch the kubelet's directory, looking at it every {every} ms instead");
                }
                _ => {}
            }
        }
        let now = look(&directory, &socket);
        if is_event || seen.as_ref() != Some(&now) {
            publish(&state, now.0);
            seen = Some(now);
        }
        if state.is_closed() {
            return Ok(());
        }
        let Some((_, events)) = &mut watched else {
            is_event = false;
            tokio::time::sleep(FAST).await;
            continue;
        };
        // After a timeout things are looked at all the same.
        let pause = if state.borrow().kubelet.is_some() { SLOW } else { WAITING };
        let next = timeout(pause, events.next()).await;
        is_event = next.is_ok();
        if let Ok(next) = next {
            let gone = EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF;
            let goes_on = matches!(&next, Some(Ok(event)) if !event.mask.intersects(gone));
            // A new directory may have the old one's inode, and nothing would tell them apart.
            watched = watched.filter(|_| goes_on);
        }
    }
}

/// The kubelet's socket, and what changes when anything in the directory does.
fn look(directory: &Path, socket: &Path) -> (Option<SocketIdentity>, Option<SystemTime>) {
    let changed = std::fs::metadata(directory).and_then(|metadata| metadata.modified());
    (SocketIdentity::of(socket), changed.ok())
}

fn publish(state: &watch::Sender<DirectoryState>, kubelet: Option<SocketIdentity>) {
    state.send_modify(|state| *state = DirectoryState { kubelet, changes: state.changes + 1 });
}

fn open(directory: &Path) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    inotify.watches().add(directory, mask | WatchMask::ONLYDIR)?;
    inotify.into_event_stream(vec![0; 4096])
}

fn identity_of_directory(directory: &Path) -> Result<Option<SocketIdentity>, DirectoryLost> {
    match std::fs::metadata(directory) {
        // A directory has a link for its name, and one for itself, until it is deleted.
        Ok(metadata) if metadata.is_dir() && metadata.nlink() == 0 => Err(DirectoryLost(directory.to_owned())),
        Ok(metadata) if metadata.is_dir() => Ok(Some(SocketIdentity::without_time(&metadata))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn eventually(
        state: &mut watch::Receiver<DirectoryState>,
        condition: impl Fn(&DirectoryState) -> bool,
    ) -> DirectoryState {
        let found = timeout(Duration::from_secs(20), state.wait_for(|state| condition(state))).await;
        *found.expect("the change was never seen").unwrap()
    }

    #[tokio::test]
    async fn a_kubelet_that_comes_goes_and_moves_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let paths = KubeletPaths::new(root.path());
        let (sender, mut state) = watch::channel(DirectoryState { kubelet: None, changes: 0 });
        let watcher = tokio::spawn(watch_directory(paths.clone(), sender));

        // No directory yet: the agent may start before the kubelet was ever run.
        eventually(&mut state, |state| state.kubelet.is_none() && state.changes > 0).await;
        std::fs::create_dir(paths.device_plugins()).unwrap();
        let first = UnixListener::bind(paths.registration_socket()).unwrap();
        let one = eventually(&mut state, |state| state.kubelet.is_some()).await.kubelet;

        std::fs::remove_file(paths.registration_socket()).unwrap();
        eventually(&mut state, |state| state.kubelet.is_none()).await;
        let _second = UnixListener::bind(paths.registration_socket()).unwrap();
        let two = eventually(&mut state, |state| state.kubelet.is_some()).await.kubelet;
        assert_ne!(one, two);
        drop(first);

        // Some node setups recreate the whole directory.
        std::fs::remove_dir_all(paths.device_plugins()).unwrap();
        eventually(&mut state, |state| state.kubelet.is_none()).await;
        std::fs::create_dir(paths.device_plugins()).unwrap();
        let _third = UnixListener::bind(paths.registration_socket()).unwrap();
        eventually(&mut state, |state| state.kubelet.is_some()).await;
        std::fs::remove_file(paths.registration_socket()).unwrap();
        eventually(&mut state, |state| state.kubelet.is_none()).await;

        drop(state);
        // The next event lets it notice that nobody listens.
        std::fs::write(paths.device_plugins().join("x"), "").unwrap();
        timeout(Duration::from_secs(20), watcher).await.unwrap().unwrap().unwrap();
    }

    /// Nodes run out of inotify's watches.
    #[tokio::test]
    async fn without_inotify_it_is_looked_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let paths = KubeletPaths::new(root.path());
        std::fs::create_dir(paths.device_plugins()).unwrap();
        let (sender, mut state) = watch::channel(DirectoryState { kubelet: None, changes: 0 });
        let none = |_: &Path| Err(io::Error::from_raw_os_error(28));
        let watcher = tokio::spawn(watch_by(none, paths.clone(), sender));
        let before = eventually(&mut state, |state| state.changes > 0).await.changes;
        let _kubelet = UnixListener::bind(paths.registration_socket()).unwrap();
        let after = eventually(&mut state, |state| state.kubelet.is_some()).await.changes;
        // Our own socket is one of the others.
        std::fs::write(paths.device_plugins().join("ours.sock"), "").unwrap();
        eventually(&mut state, |state| state.changes > after).await;
        assert!(after > before);
        drop(state);
        timeout(Duration::from_secs(20), watcher).await.unwrap().unwrap().unwrap();
    }

    /// As in a pod: a mount of the directory outlives its deletion.
    #[tokio::test]
    async fn a_directory_that_was_deleted_under_its_mount_is_reported() {
        use std::os::fd::AsRawFd as _;
        let root = tempfile::tempdir().unwrap();
        let (kept, paths) = (root.path().join("kept"), KubeletPaths::new(root.path().join("kubelet")));
        std::fs::create_dir(&kept).unwrap();
        std::fs::create_dir(paths.root()).unwrap();
        let file = std::fs::File::open(&kept).unwrap();
        let held = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        std::os::unix::fs::symlink(held, paths.device_plugins()).unwrap();
        let (sender, mut state) = watch::channel(DirectoryState { kubelet: None, changes: 0 });
        let watcher = tokio::spawn(watch_directory(paths, sender));
        eventually(&mut state, |state| state.changes > 0).await;
        std::fs::remove_dir(&kept).unwrap();
        std::fs::create_dir(&kept).unwrap();
        let end = timeout(Duration::from_secs(20), watcher).await.unwrap().unwrap();
        assert!(end.unwrap_err().to_string().contains("was deleted and is still mounted here"));
    }
}
