//! The rest of the node: other programs that cut GPUs or offer them, the lock, and the container runtime.

use std::fs::{self, File};
use std::io;

use kubelet::KubeletPaths;
use mig_nvml::{LockError, NodeLock};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Finding, Places, listed};

/// Units that cut GPUs at boot.
const UNITS: [&str; 2] = ["nvidia-mig-manager.service", "nvidia-mig-parted.service"];
/// Programs that cut GPUs, as the kernel cuts their names.
const CUTTERS: [(&str, &str); 2] =
    [("nvidia-mig-mana", "nvidia-mig-manager"), ("nvidia-mig-part", "nvidia-mig-parted")];

/// Who else cuts these GPUs, or offers them to the kubelet.
pub(super) fn other_tools(places: &Places<'_>) -> Vec<Finding> {
    const CHECK: &str = "other-tools";
    let mut findings = Vec::new();
    for unit in UNITS {
        let wanted = format!("etc/systemd/system/multi-user.target.wants/{unit}");
        if fs::symlink_metadata(places.host(&wanted)).is_ok() {
            findings.push(
                Finding::warning(CHECK, format!("{unit} is enabled: it cuts the GPUs in its own way at every boot"))
                    .advice(format!("let one program cut them: systemctl disable {unit}")),
            );
        }
    }
    for (pid, name) in places.processes() {
        if let Some((_, name)) = CUTTERS.iter().find(|(short, _)| *short == name) {
            findings.push(
                Finding::warning(CHECK, format!("{name} (process {pid}) is running: it cuts the GPUs in its own way"))
                    .advice("let one program cut them: on Kubernetes, label the node nvidia.com/gpu.deploy.mig-manager=false"),
            );
        }
    }
    let sockets = plugin_sockets(places);
    if !sockets.is_empty() {
        let message = format!("NVIDIA's device plugin serves here: {}", listed(&sockets));
        findings.push(
            Finding::warning(CHECK, message)
                .advice("two plugins must not offer the same resources: take it off this node, or give mig-agent another --resource-domain"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "none is seen that cuts GPUs or offers them"));
    }
    findings
}

/// It names its sockets after its resources.
fn plugin_sockets(places: &Places<'_>) -> Vec<String> {
    let folder = KubeletPaths::new(&places.context.options.kubelet_root).device_plugins();
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut sockets: Vec<String> =
        names.filter(|name| name.starts_with("nvidia-") && name.ends_with(".sock")).collect();
    sockets.sort();
    sockets
}

/// Who is changing the GPUs at the moment.
pub(super) fn lock(places: &Places<'_>) -> Finding {
    const CHECK: &str = "lock";
    let path = &places.context.options.lock_file;
    let is_held = match File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Finding::skipped(CHECK, format!("unable to open {}: {error}", path.display())),
    };
    if !is_held {
        return Finding::ok(CHECK, "nobody is changing the GPUs");
    }
    let message = match NodeLock::acquire(path, "migctl doctor") {
        // It was given back meanwhile.
        Ok(_) => return Finding::ok(CHECK, "nobody is changing the GPUs"),
        Err(error @ LockError::Held { .. }) => error.to_string(),
        Err(_) => "the GPUs of this node are being changed by another process".to_owned(),
    };
    Finding::warning(CHECK, message)
        .advice(format!("wait until that has ended; if it hangs, end it (fuser -v {})", path.display()))
}

/// Whether containers get GPUs that Kubernetes did not give them.
pub(super) fn container_runtime(places: &Places<'_>) -> Finding {
    const CHECK: &str = "container-runtime";
    const VARIABLE: &str = "accept-nvidia-visible-devices-envvar-when-unprivileged";
    const MOUNTS: &str = "accept-nvidia-visible-devices-as-volume-mounts";
    let path = places.host("etc/nvidia-container-runtime/config.toml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::skipped(CHECK, format!("no {}: NVIDIA's runtime is not set up", path.display()));
        }
        Err(error) => return Finding::skipped(CHECK, format!("unable to read {}: {error}", path.display())),
    };
    let takes_variable = flag(&text, VARIABLE).unwrap_or(true);
    let takes_mounts = flag(&text, MOUNTS).unwrap_or(false);
    match (takes_variable, takes_mounts) {
        (true, _) => Finding::warning(
            CHECK,
            "it takes NVIDIA_VISIBLE_DEVICES from images: a pod that asks for no GPU may see all",
        )
        .advice(format!("in {}: {VARIABLE} = false, {MOUNTS} = true", path.display()))
        .advice("and run mig-agent with --device-list-strategy volume-mounts, or with a CDI strategy"),
        (false, true) => {
            Finding::ok(CHECK, "it takes devices from volume mounts: --device-list-strategy volume-mounts")
        }
        (false, false) => Finding::ok(CHECK, "it takes neither variable nor mounts: --device-list-strategy cdi-cri"),
    }
}

/// A flag before the first section of a TOML file.
fn flag(text: &str, key: &str) -> Option<bool> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let top = lines.take_while(|line| !line.starts_with('['));
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim().trim_matches('"') == key).then(|| value.trim().parse().ok())?
    };
    top.filter_map(value).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_before_sections_and_comments_are_not() {
        let text = "#a = false\na = true # b = false\n \"b\"=false\nc = \"x\"\n[section]\nd = true\n";
        assert_eq!(["a", "b", "c", "d"].map(|key| flag(text, key)), [Some(true), Some(false), None, None]);
    }
}
