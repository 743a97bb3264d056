//! `health.json`: what the driver told once, for the agent that comes after this one, and for `migctl status`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mig_health::{Record, VERSION};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const NAME: &str = "health.json";
/// Far more than a node full of faults.
const MOST_BYTES: u64 = 4 << 20;
/// Between two writings.
const PAUSE: Duration = Duration::from_millis(200);

/// The file, and what was in it at first.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    boot_id: String,
    kubelet_root: String,
    before: Option<Record>,
}

impl Store {
    /// Reads what an earlier agent wrote. Whatever is wrong with it, this goes on without.
    pub(crate) fn open(directory: &Path, proc_root: &Path, kubelet_root: &Path) -> Self {
        let boot_id = fs::read_to_string(proc_root.join("sys/kernel/random/boot_id"))
            .or_else(|_| fs::read_to_string("/proc/sys/kernel/random/boot_id"))
            .unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let file = directory.join(NAME);
        let kubelet_root = kubelet_root.display().to_string();
        let before = match read(&file) {
            Ok(record) if record.boot_id != boot_id => {
                tracing::info!(file = %file.display(), "the faults in it are of before the machine's last start");
                None
            }
            // Of a test beside the node's own agent, perhaps.
            Ok(record) if record.kubelet_root != kubelet_root => None,
            Ok(record) => {
                let count = record.faults.iter().filter(|held| held.ended_ms.is_none()).count();
                if count > 0 {
                    tracing::info!(file = %file.display(), count, "faults that an earlier agent saw");
                }
                Some(record)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(
                    "unable to read {}: {error}; faults that an earlier agent saw are forgotten",
                    file.display()
                );
                None
            }
        };
        Self { directory: directory.to_owned(), boot_id, kubelet_root, before }
    }

    /// What an earlier agent knew, if it is still true.
    pub(crate) fn before(&self) -> Option<&Record> {
        self.before.as_ref()
    }

    /// Writes each new record, on a thread of its own: a disk may hang.
    pub(crate) async fn keep(self, mut records: watch::Receiver<Record>) {
        let mut fails = false;
        let mut exists = self.before.is_some();
        while records.changed().await.is_ok() {
            let record = Record {
                boot_id: self.boot_id.clone(),
                kubelet_root: self.kubelet_root.clone(),
                ..records.borrow_and_update().clone()
            };
            if !exists && record.faults.is_empty() && record.uncorrectable_errors.values().all(|errors| *errors == 0) {
                continue;
            }
            let directory = self.directory.clone();
            let written = spawn_blocking(move || write(&directory, &record)).await;
            match written {
                Ok(Ok(())) if fails => {
                    (fails, exists) = (false, true);
                    tracing::info!("faults are kept in {} again", self.directory.display());
                }
                Ok(Err(error)) if !fails => {
                    fails = true;
                    tracing::warn!(
                        "unable to write {}: {error}; a restart of the agent forgets faults (see --state-dir)",
                        self.directory.join(NAME).display()
                    );
                }
                Ok(Ok(())) => exists = true,
                _ => {}
            }
            sleep(PAUSE).await;
        }
    }
}

fn read(file: &Path) -> io::Result<Record> {
    let mut text = Vec::new();
    // A pipe in its place must not keep the agent from starting.
    let opened =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
    opened.take(MOST_BYTES).read_to_end(&mut text)?;
    let record: Record = serde_json::from_slice(&text).map_err(io::Error::other)?;
    if record.version != VERSION {
        return Err(io::Error::other(format!("it is of version {}, expected {VERSION}", record.version)));
    }
    Ok(record)
}

/// Who reads it sees the old or the new one, and never a part.
fn write(directory: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let new = directory.join(format!(".{NAME}.{}", std::process::id()));
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&new, directory.join(NAME)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn record(boot_id: &str) -> Record {
        let held = mig_health::Held {
            gpu: "GPU-0".to_owned(),
            slice: None,
            xid: Some(79),
            message: "XID 79".to_owned(),
            since_ms: 1,
            last_ms: 2,
            returns: 0,
            ended_ms: None,
        };
        Record {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            kubelet_root: "/kubelet".to_owned(),
            faults: vec![held],
            ..Record::default()
        }
    }

    fn proc_root(boot_id: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/kernel/random")).unwrap();
        fs::write(root.path().join("sys/kernel/random/boot_id"), format!("{boot_id}\n")).unwrap();
        root
    }

    #[test]
    fn what_was_written_is_read_in_the_same_life_of_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("run/mig-agent");
        write(&state, &record("one")).unwrap();
        write(&state, &record("one")).unwrap();
        let opened = |boot: &str, kubelet: &str| {
            Store::open(&state, proc_root(boot).path(), Path::new(kubelet)).before().cloned()
        };
        assert_eq!(opened("one", "/kubelet"), Some(record("one")));
        assert_eq!(opened("two", "/kubelet"), None);
        assert_eq!(opened("one", "/another"), None);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn whatever_is_there_instead_is_no_reason_not_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(NAME);
        let open = || Store::open(directory.path(), proc_root("one").path(), Path::new("/kubelet")).before().cloned();
        let opens = || assert_eq!(open(), None);
        opens();
        for text in [
            "",
            "{",
            "[]",
            "null",
            "{\"version\": 2, \"boot_id\": \"one\", \"faults\": [], \"uncorrectable_errors\": {}}",
            "\u{0}",
        ] {
            fs::write(&file, text).unwrap();
            opens();
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        opens();
        assert!(write(directory.path(), &record("one")).is_err());
        fs::remove_dir(&file).unwrap();
        symlink(&file, &file).unwrap();
        opens();
        write(directory.path(), &record("one")).unwrap();
        assert_eq!(open(), Some(record("one")));
    }
}
