//! A machine for the doctor: files as a driver lays them out, and what a check found.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "clippy takes only test functions for tests")]

use std::fmt::Write as _;
use std::fs;

use fake_nvml::Layout;

use crate::machine::Machine;

/// As a driver would have it below the machine's directory. Device nodes are plain files: who runs tests may not be
/// permitted to make others.
pub(crate) fn laid_out(machine: &Machine, plain_files: bool) {
    let layout = Layout { root: machine.path(""), plain_files, instance_nodes: true };
    fake_nvml::lay_out(&machine.world(), &layout).unwrap();
}

pub(crate) fn healthy(scene: &str) -> Machine {
    let machine = Machine::written(scene);
    laid_out(&machine, true);
    machine
}

/// A file below the machine's root, with all folders on its way.
pub(crate) fn put(machine: &Machine, file: &str, text: &str) {
    let path = machine.path(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn doctor(machine: &Machine) -> serde_json::Value {
    with(machine, &[])
}

pub(crate) fn with(machine: &Machine, arguments: &[&str]) -> serde_json::Value {
    let mut command = machine.command();
    command.args(["-o", "json", "doctor", "--root"]).arg(machine.path("")).args(arguments);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", machine.told(&output)))
}

/// What one check found, as text.
pub(crate) fn found(machine: &Machine, check: &str) -> String {
    said(machine, &doctor(machine), check)
}

pub(crate) fn said(machine: &Machine, answer: &serde_json::Value, check: &str) -> String {
    let mut text = String::new();
    for finding in answer["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check) {
        writeln!(text, "{}: {}", finding["status"].as_str().unwrap(), finding["message"].as_str().unwrap()).unwrap();
        for advice in finding["advice"].as_array().unwrap() {
            writeln!(text, "-> {}", advice.as_str().unwrap()).unwrap();
        }
    }
    text.replace(machine.path("").to_str().unwrap().trim_end_matches('/'), "[DIR]")
}

/// Whether this process may make device nodes, and is root.
pub(crate) fn makes_nodes(machine: &Machine) -> bool {
    let path = machine.path("probe");
    let kind = rustix::fs::FileType::CharacterDevice;
    let made = rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), rustix::fs::makedev(1, 3));
    let _ = fs::remove_file(path);
    made.is_ok() && rustix::process::geteuid().is_root()
}
