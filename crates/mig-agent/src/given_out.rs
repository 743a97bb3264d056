//! `given-out.json`: which devices pods may hold. Podresources says it again after a while; until then the agent that has
//! just started would take what was given out a moment ago for free.

use std::io;
use std::path::{Path, PathBuf};

use mig_device_plugin::GivenOut;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::state_file::{self, Life};

const NAME: &str = "given-out.json";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    boot_id: String,
    kubelet_root: String,
    devices: Vec<GivenOut>,
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    directory: PathBuf,
    life: Life,
}

impl Notes {
    pub(crate) fn new(directory: &Path, life: Life) -> Self {
        Self { directory: directory.to_owned(), life }
    }

    /// What an earlier agent wrote. Whatever is wrong with it, this goes on without.
    pub(crate) fn read(&self) -> Vec<GivenOut> {
        let file = self.directory.join(NAME);
        match state_file::read::<Content>(&file) {
            Ok(content) if content.version != VERSION => Vec::new(),
            Ok(Content { boot_id, kubelet_root, devices, .. }) => {
                if (Life { boot_id, kubelet_root }) == self.life {
                    devices
                } else {
                    Vec::new()
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(
                    "unable to read {}: {error}; what an earlier agent gave out is forgotten",
                    file.display()
                );
                Vec::new()
            }
        }
    }

    /// Writes what is given out whenever it changes, on a thread of its own: a disk may hang, and no container waits for it.
    /// Once all is `over`, what is new is written, and no more is waited for.
    pub(crate) async fn keep(self, mut given_out: watch::Receiver<Vec<GivenOut>>, over: CancellationToken) {
        let mut fails = false;
        while state_file::is_news(&mut given_out, &over).await {
            let content = Content {
                version: VERSION,
                boot_id: self.life.boot_id.clone(),
                kubelet_root: self.life.kubelet_root.clone(),
                devices: given_out.borrow_and_update().clone(),
            };
            let directory = self.directory.clone();
            let written = spawn_blocking(move || state_file::write(&directory, NAME, &content)).await;
            let file = self.directory.join(NAME);
            match written {
                Ok(Ok(())) if fails => {
                    fails = false;
                    tracing::info!("what is given out is kept in {} again", file.display());
                }
                Ok(Err(error)) if !fails => {
                    fails = true;
                    tracing::warn!(
                        "unable to write {}: {error}; a restart of the agent forgets what was given out and is not listed by podresources yet (see --state-dir)",
                        file.display()
                    );
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_given_out_is_read_in_the_same_life_of_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let life = Life { boot_id: "one".to_owned(), kubelet_root: "/kubelet".to_owned() };
        let notes = |life: &Life| Notes::new(directory.path(), life.clone());
        let given_out = vec![GivenOut {
            id: "MIG-a".to_owned(),
            resource: "nvidia.com/mig-1g.5gb".to_owned(),
            gpu: Some("GPU-0".to_owned()),
            seen: true,
        }];
        assert_eq!(notes(&life).read(), []);
        let (sender, receiver) = watch::channel(vec![]);
        sender.send_replace(given_out.clone());
        drop(sender);
        notes(&life).keep(receiver, CancellationToken::new()).await;
        assert_eq!(notes(&life).read(), given_out);
        assert_eq!(notes(&Life { boot_id: "two".to_owned(), ..life.clone() }).read(), []);
        assert_eq!(notes(&Life { kubelet_root: "/another".to_owned(), ..life.clone() }).read(), []);
        for text in ["", "{", "[]", "null", "{\"version\": 2}"] {
            std::fs::write(directory.path().join(NAME), text).unwrap();
            assert_eq!(notes(&life).read(), []);
        }
    }
}
