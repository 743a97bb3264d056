//! `health.json`: what the driver told once, for the agent that comes after this one, and for `migctl status`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mig_health::{Record, VERSION};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::state_file::{self, Life};

const NAME: &str = "health.json";
/// Between two writings.
const PAUSE: Duration = Duration::from_millis(200);

/// The file, and what was in it at first.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    life: Life,
    before: Option<Record>,
}

impl Store {
    /// Reads what an earlier agent wrote. Whatever is wrong with it, this goes on without.
    pub(crate) fn open(directory: &Path, life: Life) -> Self {
        let file = directory.join(NAME);
        let before = match read(&file) {
            Ok(record) if record.boot_id != life.boot_id => {
                tracing::info!(file = %file.display(), "the faults in it are of before the machine's last start");
                None
            }
            Ok(record) if record.kubelet_root != life.kubelet_root => None,
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
        Self { directory: directory.to_owned(), life, before }
    }

    /// What an earlier agent knew, if it is still true.
    pub(crate) fn before(&self) -> Option<&Record> {
        self.before.as_ref()
    }

    /// Writes each new record, on a thread of its own: a disk may hang. Once all is `over`, what is new is written, and no more
    /// is waited for.
    pub(crate) async fn keep(self, mut records: watch::Receiver<Record>, over: CancellationToken) {
        let mut fails = false;
        let mut exists = self.before.is_some();
        while state_file::is_news(&mut records, fails, &over).await {
            let record = Record {
                boot_id: self.life.boot_id.clone(),
                kubelet_root: self.life.kubelet_root.clone(),
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
            let _ = timeout(PAUSE, over.cancelled()).await;
        }
    }
}

fn read(file: &Path) -> io::Result<Record> {
    let record: Record = state_file::read(file)?;
    if record.version != VERSION {
        return Err(io::Error::other(format!("it is of version {}, expected {VERSION}", record.version)));
    }
    Ok(record)
}

fn write(directory: &Path, record: &Record) -> io::Result<()> {
    state_file::write(directory, NAME, record)
}

#[cfg(test)]
mod tests {
    use std::fs;
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
            Store::open(&state, Life::new(proc_root(boot).path(), Path::new(kubelet))).before().cloned()
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
        let life = Life::new(proc_root("one").path(), Path::new("/kubelet"));
        let open = || Store::open(directory.path(), life.clone()).before().cloned();
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
