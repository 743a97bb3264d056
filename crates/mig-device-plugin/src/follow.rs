//! Keeps what containers need ready, and what is offered in step with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::fleet::Wanted;
use crate::prepare::{Prepare, Prepared};
use crate::status::Status;
use crate::usage::Usage;

/// Nodes are made and removed, drivers replaced, by people who tell nobody.
const SELDOM: Duration = Duration::from_secs(10);
/// Where it is only device nodes that are looked at, and not all the driver's files.
const NODES: Duration = Duration::from_secs(2);
/// While something is missing without which a device cannot be given.
const OFTEN: Duration = Duration::from_secs(1);
/// Reading and writing take milliseconds, unless a disk or a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what is wrong with single devices, the log has so many lines.
const MOST_LINES: usize = 8;

/// Prepares each new offer for as long as there are any, and again from time to time.
pub(crate) async fn follow(
    prepare: Arc<Prepare>,
    mut offers: watch::Receiver<Option<Arc<Wanted>>>,
    usage: Arc<Usage>,
    status: Arc<Status>,
    prepared: watch::Sender<Option<Arc<Prepared>>>,
) {
    let mut readings = usage.subscribe();
    let mut told = Vec::new();
    loop {
        let now = offers.borrow_and_update().clone();
        readings.mark_unchanged();
        let mut again = None;
        let mut keeps = false;
        if let Some(now) = now {
            let (touches_files, writes_cdi) = (now.container.touches_files(), now.container.writes_cdi());
            let ready = if touches_files {
                let (worker, usage) = (Arc::clone(&prepare), Arc::clone(&usage));
                let work = spawn_blocking(move || worker.run(&now, |id| usage.is_unused(id)));
                patiently(work, &status, &mut offers, &prepared).await
            } else {
                Some(prepare.run(&now, |_| false))
            };
            if let Some(ready) = ready {
                tell(&mut told, &ready);
                status.unprepared(ready.problem.clone());
                keeps = ready.keeps;
                let missing = ready.problem.is_some() || ready.blocking > 0;
                let calm = if writes_cdi { SELDOM } else { NODES };
                again = touches_files.then_some(if missing { OFTEN } else { calm });
                prepared.send_if_modified(|before| {
                    let changed = before.as_deref() != Some(&ready);
                    if changed {
                        *before = Some(Arc::new(ready));
                    }
                    changed
                });
            }
        }
        let pause = async {
            match again {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = offers.changed() => if changed.is_err() {
                return;
            },
            _ = readings.changed(), if keeps => {}
            () = pause => {}
        }
    }
}

/// Waits for as long as it takes. What was ready before stays on offer meanwhile, except what is gone or has a fault.
async fn patiently(
    mut work: JoinHandle<Prepared>,
    status: &Status,
    offers: &mut watch::Receiver<Option<Arc<Wanted>>>,
    prepared: &watch::Sender<Option<Arc<Prepared>>>,
) -> Option<Prepared> {
    tokio::select! {
        done = &mut work => return done.ok(),
        () = sleep(PATIENCE) => {}
    }
    let why = "the driver's files or the CDI directory do not answer: does a disk or a network file system hang?";
    tracing::error!("{why}");
    status.unprepared(Some(why.to_owned()));
    // Those that came while we were patient are new, too.
    let mut newest = None;
    loop {
        if offers.has_changed().unwrap_or(false) {
            newest.clone_from(&offers.borrow_and_update());
            let ready = prepared.borrow().clone();
            if let (Some(ready), Some(newest)) = (ready, &newest) {
                prepared.send_replace(Some(Arc::new(Prepare::meanwhile(&ready, &newest.offers, why))));
            }
        }
        tokio::select! {
            done = &mut work => {
                let ready = done.ok()?;
                let Some(newest) = newest else { return Some(ready) };
                // It was made ready for what was offered then, and what is now has its turn at once.
                offers.mark_changed();
                return Some(Prepare::meanwhile(&ready, &newest.offers, why));
            }
            changed = offers.changed() => match changed {
                Ok(()) => offers.mark_changed(),
                Err(_) => return None,
            },
        }
    }
}

/// Logs what is new since the last time.
fn tell(told: &mut Vec<String>, ready: &Prepared) {
    let mut lines: Vec<String> = Vec::new();
    if let Some(problem) = &ready.problem {
        lines.push(format!("all devices are Unhealthy: {problem}"));
    }
    lines.extend(ready.complaints.iter().take(MOST_LINES).cloned());
    let more = ready.complaints.len().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.push(format!("and {more} more like these"));
    }
    for line in lines.iter().filter(|line| !told.contains(line)) {
        tracing::warn!("{line}");
    }
    if lines.is_empty() && !told.is_empty() {
        tracing::info!("everything that containers need is there now");
    }
    *told = lines;
}
