//! What the driver lets this user do, as its capability nodes decide.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use mig_model::MigMode;
use rustix::io::Errno;

use super::{Finding, Places, Told};

const CHECK: &str = "permissions";
const MONITOR: &str = "run as root; in a container, give it /dev/nvidia-caps/nvidia-cap2 (NVIDIA_MIG_MONITOR_DEVICES=all with NVIDIA's runtime)";

pub(super) fn check(places: &Places<'_>, told: Option<&Told<'_>>) -> Finding {
    let can_be_cut = |told: &Told<'_>| told.gpus.iter().any(|gpu| gpu.gpu.mig != MigMode::Unsupported);
    if told.is_some_and(|told| !can_be_cut(told)) {
        return Finding::skipped(CHECK, "there is no GPU with MIG");
    }
    let user = rustix::process::geteuid();
    let who = if user.is_root() { "root".to_owned() } else { format!("user {}", user.as_raw()) };
    let config = open(&places.host("dev/nvidia-caps/nvidia-cap1"));
    let monitor = open(&places.host("dev/nvidia-caps/nvidia-cap2"));
    if told.is_none() && config.is_err() && monitor.is_err() {
        return Finding::needs_driver(CHECK);
    }
    // Of GPUs that are cut, the driver shows whether it lets us look.
    let cut = told.iter().flat_map(|told| &told.gpus).filter(|gpu| gpu.gpu.mig.is_enabled());
    let shown = cut.map(|gpu| gpu.geometry.is_some()).reduce(|all, shown| all && shown);
    let monitor = match shown {
        None => monitor,
        Some(true) => Ok(()),
        Some(false) => monitor.and(Err("the driver refuses".to_owned())),
    };
    match (config, monitor) {
        (Ok(()), Ok(())) if user.is_root() => Finding::ok(CHECK, format!("{who}: every verb works")),
        (Ok(()), Ok(())) => Finding::warning(CHECK, format!("{who}: all but enable and disable work"))
            .advice("MIG mode is switched by root only; all that change anything have to write the lock file (--lock-file)"),
        (Err(why), Ok(())) => {
            Finding::warning(CHECK, format!("{who}: verbs that look work; those that change do not: nvidia-cap1: {why}"))
                .advice("run as root; in a container, give it /dev/nvidia-caps/nvidia-cap1 (NVIDIA_MIG_CONFIG_DEVICES=all with NVIDIA's runtime)")
        }
        (_, Err(why)) if shown.is_some() => {
            Finding::problem(CHECK, format!("{who}: instances cannot even be looked at: nvidia-cap2: {why}"))
                .advice(MONITOR)
        }
        (_, Err(why)) => {
            let message = format!("{who}: with MIG on, instances could not be looked at: nvidia-cap2: {why}");
            Finding::warning(CHECK, message).advice(MONITOR)
        }
    }
}

/// Whether it can be opened, or why not.
fn open(path: &Path) -> Result<(), String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Ok(_) => Ok(()),
        // Allowed, only that no driver is behind it: that is another check's.
        Err(error)
            if [Errno::NXIO, Errno::NODEV].map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error()) =>
        {
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("there is none".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
