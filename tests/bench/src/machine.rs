//! The pretended GPUs, and the real machine below them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread::available_parallelism,
};

use anyhow::{Context as _, anyhow, ensure};
use fake_nvml::{GpuInstance, Store, StoreError, World};
use serde_json::Value;

/// Each GPU is cut into as many slices as it has.
pub(crate) const SLICES: usize = 7;

/// Some A100, all cut into seven, laid out as a driver would.
#[derive(Debug)]
pub(crate) struct Machine {
    command: PathBuf,
    folder: PathBuf,
    pub(crate) gpus: usize,
}

impl Machine {
    /// Makes the machine, so that its clients find it as they would find a driver that is loaded.
    pub(crate) fn lay_out(fake_nvml: &Path, scratch: &Path, gpus: usize) -> anyhow::Result<Self> {
        let folder = scratch.join(format!("machine-{gpus}"));
        fs::create_dir_all(&folder)?;
        let machine = Self { command: fake_nvml.join("fake-nvml"), folder, gpus };
        let instances = "      - profile: 1g.5gb\n".repeat(SLICES);
        let scene = format!("gpus:\n  - model: A100-SXM4-40GB\n    count: {gpus}\n    instances:\n{instances}");
        fs::write(machine.folder.join("scene.yaml"), scene)?;
        fs::create_dir_all(machine.state())?;
        machine.control(&["layout", "--plain-files", "--root", &machine.folder.join("root").display().to_string()])?;
        machine.continue_mig_minors()?;
        Ok(machine)
    }

    /// A driver's `mig-minors` ends with its 32nd GPU. For more it is continued by the same rule: NVIDIA's plugin refuses
    /// to start on a GPU that is not in it.
    fn continue_mig_minors(&self) -> anyhow::Result<()> {
        let path = self.folder.join("root/proc/driver/nvidia-caps/mig-minors");
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        for gpu in 32..self.gpus {
            for gi in 0..15 {
                let minor = 3 + 135 * gpu + 9 * gi;
                writeln!(file, "gpu{gpu}/gi{gi}/access {minor}")?;
                for ci in 0..8 {
                    writeln!(file, "gpu{gpu}/gi{gi}/ci{ci}/access {}", minor + 1 + ci)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn slices(&self) -> usize {
        self.gpus * SLICES
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// What stands for the root of the file system that has the driver.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub(crate) fn sys_root(&self) -> PathBuf {
        self.folder.join("root/sys")
    }

    /// Lets `driver_files` show this machine's `/proc/driver`.
    pub(crate) fn show_at(&self, driver_files: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.folder.join("root/proc/driver"))? {
            let entry = entry?;
            let link = driver_files.join(entry.file_name());
            match fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => std::os::unix::fs::symlink(entry.path(), link)?,
            }
        }
        Ok(())
    }

    pub(crate) fn forget_calls(&self) -> anyhow::Result<()> {
        self.control(&["calls", "--reset"]).map(|_| ())
    }

    /// How often NVML was asked, since the calls were last forgotten.
    pub(crate) fn calls(&self) -> anyhow::Result<f64> {
        let calls: Value = serde_json::from_slice(&self.control(&["calls", "-o", "json"])?)?;
        calls["total"].as_f64().context("fake-nvml does not tell the number of calls")
    }

    /// The GPU of each MIG device.
    pub(crate) fn gpus_by_device(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let machine: Value = serde_json::from_slice(&self.control(&["show", "-o", "json"])?)?;
        let mut found = BTreeMap::new();
        for gpu in list(&machine["gpus"]) {
            let index = gpu["index"].as_u64().context("a GPU without an index")?;
            for compute in list(&gpu["instances"]).iter().flat_map(|instance| list(&instance["compute"])) {
                found.insert(compute["uuid"].as_str().context("a device without a UUID")?.to_owned(), index);
            }
        }
        Ok(found)
    }

    /// In this process, so that the time of a change is known to the microsecond.
    pub(crate) fn driver(&self) -> anyhow::Result<PretendedDriver> {
        let missing = || Err(StoreError::Scene("the machine is not laid out".to_owned()));
        Ok(PretendedDriver { store: Store::open(&self.state(), missing)?.0 })
    }

    fn control(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&self.command);
        command.args(arguments).arg("--scene").arg(self.folder.join("scene.yaml")).arg("--state").arg(self.state());
        let output = command.output().with_context(|| format!("unable to run {}", self.command.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fake-nvml {} failed: {}", arguments.join(" "), errors.trim());
        Ok(output.stdout)
    }
}

/// What is done to the GPUs behind the plugin's back.
pub(crate) struct PretendedDriver {
    store: Store,
}

/// `nvmlEventMigConfigChange`.
const CONFIG_CHANGE: u64 = 0x100;

impl PretendedDriver {
    fn change<T>(&self, edit: impl FnOnce(&mut World) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let refused = |error: anyhow::Error| StoreError::Scene(format!("{error:#}"));
        Ok(self.store.change(|world| edit(world).map_err(refused))?)
    }

    /// Takes the last slice off a GPU, as somebody else would, and the driver tells of it.
    pub(crate) fn take_slice(&self, gpu: usize) -> anyhow::Result<GpuInstance> {
        self.change(|world| {
            let known = world.gpus.get_mut(gpu).context("no such GPU")?;
            let taken = known.instances.pop().context("the GPU has no slice to take")?;
            tell_of_change(world, gpu);
            Ok(taken)
        })
    }

    /// Puts it back, and the driver tells of it.
    pub(crate) fn put_slice(&self, gpu: usize, slice: GpuInstance) -> anyhow::Result<()> {
        self.change(|world| {
            world.gpus.get_mut(gpu).context("no such GPU")?.instances.push(slice);
            tell_of_change(world, gpu);
            Ok(())
        })
    }

    /// The driver reports an error of one slice.
    pub(crate) fn xid(&self, gpu: usize, slice: usize, xid: u64) -> anyhow::Result<()> {
        self.change(|world| {
            let instance = world.gpus.get(gpu).and_then(|gpu| gpu.instances.get(slice)).context("no such slice")?;
            let (instance, compute) = (instance.id, instance.compute.first().map(|compute| compute.id));
            world.raise_xid(gpu, xid, Some(instance), compute).map_err(|error| anyhow!("{error}"))
        })
    }

    /// From now on a function answers late, or by an error.
    pub(crate) fn break_function(
        &self,
        function: &str,
        returns: Option<&str>,
        delay: Option<&str>,
    ) -> anyhow::Result<()> {
        let fault = fake_nvml::fault(function, None, None, returns, delay).map_err(|(_, why)| anyhow!(why))?;
        self.change(|world| {
            world.faults.push(fault);
            Ok(())
        })
    }

    /// All functions are well again.
    pub(crate) fn mend(&self) -> anyhow::Result<()> {
        self.change(|world| {
            world.faults.clear();
            Ok(())
        })
    }
}

fn tell_of_change(world: &mut World, gpu: usize) {
    let serial = world.next_serial;
    world.next_serial += 1;
    world.events.push_back(fake_nvml::Event {
        serial,
        gpu,
        kind: CONFIG_CHANGE,
        data: 0,
        instance: None,
        compute: None,
    });
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What the figures were taken on.
pub(crate) struct Surroundings {
    cores: usize,
    processor: String,
    kernel: String,
    load: String,
}

impl Surroundings {
    pub(crate) fn now() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cores: available_parallelism().map_or(0, usize::from),
            processor: named.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned()),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load: load.split(' ').next().unwrap_or("?").to_owned(),
        }
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, processor, kernel, load } = self;
        write!(out, "{cores} cores ({processor}), Linux {kernel}, load before the start {load}")
    }
}
