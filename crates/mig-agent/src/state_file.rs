//! Files in which an agent keeps what the one after it has to know, in `--state-dir`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Far more than a node full of faults, or of pods.
const MOST_BYTES: u64 = 4 << 20;

/// For what a file is good: nothing in it is true after the machine's next start, nor for the agent of another kubelet, of
/// a test beside the node's own perhaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) boot_id: String,
    pub(crate) kubelet_root: String,
}

impl Life {
    pub(crate) fn new(proc_root: &Path, kubelet_root: &Path) -> Self {
        let boot_id = fs::read_to_string(proc_root.join("sys/kernel/random/boot_id"))
            .or_else(|_| fs::read_to_string("/proc/sys/kernel/random/boot_id"))
            .unwrap_or_default();
        Self { boot_id: boot_id.trim().to_owned(), kubelet_root: kubelet_root.display().to_string() }
    }
}

pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    // A pipe in its place must not keep the agent from starting.
    let opened =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
    opened.take(MOST_BYTES).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// What could not be written is tried again: a disk that is full may have room soon.
const RETRY: Duration = Duration::from_secs(5);

/// Waits for what has to be written next, or anew where that failed. It comes before the end if both are there.
pub(crate) async fn is_news<T>(content: &mut watch::Receiver<T>, failed: bool, over: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        changed = content.changed() => changed.is_ok(),
        () = over.cancelled() => false,
        () = sleep(RETRY), if failed => true,
    }
}

/// Who reads it sees the old or the new one, and never a part.
pub(crate) fn write<T: Serialize>(directory: &Path, name: &str, content: &T) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(content).map_err(io::Error::other)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it would have {} bytes, and {MOST_BYTES} are read", text.len())));
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // Two agents overlap during an upgrade, and both are process 1 of their pods. Where there are no locks, there is one.
    let held = File::open(directory)?;
    let _ = held.lock();
    let new = directory.join(format!(".{name}.new"));
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&new, directory.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_who_write_at_the_same_time_each_writes_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        write(path, "a.json", &["0"]).unwrap();
        std::thread::scope(|scope| {
            for number in 1..5 {
                scope.spawn(move || {
                    for count in 0..100 {
                        write(path, "a.json", &vec![number.to_string(); number * 100 + count]).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let read: Vec<String> = read(&path.join("a.json")).unwrap();
                assert!(read.iter().all(|one| *one == read[0]), "{read:?}");
            }
        });
        assert_eq!(fs::read_dir(path).unwrap().count(), 1, "nothing is left beside it");
    }
}
