//! A machine for one test: the real command on the fake driver's library, in directories of its own.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "clippy takes only test functions for tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fake_nvml::{Permission, Process, Store, StoreError, World};
use tempfile::TempDir;

pub(crate) struct Machine {
    directory: TempDir,
    store: Option<Store>,
}

/// Two A100, MIG on, nothing cut.
pub(crate) const TWO: &str = "gpus:
  - { model: A100-SXM4-40GB, uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000, mig: true }
  - { model: A100-SXM4-40GB, uuid: GPU-bbbbbbbb-0000-4000-8000-000000000000, mig: true }
";

/// One A100, cut into a half and two small ones.
pub(crate) const CUT: &str = "gpus:
  - model: A100-SXM4-40GB
    uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000
    instances:
      - { profile: 3g.20gb, placement: 4, uuid: MIG-aaaaaaaa-0000-5000-8000-000000000001 }
      - { profile: 1g.5gb, placement: 0, uuid: MIG-aaaaaaaa-0000-5000-8000-000000000002 }
      - { profile: 1g.5gb, placement: 1, uuid: MIG-aaaaaaaa-0000-5000-8000-000000000003 }
";

pub(crate) fn scene(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenes").join(format!("{name}.yaml"))
}

/// Built beside this test, since the fake is one of its dependencies.
fn fake_library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    assert!(beside.is_file(), "no fake driver at {}", beside.display());
    beside
}

impl Machine {
    /// One of `tests/scenes/`.
    pub(crate) fn new(scene_name: &str) -> Self {
        Self::of(&scene(scene_name))
    }

    /// A scene of the test's own.
    pub(crate) fn written(text: &str) -> Self {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), text).unwrap();
        Self::of(file.path())
    }

    /// Without a driver.
    pub(crate) fn bare() -> Self {
        Self { directory: TempDir::with_prefix("machine").unwrap(), store: None }
    }

    fn of(scene: &Path) -> Self {
        let directory = TempDir::with_prefix("machine").unwrap();
        let create = || fake_nvml::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string()));
        let (store, _, _) = Store::open(&directory.path().join("state"), create).unwrap();
        Self { directory, store: Some(store) }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Writes a file where `migctl` runs.
    pub(crate) fn write(&self, file: &str, text: &str) -> &Self {
        fs::write(self.path(file), text).unwrap();
        self
    }

    pub(crate) fn kubelet_root(&self) -> PathBuf {
        self.path("kubelet")
    }

    pub(crate) fn change(&self, edit: impl FnOnce(&mut World)) {
        let edit = |world: &mut _| {
            edit(world);
            Ok(())
        };
        self.store.as_ref().unwrap().change(edit).unwrap();
    }

    pub(crate) fn world(&self) -> World {
        self.store.as_ref().unwrap().read().unwrap().0
    }

    /// Starts a pretended process on a GPU instance, or on a GPU.
    pub(crate) fn run_process(&self, gpu: usize, instance: Option<u32>, pid: u32, name: &str) {
        let compute = instance.map(|_| 0);
        let process = Process { pid, name: name.to_owned(), memory: 1 << 30, graphics: false, instance, compute };
        self.change(|world| world.gpus[gpu].processes.push(process));
    }

    pub(crate) fn permit(&self, permission: Permission) {
        self.change(|world| world.permission = permission);
    }

    /// Makes the nth call of a function from now on fail, or last.
    pub(crate) fn add_fault(&self, call: &str, nth: Option<u64>, returns: Option<&str>, delay: Option<&str>) {
        let fault = fake_nvml::fault(call, None, nth, returns, delay).map_err(|(_, why)| why).unwrap();
        self.change(|world| world.faults.push(fault));
    }

    pub(crate) fn calls_of(&self, name: &str) -> u64 {
        let number = fake_nvml::NAMES.iter().position(|known| *known == name).unwrap();
        self.store.as_ref().unwrap().control().calls()[number]
    }

    /// Calls of every function that changes something.
    pub(crate) fn changes(&self) -> u64 {
        let counts = self.store.as_ref().unwrap().control().calls();
        let changes = |name: &str| ["Create", "Destroy", "SetMigMode"].iter().any(|word| name.contains(word));
        let is_event = |name: &str| name.contains("EventSet");
        fake_nvml::NAMES.iter().zip(counts).filter(|(name, _)| changes(name) && !is_event(name)).map(|(_, n)| n).sum()
    }

    /// What the node's agent has written down: a file, and what is in its list.
    pub(crate) fn note(&self, file: &str, boot_id: &str, devices: &str) {
        let text = format!(
            r#"{{"version": 1, "boot_id": "{boot_id}", "kubelet_root": "/var/lib/kubelet", "devices": [{devices}]}}"#
        );
        fs::create_dir_all(self.path("run")).unwrap();
        fs::write(self.path("run").join(file), text).unwrap();
        fs::create_dir_all(self.path("proc/sys/kernel/random")).unwrap();
        fs::write(self.path("proc/sys/kernel/random/boot_id"), "this\n").unwrap();
    }

    /// The command, ready to be run with further arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migctl"));
        command
            .env_clear()
            .env("FAKE_NVML_STATE", self.path("state"))
            .env("NVML_LIBRARY", fake_library())
            .env("PROC_ROOT", self.path("proc"))
            .env("SYS_ROOT", self.path("sys"))
            .env("KUBELET_ROOT", self.kubelet_root())
            .env("MIG_LOCK_FILE", self.path("node.lock"))
            .env("STATE_DIR", self.path("run"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `migctl` with a line of arguments.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.command().args(words(line)).output().unwrap()
    }

    /// Runs it with a text on stdin.
    pub(crate) fn run_with(&self, line: &str, stdin: &[u8]) -> Output {
        let mut command = self.command();
        command.args(words(line)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may have heard enough before it has heard all.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// Runs a line and tells what a user sees of it: both streams and the exit code.
    pub(crate) fn transcript(&self, line: &str) -> String {
        self.told(&self.run(line))
    }

    /// What a user sees of it.
    pub(crate) fn told(&self, output: &Output) -> String {
        let mut text = String::from_utf8(output.stdout.clone()).unwrap();
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        text.extend(stderr.lines().map(|line| format!("! {line}\n")));
        let _ =
            writeln!(text, "exit {}", output.status.code().map_or("by a signal".to_owned(), |code| code.to_string()));
        text.replace(self.directory.path().to_str().unwrap(), "[DIR]")
    }

    /// Runs a line that has to succeed, and reads its JSON.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        let output = self.run(&format!("-o json {line}"));
        assert!(output.status.success(), "{line}: {}", self.told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').filter(|word| !word.is_empty())
}
