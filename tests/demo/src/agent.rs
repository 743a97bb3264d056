//! The real mig-agent, as a process.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::leftovers::Leftovers;

pub(crate) struct Agent {
    child: Child,
    pid: Pid,
    log: PathBuf,
    pub(crate) started: Instant,
}

impl Agent {
    /// Starts it with the pretended driver's library, against the kubelet of `kubelet_root`.
    pub(crate) fn start(bin_dir: &Path, folder: &Path, scene: &Path, state: &Path) -> anyhow::Result<Self> {
        let library = bin_dir.join("libfake_nvml.so");
        fs::metadata(&library).with_context(|| format!("unable to find {}", library.display()))?;
        let link = folder.join("libnvidia-ml.so.1");
        std::os::unix::fs::symlink(&library, &link)?;
        let program = bin_dir.join("mig-agent");
        let log = folder.join("agent.log");
        let mut command = Command::new(&program);
        // Nothing of the caller's own settings may reach the agent.
        command.env_clear();
        command.envs(["PATH", "LD_LIBRARY_PATH"].iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.env("FAKE_NVML_SCENE", scene).env("FAKE_NVML_STATE", state);
        command.arg("--kubelet-root").arg(folder.join("kubelet")).arg("--nvml-library").arg(&link);
        command.arg("--state-dir").arg(folder.join("run"));
        // Where node-feature-discovery runs, this node's labels must not tell of pretended GPUs.
        command.args(["--node-labels", "off"]);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "text"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("unable to start {}", program.display()))?;
        let pid =
            child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("the agent has no process id")?;
        Leftovers::agent(Some(pid));
        Ok(Self { child, pid, log, started })
    }

    /// Waits for something that the agent is to bring about, unless the agent ends before.
    pub(crate) async fn meanwhile<T, E>(&mut self, wait: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
    where
        E: std::fmt::Display,
    {
        let ended = tokio::select! {
            done = wait => match done {
                Ok(value) => return Ok(value),
                Err(error) => error.to_string(),
            },
            status = self.child.wait() => {
                Leftovers::agent(None);
                format!("the agent has ended: {}", status?)
            }
        };
        bail!("{}\nThe agent's log ends with:\n{}", ended.trim_end(), self.last_lines())
    }

    /// Asks it to stop, and sees that it does so by itself.
    pub(crate) async fn stop(mut self) -> anyhow::Result<(ExitStatus, Duration)> {
        let asked = Instant::now();
        kill_process(self.pid, Signal::TERM).context("unable to signal the agent")?;
        let Ok(status) = timeout(Duration::from_secs(10), self.child.wait()).await else {
            bail!("the agent did not stop within 10 s of SIGTERM\nIts log ends with:\n{}", self.last_lines());
        };
        Leftovers::agent(None);
        Ok((status?, asked.elapsed()))
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = log.lines().rev().take(8).collect::<Vec<_>>();
        lines.into_iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}
