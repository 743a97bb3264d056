//! The feature file of node-feature-discovery (NFD): one `name=value` a line, in a folder that its worker reads about once
//! a minute. Who may write there needs no right at the API server.

use std::fmt::Write as _;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mig_model::Labels;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Source, Standing, Trouble, becomes};

const NAME: &str = "mig-agent";
/// NFD passes over names that begin with a dot.
const UNFINISHED: &str = ".mig-agent.tmp";
/// Where NVIDIA's gpu-feature-discovery (GFD) writes; once a minute, unless told otherwise.
const GFDS: &str = "gfd";
const GFD_IS_ALIVE: Duration = Duration::from_secs(5 * 60);
/// What is written is looked for so much more seldom: nobody reads it more often.
const SELDOM: u32 = 6;
/// NFD reads no longer files.
const LONGEST: u64 = 65_536;
/// A disk that hangs shall not keep the agent from its work, or from its end.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn keep(
    folder: &Path,
    mut source: Source,
    check: Duration,
    standing: &watch::Sender<Standing>,
    stop: &CancellationToken,
) {
    let mut file = FeatureFile { folder: folder.to_owned(), ours: None };
    while !stop.is_cancelled() {
        let mut pause = check;
        match file.settle(&mut source).await {
            Ok(now) => {
                if matches!(now, Standing::Written(_)) {
                    pause = check.saturating_mul(SELDOM);
                }
                tell(&file, standing, now);
            }
            Err(trouble) => {
                if becomes(standing, Standing::Failing(trouble.kind)) {
                    tracing::warn!("labels are not written: {trouble}; all else goes on, and it is tried again");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.news() => {}
            () = sleep(pause) => {}
        }
    }
    if let Err(trouble) = file.on_disk(remove).await {
        tracing::warn!("the feature file stays behind: {trouble}");
    }
}

fn tell(file: &FeatureFile, standing: &watch::Sender<Standing>, now: Standing) {
    if !becomes(standing, now) {
        return;
    }
    let folder = file.folder.display();
    match now {
        Standing::NoFolder => tracing::info!(
            "no labels: {folder} is not there, so node-feature-discovery does not run on this node; labels begin when it appears"
        ),
        Standing::Others => tracing::info!(
            "no labels: NVIDIA's gpu-feature-discovery writes them ({folder}/{GFDS} is fresh); ours begin when it ends"
        ),
        Standing::Written(count) => tracing::info!(labels = count, "labels are in {folder}/{NAME}"),
        Standing::Waiting | Standing::Failing(_) => {}
    }
}

struct FeatureFile {
    folder: PathBuf,
    /// What we wrote, and how the disk has it.
    ours: Option<(String, Stamp)>,
}

/// By which a file is recognised without being read.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl FeatureFile {
    /// Brings the folder in order. Looking takes what the kernel has in memory; only writing takes a disk, and is done
    /// aside, since serving shares our thread.
    async fn settle(&mut self, source: &mut Source) -> Result<Standing, Trouble> {
        match fs::metadata(&self.folder) {
            Ok(folder) if folder.is_dir() => {}
            Ok(_) => return Err(self.trouble("NoFolder", "it is no folder")),
            Err(error) if is_absent(&error) => {
                self.ours = None;
                return Ok(Standing::NoFolder);
            }
            Err(error) => return Err(self.trouble_of(&error)),
        }
        if gfd_is_alive(&self.folder) {
            if self.has_file() {
                self.ours = None;
                self.on_disk(remove).await?;
            }
            return Ok(Standing::Others);
        }
        let Some(labels) = source.labels() else { return Ok(Standing::Waiting) };
        if labels.is_empty() {
            if self.has_file() {
                self.ours = None;
                self.on_disk(remove).await?;
            }
            return Ok(Standing::Written(0));
        }
        let count = labels.len();
        let text = lines(&labels);
        if self.ours.as_ref().is_none_or(|(written, stamp)| *written != text || !self.is_as(stamp)) {
            let content = text.clone();
            let stamp = self.on_disk(move |folder| write(folder, &content)).await?;
            self.ours = Some((text, stamp));
        }
        Ok(Standing::Written(count))
    }

    fn has_file(&self) -> bool {
        fs::symlink_metadata(self.folder.join(NAME)).is_ok()
    }

    fn is_as(&self, stamp: &Stamp) -> bool {
        fs::symlink_metadata(self.folder.join(NAME)).is_ok_and(|metadata| Stamp::of(&metadata) == *stamp)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Trouble> {
        let folder = self.folder.clone();
        match timeout(PATIENCE, spawn_blocking(move || act(&folder))).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(self.trouble_of(&error)),
            Ok(Err(error)) => Err(self.trouble("Task", error)),
            Err(_) => Err(self.trouble("Hung", "the disk does not answer")),
        }
    }

    fn trouble_of(&self, error: &io::Error) -> Trouble {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => "PermissionDenied",
            io::ErrorKind::ReadOnlyFilesystem => "ReadOnly",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "DiskFull",
            _ => "Io",
        };
        self.trouble(kind, error)
    }

    fn trouble(&self, kind: &'static str, why: impl std::fmt::Display) -> Trouble {
        Trouble { kind, message: format!("{}: {why}", self.folder.display()) }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// GFD removes its file when it is told to stop; one that is old is what a GFD left that was killed.
fn gfd_is_alive(folder: &Path) -> bool {
    let modified = fs::metadata(folder.join(GFDS)).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| {
        let now = SystemTime::now();
        // A clock may have been set back meanwhile.
        let age = now.duration_since(modified).or_else(|_| modified.duration_since(now));
        age.is_ok_and(|age| age < GFD_IS_ALIVE)
    })
}

/// No comments: older NFDs take them for features.
fn lines(labels: &Labels) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// NFD sees the old file or the new one, never a part.
fn write(folder: &Path, content: &str) -> io::Result<Stamp> {
    let (path, unfinished) = (folder.join(NAME), folder.join(UNFINISHED));
    if let Some(stamp) = unchanged(&path, content) {
        return Ok(stamp);
    }
    remove_file(&unfinished)?;
    let finish = || {
        // Newly made, so that no link is followed.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        // NFD's worker need not be root, and our own mask would keep it out.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        fs::rename(&unfinished, &path)?;
        Ok(Stamp::of(&file.metadata()?))
    };
    finish().inspect_err(|_: &io::Error| {
        let _ = remove_file(&unfinished);
    })
}

/// What an agent before us wrote is left as it is.
fn unchanged(path: &Path, content: &str) -> Option<Stamp> {
    let named = fs::symlink_metadata(path).ok().filter(Metadata::is_file)?;
    let file = File::open(path).ok()?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    (text == content).then(|| Stamp::of(&named))
}

fn remove(folder: &Path) -> io::Result<()> {
    remove_file(&folder.join(UNFINISHED))?;
    remove_file(&folder.join(NAME))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}
