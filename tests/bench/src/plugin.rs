//! A device plugin as a process, whichever it is.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command as Once, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::machine::Machine;

/// One of those that are compared.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) label: &'static str,
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// Takes sysfs from where the machine is laid out, and keeps its state elsewhere; the other can't be told.
    is_ours: bool,
}

impl Side {
    pub(crate) fn ours(program: &Path, library: &Path, kubelet_root: &Path) -> anyhow::Result<Self> {
        let output = Once::new(program).arg("--version").output();
        let output = output.with_context(|| format!("unable to run {}", program.display()))?;
        let path = |path: &Path| path.display().to_string();
        // Defaults otherwise.
        let arguments = ["--kubelet-root".to_owned(), path(kubelet_root), "--nvml-library".to_owned(), path(library)];
        Ok(Self {
            label: "ours",
            version: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            program: program.to_owned(),
            arguments: arguments.into(),
            variables: Vec::new(),
            is_ours: true,
        })
    }

    pub(crate) fn nvidias(program: &Path, name: &str, library_folder: &Path) -> Self {
        // Defaults otherwise: without --pass-device-specs, and a list in variables. The platform is given, since there
        // is nothing here for it to be recognised by.
        let arguments = ["--mig-strategy", "mixed", "--device-discovery-strategy", "nvml"];
        Self {
            label: "NVIDIA's",
            version: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.map(str::to_owned).into(),
            variables: vec![("LD_LIBRARY_PATH", library_folder.display().to_string())],
            is_ours: false,
        }
    }

    /// Starts it. What it logs goes to a file, as a container runtime would have it.
    pub(crate) fn start(&self, machine: &Machine, scratch: &Path, more: &[String]) -> anyhow::Result<Plugin> {
        let log = scratch.join("plugin.log");
        let mut command = Command::new(&self.program);
        // Nothing of the caller's settings may reach it.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("FAKE_NVML_STATE", machine.state());
        command.envs(self.variables.iter().cloned()).args(&self.arguments);
        command.args(more);
        if self.is_ours {
            if !more.iter().any(|argument| argument == "--listen") {
                // Any port will do.
                command.args(["--listen", "127.0.0.1:0"]);
            }
            // What one start has noted of its slices' health must not reach the next.
            let state = scratch.join("state");
            match fs::remove_dir_all(&state) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => fs::create_dir(&state)?,
            }
            command.arg("--sys-root").arg(machine.sys_root()).arg("--state-dir").arg(state);
            // Its labels are written as on a node that has node-feature-discovery, and not to this machine's.
            let features = scratch.join("features.d");
            fs::create_dir_all(&features)?;
            command.arg("--features-dir").arg(features);
        }
        let to_log = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(to_log.try_clone()?).stderr(to_log).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("unable to start {}", self.program.display()))?;
        let pid = child.id().and_then(|id| id.try_into().ok()).context("the plugin has no process id")?;
        Ok(Plugin { child, pid: Pid::from_raw(pid), started, log })
    }
}

/// A running one. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Plugin {
    child: Child,
    pid: Pid,
    /// Just before the call that made the process.
    pub(crate) started: Instant,
    log: PathBuf,
}

/// What `/proc` says of its memory, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) proportional: f64,
}

impl Plugin {
    /// CPU time of all threads so far, ended ones included, to the nanosecond.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let clock = clock_getcpuclockid(self.pid).context("unable to read the plugin's CPU time")?;
        Ok(clock_gettime(clock)?.into())
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let rollup = self.proc_file("smaps_rollup")?;
        let mib = |name| Ok::<_, anyhow::Error>(field(&rollup, name)? / 1024.0);
        Ok(Memory { resident: mib("Rss:")?, proportional: mib("Pss:")? })
    }

    pub(crate) fn threads(&self) -> anyhow::Result<f64> {
        field(&self.proc_file("status")?, "Threads:")
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> anyhow::Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid);
        Ok(fs::read_dir(&folder).with_context(|| format!("unable to read {folder}"))?.count())
    }

    fn proc_file(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("unable to read {path}"))
    }

    /// Waits for something that the plugin is to bring about, unless it ends before.
    pub(crate) async fn meanwhile<T>(&mut self, wait: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let ended = tokio::select! {
            done = wait => match done {
                Ok(value) => return Ok(value),
                Err(error) => error,
            },
            status = self.child.wait() => anyhow::anyhow!("it has ended: {}", status?),
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(8).collect();
        bail!("{ended:#}\nits log ends with:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Kills it and waits until it is gone, so that only one runs at a time.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

fn field(text: &str, name: &str) -> anyhow::Result<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("/proc does not tell {name}"))
}
