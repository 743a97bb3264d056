//! A pretended machine for one test. The fake driver reads its environment when it starts, and is loaded once in a
//! process, so each test runs in a process of its own.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only test functions for tests"
)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_nvml::{Store, StoreError, World};
use mig_model::{GpuSurvey, GpuUuid, Placement, Profile, Step};
use mig_nvml::{Hardware, Report, Roots};
use tempfile::TempDir;

const INSIDE: &str = "MIG_NVML_TEST_MACHINE";

pub(crate) struct Machine {
    store: Store,
    folder: PathBuf,
}

/// The path of the test that it is written in, as the test binary takes it.
#[macro_export]
macro_rules! this_test {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        path.split_once("::").unwrap().1.strip_suffix("::here").unwrap()
    }};
}

pub(crate) fn scene(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenes").join(name).with_extension("yaml")
}

impl Machine {
    /// The machine, in the test's own process; in the one that runs all tests, None when that has succeeded.
    pub(crate) fn of(test: &str, scene_name: &str) -> Option<Self> {
        Self::enter(test, &scene(scene_name))
    }

    /// One of a scene of the test's own.
    pub(crate) fn written(test: &str, text: &str) -> Option<Self> {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), text).unwrap();
        Self::enter(test, file.path())
    }

    fn enter(test: &str, scene: &Path) -> Option<Self> {
        let create = || fake_nvml::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string()));
        if let Some(folder) = std::env::var_os(INSIDE).map(PathBuf::from) {
            let (store, ..) = Store::open(&folder.join("state"), create).unwrap();
            return Some(Self { store, folder });
        }
        let folder = TempDir::with_prefix("mig-nvml").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(INSIDE, folder.path());
        command.env("FAKE_NVML_STATE", folder.path().join("state")).env("FAKE_NVML_SCENE", scene);
        let output = command.output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "in its own process:\n{complained}\n{said}");
        assert!(said.contains("test result: ok. 1 passed"), "{test} is no test:\n{said}");
        None
    }

    pub(crate) fn hardware(&self) -> Hardware {
        // Built beside this test, since the fake is one of its dependencies.
        let library = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
        let roots = Roots { driver: self.path("driver"), sys: self.path("sys"), proc: self.path("proc") };
        Hardware::open(Some(&library), roots).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn world(&self) -> World {
        self.store.read().unwrap().0
    }

    pub(crate) fn change(&self, edit: impl FnOnce(&mut World)) {
        let edit = |world: &mut World| {
            edit(world);
            Ok(())
        };
        self.store.change(edit).unwrap();
    }

    /// A function that fails, every time or the nth time from now.
    pub(crate) fn fail(&self, call: &str, nth: Option<u64>, returns: &str) {
        let fault = fake_nvml::fault(call, None, nth, Some(returns), None).map_err(|(_, why)| why).unwrap();
        self.change(|world| {
            self.store.control().reset_hits(world.faults.len());
            world.faults.push(fault);
        });
    }

    pub(crate) fn process(&self, pid: u32, instance: Option<u32>, compute: Option<u32>) {
        let name = fake_nvml::Process::nameless(pid);
        let process = fake_nvml::Process { pid, name, memory: 1 << 20, graphics: false, instance, compute };
        self.change(|world| world.add_process(0, process).unwrap());
    }

    /// What is there, in the driver's own terms: profile, start and UUIDs.
    pub(crate) fn cut(&self, index: usize) -> Vec<(String, u32, Vec<String>)> {
        let world = self.world();
        let gpu = &world.gpus[index];
        let profiles = &world.models[gpu.model].mig.as_ref().unwrap().profiles;
        let described = |instance: &fake_nvml::GpuInstance| {
            let uuids = instance.compute.iter().map(|compute| compute.uuid.clone()).collect();
            (profiles[instance.profile].name.clone(), instance.start, uuids)
        };
        gpu.instances.iter().map(described).collect()
    }
}

pub(crate) fn profile(name: &str) -> Profile {
    name.parse().unwrap()
}

pub(crate) fn create(name: &str, start: u32, size: u32, compute: &[&str]) -> Step {
    let compute = compute.iter().map(|name| profile(name)).collect();
    Step::CreateGpuInstance { profile: profile(name), placement: Placement { start, size }, compute }
}

/// A survey of the only GPU there is.
pub(crate) fn survey(hardware: &Hardware) -> GpuSurvey {
    let mut survey = hardware.survey().unwrap();
    assert_eq!((survey.gpus.len(), survey.unreadable.len()), (1, 0));
    survey.gpus.remove(0)
}

/// All steps, on the first GPU, unwatched.
pub(crate) fn take(hardware: &Hardware, steps: &[Step]) -> Report {
    hardware.execute(&first(hardware), steps, &mut |_| ControlFlow::Continue(()))
}

pub(crate) fn first(hardware: &Hardware) -> GpuUuid {
    hardware.survey().unwrap().gpus[0].gpu.uuid.clone()
}

/// The step that destroys an instance as it is now.
pub(crate) fn destroy(survey: &GpuSurvey, id: u32) -> Step {
    let found = survey.gpu.instances.iter().find(|instance| instance.id == id).unwrap();
    Step::DestroyGpuInstance {
        gpu_instance: id,
        profile: found.profile.clone(),
        placement: found.placement,
        compute_instances: found.compute_instances.iter().map(|one| (one.id, one.uuid.clone())).collect(),
    }
}
