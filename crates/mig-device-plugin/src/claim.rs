//! A kubelet has one agent at a time, whatever each would offer: of two that know nothing of each other's resources one may
//! give a whole GPU to one pod, and the other a slice of it to another.
//!
//! Who has the lock of a file in the kubelet's directory serves. The kernel gives it back with its process, however that
//! ends; the file is removed in the end, and one that is left does no harm.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Not a socket, which the kubelet would wipe.
const FILE: &str = "mig-agent.lock";
/// Of those who make and remove it at the same time, one comes through.
const TRIES: usize = 8;

#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    held: Mutex<Option<File>>,
}

impl Claim {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE), held: Mutex::new(None) }
    }

    /// Whether this agent has the kubelet, from now on or already. The directory may have been made anew since.
    pub(crate) fn take(&self) -> io::Result<bool> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|file| self.is_at_its_place(file)) {
            return Ok(true);
        }
        *held = None;
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            // A link in its place is not followed, and a pipe not waited for.
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags.bits().cast_signed());
            let file = options.open(&self.path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(false),
                // Where there are no locks nobody else has one either.
                Err(TryLockError::Error(_)) => {}
            }
            // Who had it may have removed the file since it was opened.
            if self.is_at_its_place(&file) {
                *held = Some(file);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_at_its_place(&self, file: &File) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&self.path).map(identity);
        there.is_ok_and(|there| file.metadata().is_ok_and(|own| identity(own) == there))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if held.is_some_and(|file| self.is_at_its_place(&file)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (Claim::new(directory.path()), Claim::new(directory.path()));
        assert!(one.take().unwrap() && one.take().unwrap());
        assert!(!two.take().unwrap() && !two.take().unwrap());
        // The directory's content is gone, and whoever comes first has what is there now.
        fs::remove_file(directory.path().join(FILE)).unwrap();
        assert!(two.take().unwrap());
        assert!(!one.take().unwrap());
        drop(two);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
        assert!(one.take().unwrap());
        // Somebody else's file is none of ours.
        fs::remove_file(directory.path().join(FILE)).unwrap();
        fs::write(directory.path().join(FILE), "").unwrap();
        drop(one);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join(FILE)).unwrap();
        assert!(Claim::new(directory.path()).take().is_err());
        assert!(Claim::new(&directory.path().join("nowhere")).take().is_err());
    }
}
