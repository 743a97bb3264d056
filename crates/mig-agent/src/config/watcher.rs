//! Looks at the file each second: a ConfigMap is replaced by swapping a link two directories up, editors rename, and a
//! look costs microseconds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::schema::File;
use super::{Chosen, Standing, file};
use crate::args::Args;

const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it.
type Mark = Option<(u64, u64, u64, i64, i64, i64)>;

/// Keeps the configuration in step with the file, for as long as somebody wants it.
pub(crate) async fn keep(args: Args, chosen: watch::Sender<Option<Arc<Chosen>>>, standing: watch::Sender<Standing>) {
    let Some(path) = args.config_file.clone() else {
        // The settings are what they are; the sender has to live for those who look at it.
        settle(&args, Ok(File::default()), &chosen, &standing, None);
        return std::future::pending().await;
    };
    let mut seen: Option<Mark> = None;
    loop {
        let (mark, read) = look(path.clone(), seen).await;
        if let Some(read) = read {
            settle(&args, read, &chosen, &standing, Some(&path));
        }
        seen = Some(mark);
        sleep(LOOK).await;
    }
}

/// The file's content, if it is not what was seen last. Not here, but where a disk may hang.
async fn look(path: PathBuf, seen: Option<Mark>) -> (Mark, Option<Result<File, String>>) {
    let work = spawn_blocking(move || {
        let mark = mark(&path);
        let is_new = seen != Some(mark);
        (mark, is_new.then(|| file::read(&path)))
    });
    work.await.unwrap_or_else(|error| (None, Some(Err(format!("unable to read it: {error}")))))
}

fn mark(path: &Path) -> Mark {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.ctime(), m.ctime_nsec()))
}

fn settle(
    args: &Args,
    read: Result<File, String>,
    chosen: &watch::Sender<Option<Arc<Chosen>>>,
    standing: &watch::Sender<Standing>,
    path: Option<&Path>,
) {
    let next = read.and_then(|file| Chosen::of(args, &file).map(|chosen| (file, chosen)));
    let path = path.map(|path| path.display().to_string());
    match next {
        Err(why) => {
            let has_any = chosen.borrow().is_some();
            let after = match has_any {
                true => "the last good one stays in force",
                false => "nothing is offered until it is good",
            };
            let shown = path.clone().unwrap_or_default();
            tracing::error!("the configuration file {shown} cannot be used, {after}: {why}");
            standing.send_modify(|standing| {
                standing.file = path;
                standing.problem = Some(why);
            });
        }
        Ok((file, next)) => {
            let ignored = file::without_effect(&file).join(", ");
            let is_news = chosen.borrow().as_deref() != Some(&next);
            if is_news && !ignored.is_empty() {
                tracing::warn!("of the configuration file, these have no effect here: {ignored}");
            }
            if is_news {
                next.advice().into_iter().for_each(|line| tracing::warn!("{line}"));
                if let Some(path) = &path {
                    tracing::info!(file = path, strategy = %next.terms.strategy, shared = next.terms.time_slicing.resources.len(), "the configuration is in force");
                }
                chosen.send_replace(Some(Arc::new(next)));
            }
            standing.send_modify(|standing| {
                standing.file = path;
                standing.problem = None;
                standing.has_any = true;
            });
        }
    }
}
