//! The driver: its library, its kernel module, and whether it is new enough.

use std::fs;

use mig_model::NodeSurvey;
use mig_nvml::{DriverError, LibraryError};

use super::{Finding, Places, Told};
use crate::context::{Context, Patience};

/// The first driver branch with MIG on each product, by words of its name, as NVIDIA's MIG user guide has it.
const MINIMUM: [(&[&str], u32); 12] = [
    (&["A100"], 450),
    (&["A30"], 460),
    (&["H100"], 525),
    (&["H20"], 535),
    (&["H200"], 550),
    (&["B200"], 570),
    (&["GB200"], 570),
    (&["PRO", "6000", "Blackwell"], 575),
    (&["PRO", "5000", "Blackwell"], 575),
    (&["PRO", "4500", "Blackwell"], 575),
    (&["B300"], 580),
    (&["GB300", "Station"], 595),
];

/// Starts NVML and lets it tell everything.
pub(super) fn start(context: &Context) -> (Option<NodeSurvey>, Finding) {
    let hardware = match context.hardware() {
        Ok(hardware) => hardware,
        Err(error) => return (None, broken(&error)),
    };
    let library = hardware.library();
    match hardware.survey() {
        Ok(survey) => {
            let finding = Finding::ok("library", format!("NVML {} from {library}", survey.driver.nvml));
            (Some(survey), finding)
        }
        Err(error) => {
            let message = format!("{library} starts, and then: {error}");
            (None, Finding::problem("library", message).advice(KERNEL_LOG))
        }
    }
}

/// It does not come back.
pub(super) fn hangs(patience: &Patience) -> Finding {
    let hang = patience.exhausted();
    Finding::problem("library", hang.message)
        .advice("a hung driver needs a reset of its GPU, or a restart of the node")
        .advice(KERNEL_LOG)
}

const KERNEL_LOG: &str = "the kernel's log may say why: dmesg | grep -e NVRM -e Xid";

fn broken(error: &DriverError) -> Finding {
    let advice = match error {
        DriverError::Library(LibraryError::Absent(_)) => {
            "name the driver's libnvidia-ml.so.1, or leave --nvml-library out"
        }
        DriverError::Library(LibraryError::CutShort(_)) => {
            "if no installation is under way, install the driver again; is the disk full? df"
        }
        DriverError::Library(LibraryError::NotALibrary { .. }) => {
            "see which package put the file there: dpkg -S, rpm -qf"
        }
        DriverError::Library(LibraryError::Foreign { .. }) => {
            "see what this node is, and what the library is for: uname -m; file LIBRARY"
        }
        DriverError::Library(LibraryError::Unloadable { .. }) => {
            "install NVIDIA's driver; in a container, mount its files and name them by --nvidia-driver-root"
        }
        _ => match error.kind() {
            "DriverNotLoaded" => "load the kernel module: modprobe nvidia; if that fails, dmesg says why",
            "LibRmVersionMismatch" => {
                "reboot, or end all that use GPUs, then unload the nvidia modules and load them again"
            }
            "NoPermission" => "run as root, or where /dev/nvidiactl may be opened",
            _ => KERNEL_LOG,
        },
    };
    Finding::problem("library", error.to_string()).advice(advice)
}

/// Library and kernel module have to be of one version.
pub(super) fn kernel_module(places: &Places<'_>, told: Option<&Told<'_>>) -> Finding {
    const CHECK: &str = "kernel-module";
    let path = places.proc("driver/nvidia/version");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("unable to read {}: {error}", path.display());
            return match told {
                Some(_) => Finding::skipped(CHECK, message),
                None => Finding::problem(CHECK, format!("it is not loaded: {message}")).advice(
                    "load it: modprobe nvidia; in a container, see that the host's /proc is what --proc-root names",
                ),
            };
        }
    };
    let Some(kernels) = version(&text) else {
        return Finding::skipped(CHECK, format!("{} names no version", path.display()));
    };
    match told.and_then(|told| librarys(&told.survey.driver.nvml)) {
        Some(librarys) if librarys != kernels => {
            let message = format!("it is of version {kernels}, the library of {librarys}");
            Finding::problem(CHECK, message).advice(
                "reboot if the driver was upgraded; else let --nvidia-driver-root name the running driver's files",
            )
        }
        Some(_) => Finding::ok(CHECK, format!("{kernels}, as the library")),
        None => Finding::ok(CHECK, format!("{kernels} is loaded")),
    }
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build ...`
fn version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| {
        let mut parts = word.split('.');
        word.contains('.') && parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    line.split_whitespace().find(is_version)
}

/// Without CUDA's version, which NVML puts in front of the driver's.
fn librarys(nvml: &str) -> Option<&str> {
    nvml.split_once('.').map(|(_, driver)| driver).filter(|driver| driver.contains('.'))
}

/// Whether the driver knows MIG on these GPUs.
pub(super) fn age(told: Option<&Told<'_>>) -> Finding {
    const CHECK: &str = "driver";
    let Some(told) = told else { return Finding::needs_driver(CHECK) };
    let version = &told.survey.driver.version;
    let Some(branch) = version.split('.').next().and_then(|branch| branch.parse::<u32>().ok()) else {
        return Finding::skipped(CHECK, format!("{version:?} is no version of a driver"));
    };
    let needs = |name: &str| minimum(name).map(|minimum| (minimum, name.to_owned()));
    let known = told.gpus.iter().filter_map(|gpu| needs(&gpu.gpu.name));
    match known.max() {
        None => Finding::skipped(CHECK, format!("{version}; which one MIG needs on these GPUs is not known here")),
        Some((minimum, name)) if minimum > branch => {
            Finding::problem(CHECK, format!("{version} is too old: MIG on {name} needs R{minimum} or later"))
                .advice(format!("install a driver of branch {minimum} or later"))
        }
        Some((minimum, name)) => Finding::ok(CHECK, format!("{version}; MIG on {name} needs R{minimum}")),
    }
}

fn minimum(name: &str) -> Option<u32> {
    let words: Vec<&str> = name.split([' ', '-']).collect();
    let fits = |wanted: &[&str]| wanted.iter().all(|word| words.contains(word));
    MINIMUM.iter().find(|(wanted, _)| fits(wanted)).map(|(_, minimum)| *minimum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_version_is_found() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs)\nGCC version:  12.2.0\n";
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n";
        assert_eq!(version(open), Some("580.159.04"));
        assert_eq!(version(closed), Some("535.104.05"));
        assert_eq!(version("GCC version: 12.2.0\n"), None);
        assert_eq!(librarys("13.580.159.04"), Some("580.159.04"));
        assert_eq!(librarys("580"), None);
    }

    #[test]
    fn each_product_has_its_first_driver() {
        for (name, expected) in [
            ("NVIDIA A100-SXM4-40GB", Some(450)),
            ("NVIDIA A100 80GB PCIe", Some(450)),
            ("NVIDIA A30", Some(460)),
            ("NVIDIA H100 NVL", Some(525)),
            ("NVIDIA H20", Some(535)),
            ("NVIDIA H200", Some(550)),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", Some(575)),
            ("NVIDIA B300 SXM6 AC", Some(580)),
            ("NVIDIA RTX 6000 Ada Generation", None),
            ("Tesla T4", None),
        ] {
            assert_eq!(minimum(name), expected, "{name}");
        }
    }
}
