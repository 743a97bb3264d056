//! A container made from an image by runc: a read-only root, no capability, no new privileges.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Archive;

/// Who runs the program.
#[derive(Debug, Clone, Copy)]
pub enum User {
    /// The one that the image names.
    Image,
    /// As `runAsUser: 0` in a pod.
    Root,
}

/// A container that has not been started.
#[derive(Debug)]
pub struct Container {
    bundle: TempDir,
    name: String,
    process: Value,
    mounts: Vec<Value>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it said on standard output.
    pub said: String,
    /// And on standard error.
    pub complained: String,
}

/// A container that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    _bundle: TempDir,
    log: PathBuf,
}

impl Container {
    /// The image's program with these arguments.
    ///
    /// # Errors
    ///
    /// If the image cannot be unpacked, or nobody but root could run it here.
    pub fn new(image: &Archive, user: User, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command: Vec<&str> = image.config.config.entrypoint.iter().map(String::as_str).collect();
        command.extend(arguments);
        Self::with_program(image, user, &command)
    }

    /// Another program of the image's.
    ///
    /// # Errors
    ///
    /// As [`Container::new`].
    pub fn with_program(image: &Archive, user: User, command: &[&str]) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        anyhow::ensure!(geteuid().is_root(), "containers are run by runc, which needs root here");
        let bundle = tempfile::tempdir()?;
        let root = bundle.path().join("rootfs");
        fs::create_dir(&root)?;
        image.unpack(&root)?;
        let settings = &image.config.config;
        let (uid, gid) = match user {
            User::Image => settings.user.split_once(':').context("the image names no user and group by number")?,
            User::Root => ("0", "0"),
        };
        let process = json!({
            "user": { "uid": uid.parse::<u32>()?, "gid": gid.parse::<u32>()? },
            "args": command,
            "env": settings.env,
            "cwd": settings.working_dir,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
            "noNewPrivileges": true,
        });
        let mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
            json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"] }),
        ];
        let name = format!("mig-image-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { bundle, name, process, mounts })
    }

    /// A variable more.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        if let Some(env) = self.process.get_mut("env").and_then(Value::as_array_mut) {
            env.push(json!(format!("{name}={value}")));
        }
        self
    }

    /// A folder of this machine's.
    #[must_use]
    pub fn volume(mut self, source: &Path, destination: &str, access: &str) -> Self {
        self.mounts.push(
            json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", access] }),
        );
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn run(self) -> anyhow::Result<Ended> {
        let output = self
            .runc()?
            .stdin(Stdio::null())
            .output()
            .context("failed to start runc (Debian: apt-get install runc)")?;
        Ok(Ended {
            code: output.status.code(),
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
            complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(self) -> anyhow::Result<Running> {
        let log = self.bundle.path().join("log");
        let mut command = self.runc()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = command.spawn().context("failed to start runc (Debian: apt-get install runc)")?;
        Ok(Running { child, _bundle: self.bundle, log })
    }

    fn runc(&self) -> anyhow::Result<Command> {
        // Its network has nobody on it: what is asked of anyone there is asked in vain.
        let namespaces: Vec<Value> =
            ["pid", "mount", "ipc", "uts", "network"].iter().map(|kind| json!({ "type": kind })).collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": self.process,
            "root": { "path": "rootfs", "readonly": true },
            "mounts": self.mounts,
            "linux": { "namespaces": namespaces, "resources": { "devices": [{ "allow": false, "access": "rwm" }] } },
        });
        fs::write(self.bundle.path().join("config.json"), config.to_string())?;
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.bundle.path().join("state"));
        command.arg("run").arg("--bundle").arg(self.bundle.path()).arg(&self.name);
        Ok(command)
    }
}

impl Running {
    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Tells it to stop, as a kubelet does, and says its exit code.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    pub fn stop(mut self) -> anyhow::Result<Option<i32>> {
        self.tell(Signal::TERM)?;
        Ok(self.child.wait()?.code())
    }

    fn tell(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        // runc passes signals on to the program.
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A program that does not end keeps the test from ending, which is how it is noticed.
            let _ = self.tell(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
