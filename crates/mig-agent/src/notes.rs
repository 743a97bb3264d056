//! What the agent notes for the one that comes after it, and for `migctl`: `given-out.json`, which devices pods may hold, and
//! `unhealthy.json`, which are given to nobody, and why.
//!
//! Podresources says again which pods hold what, after a while; until then an agent that has just started would take what was
//! given out a moment ago for free.

use std::io;
use std::path::{Path, PathBuf};

use mig_model::{GIVEN_OUT, NOTE_VERSION, Note, UNHEALTHY};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::state_file::{self, Life};

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    directory: PathBuf,
    life: Life,
    name: &'static str,
    /// What it tells, and what becomes of that without it.
    what: &'static str,
    loss: &'static str,
}

impl Notes {
    pub(crate) fn given_out(directory: &Path, life: &Life) -> Self {
        Self {
            directory: directory.to_owned(),
            life: life.clone(),
            name: GIVEN_OUT,
            what: "what is given out",
            loss: "a restart of the agent forgets what was given out and is not listed by podresources yet",
        }
    }

    pub(crate) fn unhealthy(directory: &Path, life: &Life) -> Self {
        Self {
            directory: directory.to_owned(),
            life: life.clone(),
            name: UNHEALTHY,
            what: "what is Unhealthy",
            loss: "migctl does not know what is Unhealthy",
        }
    }

    /// What an earlier agent wrote. Whatever is wrong with it, this goes on without.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Vec<T> {
        let file = self.directory.join(self.name);
        match state_file::read::<Note<T>>(&file) {
            Ok(Note { version, boot_id, kubelet_root, devices }) => {
                let is_ours = version == NOTE_VERSION && Life { boot_id, kubelet_root } == self.life;
                if is_ours { devices } else { Vec::new() }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(
                    "unable to read {}: {error}; what an earlier agent noted there is forgotten",
                    file.display()
                );
                Vec::new()
            }
        }
    }

    /// Writes what there is whenever it changes, on a thread of its own: a disk may hang, and no container waits for it.
    /// Once all is `over`, what is new is written, and no more is waited for.
    pub(crate) async fn keep<T>(self, mut devices: watch::Receiver<Vec<T>>, over: CancellationToken)
    where
        T: Clone + Serialize + Send + Sync + 'static,
    {
        let mut fails = false;
        while state_file::is_news(&mut devices, fails, &over).await {
            let note = Note {
                version: NOTE_VERSION,
                boot_id: self.life.boot_id.clone(),
                kubelet_root: self.life.kubelet_root.clone(),
                devices: devices.borrow_and_update().clone(),
            };
            let (directory, name) = (self.directory.clone(), self.name);
            let written = spawn_blocking(move || {
                // That there is nothing to tell is told only to those who read otherwise before.
                let is_needless = note.devices.is_empty() && !directory.join(name).exists();
                if is_needless { Ok(()) } else { state_file::write(&directory, name, &note) }
            });
            let written = written.await;
            let file = self.directory.join(self.name);
            match written {
                Ok(Ok(())) if fails => {
                    fails = false;
                    tracing::info!("{} is kept in {} again", self.what, file.display());
                }
                Ok(Err(error)) if !fails => {
                    fails = true;
                    tracing::warn!("unable to write {}: {error}; {} (see --state-dir)", file.display(), self.loss);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mig_model::GivenOut;

    use super::*;

    #[tokio::test]
    async fn what_was_given_out_is_read_in_the_same_life_of_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let life = Life { boot_id: "one".to_owned(), kubelet_root: "/kubelet".to_owned() };
        let notes = |life: &Life| Notes::given_out(directory.path(), life);
        let read = |life: &Life| notes(life).read::<GivenOut>();
        let given_out = vec![GivenOut {
            id: "MIG-a".to_owned(),
            resource: "nvidia.com/mig-1g.5gb".to_owned(),
            gpu: Some("GPU-0".to_owned()),
            seen: true,
            given: true,
        }];
        assert_eq!(read(&life), []);
        let (sender, receiver) = watch::channel(vec![]);
        sender.send_replace(given_out.clone());
        drop(sender);
        notes(&life).keep(receiver, CancellationToken::new()).await;
        assert_eq!(read(&life), given_out);
        assert_eq!(read(&Life { boot_id: "two".to_owned(), ..life.clone() }), []);
        assert_eq!(read(&Life { kubelet_root: "/another".to_owned(), ..life.clone() }), []);
        for text in ["", "{", "[]", "null", "{\"version\": 2}"] {
            std::fs::write(directory.path().join(GIVEN_OUT), text).unwrap();
            assert_eq!(read(&life), []);
        }
    }
}
