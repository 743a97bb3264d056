//! Looks at the file each second: a ConfigMap is replaced by swapping a link two directories up, editors rename, and a
//! look costs microseconds. SIGHUP, which NVIDIA's config-manager sends, has it read at once, changed or not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::label::Label;
use super::schema::File;
use super::{Chosen, Source, Standing, file};
use crate::args::Args;
use crate::health::Rules;

const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it.
type Mark = Option<(u64, u64, u64, i64, i64, i64)>;

/// What was there at a look: which file, or why none, and its mark.
type Sight = (Result<Option<PathBuf>, String>, Mark);

/// Keeps the configuration in step with the file, for as long as somebody wants it.
pub(crate) async fn keep(
    args: Args,
    rules: Rules,
    mut label: watch::Receiver<Label>,
    mut hangup: Signal,
    chosen: watch::Sender<Option<Arc<Chosen>>>,
    standing: watch::Sender<Standing>,
) {
    let source = Source::of(&args.config);
    let is_file = !matches!(source, Source::Flags);
    let mut seen: Option<Sight> = None;
    let mut is_asked = false;
    loop {
        let name = match label.borrow_and_update().clone() {
            Label::Known(name) => Some(name),
            Label::Unknown(why) if matches!(source, Source::Folder(_)) => {
                standing.send_if_modified(|standing| waits(standing, source.shown(), why));
                None
            }
            Label::Unknown(_) => Some(None),
        };
        if let Some(name) = name {
            let (sight, read) = look(source.clone(), name, seen.take()).await;
            if let Some(read) = read {
                let shown = match &sight.0 {
                    Ok(Some(path)) => Some(path.display().to_string()),
                    _ => source.shown(),
                };
                settle(&args, &rules, read, &chosen, &standing, shown, is_asked);
            }
            seen = Some(sight);
        }
        is_asked = false;
        tokio::select! {
            () = sleep(LOOK), if is_file => {}
            // Fails where no label is wanted: then nobody watches one.
            Ok(()) = label.changed() => {}
            Some(()) = hangup.recv() => {
                match is_file {
                    true => tracing::info!("SIGHUP: reading the configuration file anew"),
                    false => tracing::info!("SIGHUP: no configuration file is set, so there is nothing to read anew"),
                }
                (seen, is_asked) = (None, true);
            }
        }
    }
}

/// What the file says, if it is not what was seen last. Not here, but where a disk may hang.
async fn look(source: Source, label: Option<String>, seen: Option<Sight>) -> (Sight, Option<Result<File, String>>) {
    let work = spawn_blocking(move || {
        let found = source.file(label.as_deref());
        let mark = found.as_ref().ok().and_then(Option::as_deref).and_then(mark);
        let sight = (found, mark);
        if seen.as_ref() == Some(&sight) {
            return (sight, None);
        }
        let (found, mark) = sight;
        let read = match &found {
            Ok(Some(path)) => match file::text(path) {
                Ok(text) => file::parse(&text),
                // Without a mark it is read at the next look again: what fails now may not then.
                Err(why) => return ((found, None), Some(Err(why))),
            },
            Ok(None) => Ok(File::default()),
            Err(why) => Err(why.clone()),
        };
        ((found, mark), Some(read))
    });
    work.await.unwrap_or_else(|error| {
        let why = format!("unable to read it: {error}");
        ((Err(why.clone()), None), Some(Err(why)))
    })
}

fn mark(path: &Path) -> Mark {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.ctime(), m.ctime_nsec()))
}

/// Nobody can say which file counts. One that is in force stays so.
fn waits(standing: &mut Standing, folder: Option<String>, why: String) -> bool {
    let is_news = !standing.has_any && standing.problem.as_ref() != Some(&why);
    if is_news {
        (standing.file, standing.problem) = (folder, Some(why));
    }
    is_news
}

fn settle(
    args: &Args,
    rules: &Rules,
    read: Result<File, String>,
    chosen: &watch::Sender<Option<Arc<Chosen>>>,
    standing: &watch::Sender<Standing>,
    path: Option<String>,
    is_asked: bool,
) {
    let next = read.and_then(|file| Chosen::of(args, rules, &file).map(|chosen| (file, chosen)));
    match next {
        Err(why) => {
            let has_any = chosen.borrow().is_some();
            let after = match has_any {
                true => "the last good one stays in force",
                false => "nothing is offered until it is good",
            };
            let shown = path.clone().unwrap_or_default();
            let is_news = standing.borrow().problem.as_ref() != Some(&why) || standing.borrow().file != path;
            if is_news || is_asked {
                tracing::error!("the configuration file {shown} cannot be used, {after}: {why}");
            }
            standing.send_modify(|standing| {
                standing.file = path;
                standing.problem = Some(why);
            });
        }
        Ok((file, next)) => {
            let mut ignored = file::without_effect(&file);
            if file.health.is_some() && rules.has_file() {
                ignored.push("health (--health-policy goes before it)");
            }
            let ignored = ignored.join(", ");
            let is_news = chosen.borrow().as_deref() != Some(&next);
            // It was bad meanwhile, and is again what is in force.
            let is_told = is_news || is_asked || standing.borrow().problem.is_some();
            if is_told && !ignored.is_empty() {
                tracing::warn!("of the configuration file, these have no effect here: {ignored}");
            }
            if is_told {
                next.advice().into_iter().for_each(|line| tracing::warn!("{line}"));
                if let Some(path) = &path {
                    tracing::info!(file = path, strategy = %next.terms.strategy, shared = next.terms.time_slicing.resources.len(), "the configuration is in force");
                }
            }
            if is_news {
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
