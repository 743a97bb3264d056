//! What must not outlive the demo, whichever way it ends: the agent's process and the temporary directory.

use std::{
    fs, io, panic,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// For the whole process, so that the panic hook finds it: with `panic = "abort"` no destructor runs.
static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers { agent: None, folder: None });

pub(crate) struct Leftovers {
    agent: Option<Pid>,
    folder: Option<PathBuf>,
}

impl Leftovers {
    /// Makes the temporary directory.
    pub(crate) fn folder() -> io::Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix("mig-demo-").tempdir()?.keep();
        change(|leftovers| leftovers.folder = Some(folder.clone()));
        Ok(folder)
    }

    /// The agent runs, or is known to have ended.
    pub(crate) fn agent(pid: Option<Pid>) {
        change(|leftovers| leftovers.agent = pid);
    }
}

/// Kills and removes what there still is; harmless when there is nothing.
pub(crate) fn clear() {
    change(|leftovers| {
        if let Some(pid) = leftovers.agent.take() {
            // It may have ended, and been waited for, in this moment.
            let _ended = kill_process(pid, Signal::KILL);
            let _waited = waitpid(Some(pid), WaitOptions::empty());
        }
        if let Some(folder) = leftovers.folder.take() {
            // Nothing can be done about it, and the demo's own outcome matters more.
            let _stays = fs::remove_dir_all(folder);
        }
    });
}

pub(crate) fn clear_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        report(information);
        clear();
    }));
}

fn change(act: impl FnOnce(&mut Leftovers)) {
    act(&mut LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner));
}
