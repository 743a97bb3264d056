//! The CDI spec of a time when CDI was chosen, by this agent or another: containers that were given devices by it start again
//! by it, for as long as their pods live.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Extras, Members, Prepare, common_nodes, dev_root, gone, member, numbers, own_nodes, put_spec, read_spec};
use crate::cdi;
use crate::fleet::Wanted;
use crate::usage::Usage;

/// Nobody is given anything by it any more, so nothing is urgent.
const SELDOM: Duration = Duration::from_secs(10);

/// Keeps it up until its last device has left it. A disk that hangs holds up nothing else.
pub(crate) async fn keep_up(
    prepare: Arc<Prepare>,
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    usage: Arc<Usage>,
) {
    let mut told = None;
    loop {
        let is_off = wanted.borrow_and_update().as_ref().map(|wanted| !wanted.container.writes_cdi());
        let mut again = is_off.unwrap_or(true);
        // Of two agents on a node it is that of the one that serves.
        if is_off == Some(true) && usage.is_serving() {
            let (prepare, newest, free) = (Arc::clone(&prepare), wanted.clone(), Arc::clone(&usage));
            let work = move || prepare.keep_up_spec(|| newest.borrow().clone(), |uuid| free.is_unused(uuid));
            let problem = match spawn_blocking(work).await {
                Ok(Ok(is_there)) => {
                    again = is_there;
                    None
                }
                Ok(Err(why)) => Some(why),
                // It is ending.
                Err(_) => return,
            };
            if let Some(why) = problem.as_ref().filter(|_| told != problem) {
                tracing::warn!("the CDI spec by which containers of before may start again is not kept up: {why}");
            }
            told = problem;
            if again {
                // Whether pods have let go of its devices is not asked otherwise.
                usage.ask_again();
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            // The one before may have written one.
            () = usage.taken_over.notified() => {}
            () = sleep(SELDOM), if again => {}
        }
    }
}

impl Prepare {
    /// What pods may hold stays in the spec, and true. Says whether there is still one.
    fn keep_up_spec(
        &self,
        newest: impl Fn() -> Option<Arc<Wanted>>,
        may_drop: impl Fn(&str) -> bool,
    ) -> Result<bool, String> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now: CDI may have been chosen again since, and the spec be another's business.
        let Some(wanted) = newest().filter(|wanted| !wanted.container.writes_cdi()) else { return Ok(true) };
        let Wanted { offers, container: settings } = &*wanted;
        let files = &settings.files;
        // Anew: another agent may write it, too. What is no spec gives nobody anything.
        let before = read_spec(files, drop)?;
        *written = None;
        if before.is_empty() {
            return Ok(false);
        }
        let devices: Vec<_> = offers.resources.values().flatten().collect();
        let (majors, minors) = numbers(files, devices.iter().copied())?;
        let dev = dev_root(files).ok();
        let own: Vec<_> = devices.iter().map(|device| own_nodes(device, &majors, &minors).ok()).collect();
        let all: Vec<_> = devices.iter().copied().zip(own.iter().map(Option::as_ref)).collect();
        let mut next = Members::new();
        for (device, own) in &all {
            if before.contains_key(&cdi::name(&device.uuid)) && !may_drop(&device.uuid) {
                next.extend(member(device, *own, &before));
            }
        }
        next.extend(gone(&before, &all, may_drop));
        let (common, extras) = (common_nodes(&majors, dev.as_ref()), Extras::of(settings, dev.as_ref()));
        put_spec(files, &next, (&common, extras), &offers.driver_version)?;
        Ok(!next.is_empty())
    }
}

#[cfg(test)]
mod tests;
