//! One writer per node: whoever changes GPUs holds this lock meanwhile.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// Longer than what a holder writes about itself.
const LONGEST: u64 = 512;
/// Somebody who removes the file each time does it on purpose.
const ATTEMPTS: usize = 10;

/// The right to change the GPUs of this node. Given back when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct NodeLock {
    /// The kernel keeps the lock for as long as this is open. What is written in it only tells others who holds it.
    file: File,
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is starting has this file too until its program runs.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("the GPUs of this node are being changed by {}", holder(*pid, what.as_deref(), command.as_deref()))]
    Held {
        /// The holder's process, where it says and lives where we can see it.
        pid: Option<u32>,
        /// What it says that it does.
        what: Option<String>,
        /// Its command's name, as the kernel has it.
        command: Option<String>,
    },
    /// The file, or the folder it is in.
    #[error("unable to lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>, what: Option<&str>, command: Option<&str>) -> String {
    let process = match (pid, command) {
        (Some(pid), Some(command)) => Some(format!("process {pid}, {command}")),
        (Some(pid), None) => Some(format!("process {pid}")),
        (None, _) => None,
    };
    match (what, process) {
        (Some(what), Some(process)) => format!("{what} ({process})"),
        (Some(what), None) => what.to_owned(),
        (None, Some(process)) => process,
        (None, None) => "another process".to_owned(),
    }
}

impl NodeLock {
    /// Takes the lock, or says at once who has it. `what` is for them who come meanwhile: `migctl apply`.
    pub fn acquire(path: &Path, what: &str) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        for _ in 0..ATTEMPTS {
            let mut file = open(path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(held(&mut file)),
                Err(error) => return Err(failed(error.into())),
            }
            // A file that was removed between the two steps locks out nobody: the next one makes it anew.
            if !is_still_at(&file, path).map_err(failed)? {
                continue;
            }
            introduce(&mut file, what).map_err(failed)?;
            return Ok(Self { file });
        }
        Err(failed(io::Error::other("it is removed again and again")))
    }
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    // A link could lead the holder's words into any file.
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Who may not open it can't hold it against those who change GPUs.
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    let there = file.metadata()?;
    if !there.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    // What holders write is short, and nobody else's.
    if there.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it holds something else than a lock's few lines"));
    }
    Ok(file)
}

/// Three lines: process, what it does, and where its number means something.
fn introduce(file: &mut File, what: &str) -> io::Result<()> {
    let what: String = what.chars().filter(|c| !c.is_control()).take(80).collect();
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}\n{what}\n{}\n", std::process::id(), pid_namespace().unwrap_or_default())
}

/// What the holder says of itself. It may be about to say it, or have said nonsense: none of it decides anything.
fn held(file: &mut File) -> LockError {
    let mut bytes = Vec::new();
    let _ = file.take(LONGEST).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.parse::<u32>().ok());
    let what = lines.next().map(|line| line.replace(char::is_control, "\u{fffd}")).filter(|what| !what.is_empty());
    // The agent in its pod and migctl on the node share the file, but number processes each in its own way: a number
    // of another namespace would name an innocent process here.
    let ours = lines.next().is_some_and(|namespace| pid_namespace().as_deref() == Some(namespace));
    let pid = pid.filter(|pid| ours && Path::new("/proc").join(pid.to_string()).is_dir());
    let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    let command = command.map(|name| name.trim_end().replace(char::is_control, "\u{fffd}"));
    LockError::Held { pid, what, command }
}

/// `pid:[4026531836]`.
fn pid_namespace() -> Option<String> {
    fs::read_link("/proc/self/ns/pid").ok()?.into_os_string().into_string().ok()
}
