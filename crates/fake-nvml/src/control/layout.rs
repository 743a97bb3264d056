//! What a driver puts below `/dev`, `/proc` and `/sys`, laid out below a directory.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use fake_nvml::{Gpu, World};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{Done, Failure};

/// Device majors as a real host had them; those of uvm and caps are given at run time, so `proc/devices` is to be read.
const NVIDIA: u32 = 195;
const UVM: u32 = 238;
const CAPS: u32 = 241;
/// A driver lists capabilities for this many GPUs, GPU instances and compute instances, whatever there is.
const GPUS: u32 = 32;
const INSTANCES: u32 = 15;
const COMPUTE_INSTANCES: u32 = 8;

const DEVICES: &str = "Character devices:\n  1 mem\n  4 /dev/vc/0\n  4 tty\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n 13 input\n\
    128 ptm\n136 pts\n195 nvidia\n195 nvidiactl\n238 nvidia-uvm\n240 nvidia-nvlink\n241 nvidia-caps\n\
    242 nvidia-caps-imex-channels\n\nBlock devices:\n  7 loop\n254 virtblk\n259 blkext\n";
const PARAMS: &str = "ResmanDebugLevel: 4294967295\nRmLogonRC: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\n\
    DeviceFileMode: 438\nEnableMSI: 1\nNvLinkDisable: 0\nRegisterPCIDriver: 1\nEnableGpuFirmware: 18\nGrdmaPciTopoCheckOverride: 0\n\
    RegistryDwords: \"\"\nRmMsg: \"\"\nExcludedGpus: \"\"\n";

struct Root<'a> {
    path: &'a Path,
    plain_files: bool,
}

pub(crate) fn lay_out(world: &World, path: &Path, plain_files: bool, library: Option<&Path>) -> Done {
    fs::create_dir_all(path).map_err(|error| Failure::Io(path.to_owned(), error))?;
    if path.canonicalize().is_ok_and(|path| path.parent().is_none()) {
        return Err(Failure::Usage("--root / would replace this machine's own files".to_owned()));
    }
    let root = Root { path, plain_files };
    root.clear()?;
    root.files(world)?;
    root.nodes(world)?;
    for gpu in &world.gpus {
        root.gpu(world, gpu)?;
    }
    match library {
        Some(library) => root.copy(library, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"),
        None => Ok(()),
    }
}

impl Root<'_> {
    fn at(&self, name: &str) -> Done<PathBuf> {
        let path = self.path.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| Failure::Io(folder.to_owned(), error))?;
        }
        Ok(path)
    }

    /// What an earlier machine had and this one may not.
    fn clear(&self) -> Done {
        for name in ["dev/nvidia-caps", "proc/driver/nvidia-caps", "proc/driver/nvidia", "sys/bus/pci/devices"] {
            let path = self.path.join(name);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::Io(path, error)),
                _ => {}
            }
        }
        let Ok(devices) = fs::read_dir(self.path.join("dev")) else { return Ok(()) };
        for device in devices.flatten() {
            if device.file_name().to_string_lossy().starts_with("nvidia") {
                fs::remove_file(device.path()).map_err(|error| Failure::Io(device.path(), error))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Done {
        let path = self.at(name)?;
        fs::write(&path, text).map_err(|error| Failure::Io(path, error))
    }

    fn copy(&self, from: &Path, name: &str) -> Done {
        let path = self.at(name)?;
        // A program may have the old one mapped: put the new one in its place, not into it.
        let draft = path.with_extension("new");
        fs::copy(from, &draft).map_err(|error| Failure::Io(from.to_owned(), error))?;
        fs::rename(draft, &path).map_err(|error| Failure::Io(path, error))
    }

    fn node(&self, name: &str, major: u32, minor: u32, mode: u32) -> Done {
        let path = self.at(name)?;
        let mode = Mode::from_raw_mode(mode);
        if !self.plain_files {
            match mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)) {
                // Not permitted to an ordinary user, nor in most containers: the name is what most clients look for.
                Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {}
                Err(error) => return Err(Failure::Io(path, error.into())),
                Ok(()) => return rustix::fs::chmod(&path, mode).map_err(|error| Failure::Io(path, error.into())),
            }
        }
        fs::write(&path, "").map_err(|error| Failure::Io(path, error))
    }

    fn files(&self, world: &World) -> Done {
        self.write("proc/devices", DEVICES)?;
        self.write("proc/driver/nvidia/params", PARAMS)?;
        let version = format!(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (fake-nvml)\nGCC version:  none\n",
            world.driver
        );
        self.write("proc/driver/nvidia/version", &version)?;
        self.write("proc/driver/nvidia-caps/mig-minors", &mig_minors())?;
        self.write("proc/driver/nvidia/capabilities/mig/config", &capability(1, 0o400))?;
        self.write("proc/driver/nvidia/capabilities/mig/monitor", &capability(2, 0o444))
    }

    fn nodes(&self, world: &World) -> Done {
        self.node("dev/nvidiactl", NVIDIA, 255, 0o666)?;
        self.node("dev/nvidia-uvm", UVM, 0, 0o666)?;
        self.node("dev/nvidia-uvm-tools", UVM, 1, 0o666)?;
        self.node("dev/nvidia-caps/nvidia-cap1", CAPS, 1, 0o400)?;
        self.node("dev/nvidia-caps/nvidia-cap2", CAPS, 2, 0o444)?;
        world.gpus.iter().try_for_each(|gpu| self.node(&format!("dev/nvidia{}", gpu.minor), NVIDIA, gpu.minor, 0o666))
    }

    fn gpu(&self, world: &World, gpu: &Gpu) -> Done {
        let pci = gpu.pci.short();
        self.write(&format!("sys/bus/pci/devices/{pci}/numa_node"), &format!("{}\n", gpu.numa))?;
        if let Some(model) = world.models.get(gpu.model) {
            let information = format!(
                "Model: \t\t {}\nIRQ:   \t\t 41\nGPU UUID: \t {}\nVideo BIOS: \t {}\nBus Type: \t PCIe\nDMA Size: \t 52 bits\n\
                 DMA Mask: \t 0xfffffffffffff\nBus Location: \t {pci}\nDevice Minor: \t {}\nGPU Firmware: \t {}\nGPU Excluded:\t No\n",
                model.name,
                gpu.uuid,
                model.vbios.to_lowercase(),
                gpu.minor,
                world.driver
            );
            self.write(&format!("proc/driver/nvidia/gpus/{pci}/information"), &information)?;
        }
        for instance in &gpu.instances {
            let folder = format!("proc/driver/nvidia/capabilities/gpu{}/mig/gi{}", gpu.minor, instance.id);
            let minor = instance_minor(gpu.minor, instance.id);
            self.capability(&format!("{folder}/access"), minor)?;
            for compute in &instance.compute {
                self.capability(&format!("{folder}/ci{}/access", compute.id), minor + 1 + compute.id)?;
            }
        }
        Ok(())
    }

    fn capability(&self, file: &str, minor: u32) -> Done {
        self.write(file, &capability(minor, 0o444))?;
        self.node(&format!("dev/nvidia-caps/nvidia-cap{minor}"), CAPS, minor, 0o444)
    }
}

fn capability(minor: u32, mode: u32) -> String {
    format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n")
}

/// As driver 580 numbers them.
fn instance_minor(gpu: u32, instance: u32) -> u32 {
    3 + gpu * INSTANCES * (COMPUTE_INSTANCES + 1) + instance * (COMPUTE_INSTANCES + 1)
}

fn mig_minors() -> String {
    let mut text = String::from("config 1\nmonitor 2\n");
    for gpu in 0..GPUS {
        for instance in 0..INSTANCES {
            let minor = instance_minor(gpu, instance);
            let _ = writeln!(text, "gpu{gpu}/gi{instance}/access {minor}");
            for compute in 0..COMPUTE_INSTANCES {
                let _ = writeln!(text, "gpu{gpu}/gi{instance}/ci{compute}/access {}", minor + 1 + compute);
            }
        }
    }
    text
}
