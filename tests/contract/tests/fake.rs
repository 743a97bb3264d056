//! Holds the fake driver to the contract, scene by scene.
//!
//! A statement that none of the scenes serves would be no test of the fake, so that too is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the test's")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser as _;
use contract::{
    bench::Outside,
    harness::{Options, Prepare, Target, child, say},
    statements::CHAPTERS,
};
use fake_nvml::{Process, Refused, Store, StoreError, World};
use tempfile::TempDir;

/// Scene, GPU, and the chapters that it is there for.
const SCENES: &[(&str, u32, &[&str])] = &[
    ("h200-idle", 0, &["library", "device", "events", "profiles", "off", "h200", "mode", "life", "compute"]),
    ("demo", 0, &["device", "events", "profiles", "cut"]),
    ("compute-instances", 0, &["cut"]),
    ("compute-instances", 1, &["cut"]),
    ("h200", 1, &["device", "profiles", "h200", "cut"]),
    ("h100", 0, &["profiles", "cut"]),
    ("h100", 1, &["profiles", "cut"]),
    ("a30", 0, &["profiles", "cut"]),
    ("rtx-pro-6000", 0, &["profiles", "cut"]),
    ("rtx-pro-6000", 1, &["cut"]),
    ("rtx-pro-6000", 2, &["cut"]),
    ("sixty-four-by-seven", 63, &["library", "device", "cut"]),
    ("no-gpus", 0, &["library"]),
    ("not-mig-capable", 0, &["library", "device", "events", "without_mig"]),
    ("empty", 0, &["profiles", "mode", "life", "compute"]),
    ("a100-off", 0, &["profiles", "off", "mode"]),
    ("a30-on", 0, &["mode", "life", "compute"]),
    ("rtx-pro-6000-on", 0, &["mode", "life", "compute"]),
];

static HELD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn held(name: &str) {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
}

/// Built beside this test, since the fake is one of its dependencies.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
    assert!(beside.is_file(), "no fake driver at {}", beside.display());
    beside
}

/// A machine of the scene's, new for each statement.
fn machine(scene: &str) -> Arc<Prepare> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = ["scenes", "../scenes"].iter().map(|folder| here.join(folder).join(format!("{scene}.yaml")));
    let file = files.find(|file| file.is_file()).expect("a scene of that name");
    Arc::new(move || {
        let folder = TempDir::with_prefix("contract").map_err(|error| format!("a temporary directory: {error}"))?;
        let state = folder.path().join("state").into_os_string();
        let environment = vec![("FAKE_NVML_SCENE", file.clone().into_os_string()), ("FAKE_NVML_STATE", state)];
        Ok((environment, Box::new(folder)))
    })
}

const OUTSIDE: Outside = Outside {
    start_process: |pid, gpu, within| {
        let (instance, compute) = within.unzip();
        let process = Process { pid, name: "contract".to_owned(), memory: 1 << 20, graphics: false, instance, compute };
        change(|world| world.add_process(index(gpu), process))
    },
    end_process: |pid| change(|world| world.remove_process(pid)),
    reset: |gpu| change(|world| world.reset_gpu(index(gpu))),
};

fn index(gpu: u32) -> usize {
    usize::try_from(gpu).unwrap()
}

/// In the child: changes the machine that its library sees.
fn change(edit: impl FnOnce(&mut World) -> Result<(), Refused>) -> Result<(), String> {
    let state = std::env::var_os("FAKE_NVML_STATE").ok_or("no FAKE_NVML_STATE")?;
    let missing = || Err(StoreError::Scene("the machine is gone".to_owned()));
    let (store, _, _) = Store::open(Path::new(&state), missing).map_err(|error| error.to_string())?;
    let changed = store.change(|world| Ok(edit(world))).map_err(|error| error.to_string())?;
    changed.map_err(|refused| refused.to_string())
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(code) = child(&options, Some(&OUTSIDE)) {
        return code;
    }
    let mut trials = Vec::new();
    for (scene, gpu, chapters) in SCENES {
        let target = Target { library: library(), gpu: *gpu, writable: true, prepare: machine(scene) };
        for chapter in CHAPTERS.iter().filter(|chapter| chapters.contains(&chapter.name)) {
            let kind = if *gpu == 0 { (*scene).to_owned() } else { format!("{scene}, GPU {gpu}") };
            let all = chapter.statements.iter().map(|statement| target.trial(chapter, statement, held));
            trials.extend(all.map(|trial| trial.with_kind(kind.clone())));
        }
    }
    let conclusion = libtest_mimic::run(&options.tests, trials);
    if conclusion.has_failed() || options.tests.list || conclusion.num_filtered_out > 0 {
        return conclusion.exit_code();
    }
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let names = CHAPTERS
        .iter()
        .flat_map(|chapter| chapter.statements.iter().map(|statement| format!("{}::{}", chapter.name, statement.name)));
    let untried: Vec<String> = names.filter(|name| !held.contains(name)).collect();
    if untried.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("no scene serves for {}", untried.join(", ")));
    ExitCode::FAILURE
}
