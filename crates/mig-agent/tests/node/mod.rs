//! A node for one test: the real agent as a process, the fake driver's library under it, a directory for the kubelet.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only test functions for tests"
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fake_nvml::{Store, StoreError};
use kubelet_sim::{Kubelet, Resource};
use tempfile::TempDir;

/// Generous: it is only waited out when something is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const G1: &str = "nvidia.com/mig-1g.5gb";
pub(crate) const G3: &str = "nvidia.com/mig-3g.20gb";

/// The machine and its directories.
pub(crate) struct Node {
    directory: TempDir,
    store: Option<Store>,
}

/// Says what is not tried here, and why. Where nothing may be left out that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("TESTS_SKIP_NOTHING").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

pub(crate) fn scene(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenes").join(format!("{name}.yaml"))
}

/// Built beside this test, since the fake is one of its dependencies.
pub(crate) fn fake_library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    assert!(beside.is_file(), "no fake driver at {}", beside.display());
    beside
}

impl Node {
    pub(crate) fn new(scene_name: &str) -> Self {
        Self::of(&scene(scene_name))
    }

    /// A machine of a scene of the test's own.
    pub(crate) fn written(text: &str) -> Self {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), text).unwrap();
        Self::of(file.path())
    }

    fn of(scene: &Path) -> Self {
        let directory = TempDir::with_prefix("node").unwrap();
        let create = || fake_nvml::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string()));
        let (store, _, _) = Store::open(&directory.path().join("state"), create).unwrap();
        Self { directory, store: Some(store) }
    }

    /// A machine without a driver.
    pub(crate) fn bare() -> Self {
        Self { directory: TempDir::with_prefix("node").unwrap(), store: None }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// What stands for /var/lib/kubelet.
    pub(crate) fn kubelet_root(&self) -> PathBuf {
        self.path("kubelet")
    }

    pub(crate) async fn kubelet(&self) -> Kubelet {
        Kubelet::start(self.kubelet_root()).await.unwrap()
    }

    fn machine(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Cuts the GPUs anew, as somebody else would, under whatever uses them.
    pub(crate) fn recut(&self, text: &str) {
        let file = self.path("recut.yaml");
        fs::write(&file, text).unwrap();
        let changed = self.machine().change(|world| {
            *world = fake_nvml::load(&file, world.next_serial).map_err(|error| StoreError::Scene(error.to_string()))?;
            Ok(())
        });
        changed.unwrap();
    }

    /// The same, and the driver tells of it.
    pub(crate) fn recut_told(&self, text: &str) {
        self.recut(text);
        self.tell_of_a_change();
    }

    /// The driver says that the cut has changed.
    pub(crate) fn tell_of_a_change(&self) {
        let config_change = 0x100;
        self.change(|world| {
            for gpu in 0..world.gpus.len() {
                let serial = world.next_serial;
                world.next_serial += 1;
                let event =
                    fake_nvml::Event { serial, gpu, kind: config_change, data: 0, instance: None, compute: None };
                world.events.push_back(event);
            }
        });
    }

    fn change(&self, edit: impl FnOnce(&mut fake_nvml::World)) {
        let edit = |world: &mut _| {
            edit(world);
            Ok(())
        };
        self.machine().change(edit).unwrap();
    }

    /// A program begins to compute on a GPU, or on a part of it.
    pub(crate) fn run_process(&self, gpu: usize, pid: u32, part: Option<(u32, u32)>) {
        let process = fake_nvml::Process {
            pid,
            name: "train".to_owned(),
            memory: 1 << 20,
            graphics: false,
            instance: part.map(|(instance, _)| instance),
            compute: part.map(|(_, compute)| compute),
        };
        self.change(|world| world.add_process(gpu, process).unwrap());
    }

    pub(crate) fn end_process(&self, pid: u32) {
        self.change(|world| world.remove_process(pid).unwrap());
    }

    /// A slice is gone, and what runs on it goes on: no driver does this by order.
    pub(crate) fn lose_slice(&self, gpu: usize, instance: u32) {
        self.change(|world| world.gpus[gpu].instances.retain(|own| own.id != instance));
    }

    pub(crate) fn lose_gpu(&self, index: usize, lost: bool) {
        self.change(|world| world.gpus[index].lost = lost);
    }

    /// A GPU's hardware does well, or not.
    pub(crate) fn vitals(&self, gpu: usize, change: impl FnOnce(&mut fake_nvml::Vitals)) {
        self.change(|world| world.change_vitals(gpu, change).unwrap());
    }

    /// The driver reports an error, of an instance or of the whole GPU.
    pub(crate) fn xid(&self, gpu: usize, xid: u64, part: Option<(u32, u32)>) {
        self.xids(gpu, &[(xid, part)]);
    }

    /// It reports several at once.
    pub(crate) fn xids(&self, gpu: usize, xids: &[(u64, Option<(u32, u32)>)]) {
        self.change(|world| {
            for (xid, part) in xids {
                world
                    .raise_xid(gpu, *xid, part.map(|(instance, _)| instance), part.map(|(_, compute)| compute))
                    .unwrap();
            }
        });
    }

    /// Where a MIG device is: GPU, and the ids of its instances.
    pub(crate) fn place(&self, uuid: &str) -> (usize, (u32, u32)) {
        let world = self.world();
        for (index, gpu) in world.gpus.iter().enumerate() {
            for instance in &gpu.instances {
                if let Some(compute) = instance.compute.iter().find(|compute| compute.uuid == uuid) {
                    return (index, (instance.id, compute.id));
                }
            }
        }
        panic!("no {uuid}");
    }

    pub(crate) fn add_fault(&self, call: &str, returns: Option<&str>, delay: Option<&str>) {
        let fault = fake_nvml::fault(call, None, None, returns, delay).map_err(|(_, why)| why).unwrap();
        self.change(|world| world.faults.push(fault));
    }

    pub(crate) fn add_gpu_fault(&self, call: &str, gpu: usize, returns: &str) {
        let fault = fake_nvml::fault(call, Some(gpu), None, Some(returns), None).map_err(|(_, why)| why).unwrap();
        self.change(|world| world.faults.push(fault));
    }

    pub(crate) fn clear_faults(&self) {
        self.change(|world| world.faults.clear());
    }

    /// NVML calls since the machine was made, but those that only wait.
    pub(crate) fn calls(&self) -> u64 {
        let calls = self.machine().control().calls();
        let waits = fake_nvml::NAMES.iter().position(|known| known.starts_with("nvmlEventSetWait_v2")).unwrap();
        calls.iter().sum::<u64>() - calls[waits]
    }

    /// Calls of one function.
    pub(crate) fn calls_of(&self, name: &str) -> u64 {
        let number = fake_nvml::NAMES.iter().position(|known| *known == name).unwrap();
        self.machine().control().calls()[number]
    }

    pub(crate) fn world(&self) -> fake_nvml::World {
        self.machine().read().unwrap().0
    }

    /// UUIDs of the machine's MIG devices of one profile.
    pub(crate) fn uuids(&self, profile: &str) -> Vec<String> {
        let world = self.world();
        let mut uuids = Vec::new();
        for gpu in &world.gpus {
            let model = &world.models[gpu.model];
            for instance in &gpu.instances {
                let name = &model.mig.as_ref().unwrap().profiles[instance.profile].name;
                if name.trim_start_matches("MIG ") == profile {
                    uuids.extend(instance.compute.iter().map(|compute| compute.uuid.clone()));
                }
            }
        }
        uuids
    }

    /// Starts the agent with times that suit a test.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Agent {
        self.agent_with(&fake_library(), arguments)
    }

    pub(crate) fn agent_with(&self, library: &Path, arguments: &[&str]) -> Agent {
        Agent::start(self.agent_command(library, arguments), self.path("agent.log"))
    }

    /// How the agent is started.
    pub(crate) fn agent_command(&self, library: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mig-agent"));
        command
            .env_clear()
            .env("FAKE_NVML_STATE", self.path("state"))
            .env("NVML_LIBRARY", library)
            .env("POLL_INTERVAL", "50ms")
            .env("SETTLE_TIME", "50ms")
            .env("NODE_LABELS", "off")
            .env("FEATURES_DIR", self.path("features.d"))
            .env("STATE_DIR", self.path("run"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--kubelet-root")
            .arg(self.kubelet_root())
            .args(arguments);
        command
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let stderr = File::create(&log).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Self { process, log }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line that contains these words, and gives it.
    pub(crate) fn line(&mut self, words: &str) -> String {
        let found = || self.log().lines().find(|line| line.contains(words)).map(str::to_owned);
        let what = format!("a line with {words:?}");
        wait(&what, found).unwrap_or_else(|| panic!("the log has no {words:?}:\n{}", self.log()))
    }

    /// Waits until lines that contain these words are so many.
    pub(crate) fn lines(&mut self, words: &str, count: usize) {
        let found = || (self.log().matches(words).count() == count).then_some(());
        wait(words, found).unwrap_or_else(|| panic!("the log has not {count} times {words:?}:\n{}", self.log()));
    }

    /// Where it answers HTTP.
    pub(crate) fn http_address(&mut self) -> String {
        let line = self.line("serving HTTP");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().to_owned()
    }

    /// An answer of the agent's HTTP server: status line and body.
    pub(crate) fn get(&mut self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.http_address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Waits until /readyz answers so.
    pub(crate) fn ready(&mut self, is: impl Fn(&str, &str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (status, body) = self.get("/readyz");
            if is(&status, &body) {
                return body;
            }
            assert!(Instant::now() < deadline, "/readyz: {status}: {body}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until /api/v1/inventory answers so.
    pub(crate) fn inventory(&mut self, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let inventory = serde_json::from_str(&self.get("/api/v1/inventory").1).unwrap();
            if is(&inventory) {
                return inventory;
            }
            assert!(Instant::now() < deadline, "{inventory:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where the system tells of it.
    pub(crate) fn in_proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.process.id()))
    }

    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait("the agent's end", || self.process.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still running:\n{}", self.log()))
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

fn wait<T>(_what: &str, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match found() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            outcome => return outcome,
        }
    }
}

/// Waits until a resource is registered with so many devices, so many of them healthy.
pub(crate) async fn listed(kubelet: &Kubelet, resource: &str, capacity: usize, allocatable: usize) -> Resource {
    let is = |resource: &Resource| {
        resource.registered && resource.capacity == capacity && resource.allocatable == allocatable
    };
    kubelet.wait_for(|resources| resources.get(resource).is_some_and(is), DEADLINE).await.unwrap();
    kubelet.resources().remove(resource).unwrap()
}

/// One variable of a pod's only container.
pub(crate) fn variable(pod: &kubelet_sim::PodAllocation, container: &str, name: &str) -> String {
    pod.containers[container].envs.get(name).cloned().unwrap_or_default()
}
