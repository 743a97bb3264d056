//! What a driver puts below `/dev`, `/proc` and `/sys`, laid out below a directory, and kept as the machine is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde::{Deserialize, Serialize};

use crate::world::{Gpu, World};

/// Device majors as a real host had them; those of uvm and caps are given at run time, so `proc/devices` is to be read.
const NVIDIA: u32 = 195;
const UVM: u32 = 238;
const CAPS: u32 = 241;
/// A driver lists capabilities for this many GPUs, GPU instances and compute instances, whatever there is.
const GPUS: u32 = 32;
const INSTANCES: u32 = 15;
const COMPUTE_INSTANCES: u32 = 8;

const LIBRARY: &str = "libnvidia-ml.so.1";
const CAPABILITY_NODES: &str = "dev/nvidia-caps";
const DEVICES: &str = "Character devices:\n  1 mem\n  4 /dev/vc/0\n  4 tty\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n 13 input\n\
    128 ptm\n136 pts\n195 nvidia\n195 nvidiactl\n238 nvidia-uvm\n240 nvidia-nvlink\n241 nvidia-caps\n\
    242 nvidia-caps-imex-channels\n\nBlock devices:\n  7 loop\n254 virtblk\n259 blkext\n";
const PARAMS: &str = "ResmanDebugLevel: 4294967295\nRmLogonRC: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\n\
    DeviceFileMode: 438\nEnableMSI: 1\nNvLinkDisable: 0\nRegisterPCIDriver: 1\nEnableGpuFirmware: 18\nGrdmaPciTopoCheckOverride: 0\n\
    RegistryDwords: \"\"\nRmMsg: \"\"\nExcludedGpus: \"\"\n";

/// Where, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// The directory that stands for `/`.
    pub root: PathBuf,
    /// Plain files in place of device nodes, as is done anyway where mknod is not permitted.
    pub plain_files: bool,
    /// Whether instances get their nodes in `dev/nvidia-caps`. On a real host the driver's part ends in `/proc`, and it
    /// is `nvidia-modprobe` that makes these.
    pub instance_nodes: bool,
}

/// Why something could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file or directory, and what the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is no directory, or leads somewhere else.
    #[error("{} is no directory: nothing is laid out through it", path.display())]
    NoDirectory {
        /// Which.
        path: PathBuf,
    },
    /// The machine's own files.
    #[error("--root / would replace this machine's own files")]
    OwnFiles,
}

type Done<T = ()> = Result<T, LayoutError>;

#[derive(PartialEq, Eq)]
enum Entry {
    File(String),
    Node { major: u32, minor: u32, mode: u32 },
}

/// By their paths below the root.
type Entries = BTreeMap<String, Entry>;

/// Lays out everything; what another machine left there is replaced.
pub fn lay_out(world: &World, layout: &Layout) -> Done {
    let path = &layout.root;
    fs::create_dir_all(path).map_err(|source| LayoutError::Io { path: path.clone(), source })?;
    if path.canonicalize().is_ok_and(|path| path.parent().is_none()) {
        return Err(LayoutError::OwnFiles);
    }
    let root = Root { layout };
    root.clear(true)?;
    root.all(world)
}

/// Takes away everything that was laid out, the library, and the folders that are empty without it.
pub fn take_away(layout: &Layout) -> Done {
    let root = Root { layout };
    root.clear(true)?;
    let library = format!("{}/{LIBRARY}", library_folder());
    for name in ["proc/devices", library.as_str()] {
        let Some(path) = root.reach(name, false)? else { continue };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LayoutError::Io { path, source: error });
            }
            _ => {}
        }
    }
    for name in ["dev/any", "proc/driver/any", "sys/bus/pci/any", library.as_str()] {
        let Some(path) = root.reach(name, false)? else { continue };
        let folders = path.ancestors().skip(1).take_while(|folder| *folder != layout.root);
        // One that holds something is somebody else's too.
        let _ = folders.map(fs::remove_dir).take_while(Result::is_ok).count();
    }
    Ok(())
}

/// Where a Debian of this architecture keeps a driver's libraries.
pub fn library_folder() -> String {
    format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// Puts this library where a driver's would be.
pub fn copy_library(root: &Path, from: &Path) -> Done {
    let layout = Layout { root: root.to_owned(), plain_files: true, instance_nodes: true };
    let path = Root { layout: &layout }.place(&format!("{}/{LIBRARY}", library_folder()))?;
    // A program may have the old one mapped: put the new one in its place, not into it.
    let draft = path.with_extension("new");
    fs::copy(from, &draft).map_err(|source| LayoutError::Io { path: from.to_owned(), source })?;
    fs::rename(draft, &path).map_err(|source| LayoutError::Io { path, source })
}

/// A layout and what is in it, before a change.
pub(crate) struct Following {
    layout: Layout,
    /// Nothing when the files show something else.
    before: Option<Entries>,
}

impl Following {
    /// A layout whose files show this world, or when they don't are to be made anew: a process killed while it changed
    /// the machine leaves such.
    pub(crate) fn new(layout: Layout, world: &World, shown: bool) -> Self {
        let before = shown.then(|| entries(world, &layout));
        Self { layout, before }
    }

    /// Makes the files show the world after a change.
    pub(crate) fn change(self, world: &World) -> Done {
        let root = Root { layout: &self.layout };
        if !self.layout.root.is_dir() {
            return Err(LayoutError::NoDirectory { path: self.layout.root });
        }
        let Some(before) = self.before else {
            root.clear(false)?;
            return root.all(world);
        };
        let after = entries(world, &self.layout);
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            root.remove(name)?;
        }
        let mut changed = after.iter().filter(|(name, entry)| before.get(*name) != Some(entry));
        changed.try_for_each(|(name, entry)| root.put(name, entry))
    }
}

struct Root<'a> {
    layout: &'a Layout,
}

impl Root<'_> {
    /// The path of what is called so, when every directory on the way is one and leads nowhere else.
    fn reach(&self, name: &str, make: bool) -> Done<Option<PathBuf>> {
        let mut path = self.layout.root.clone();
        let mut parts = Path::new(name).components().peekable();
        while let Some(Component::Normal(part)) = parts.next() {
            path.push(part);
            if parts.peek().is_none() {
                break;
            }
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(LayoutError::NoDirectory { path }),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&path).map_err(|source| LayoutError::Io { path: path.clone(), source })?;
                }
                Err(source) => return Err(LayoutError::Io { path, source }),
            }
        }
        Ok(Some(path))
    }

    fn place(&self, name: &str) -> Done<PathBuf> {
        let nowhere = || LayoutError::NoDirectory { path: self.layout.root.join(name) };
        self.reach(name, true)?.ok_or_else(nowhere)
    }

    /// What an earlier machine had and this one may not. Nodes of instances that are not ours to make stay.
    fn clear(&self, first: bool) -> Done {
        for name in [CAPABILITY_NODES, "proc/driver/nvidia-caps", "proc/driver/nvidia", "sys/bus/pci/devices"] {
            if name == CAPABILITY_NODES && !first && !self.layout.instance_nodes {
                continue;
            }
            let Some(path) = self.reach(name, false)? else { continue };
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LayoutError::Io { path, source: error });
                }
                _ => {}
            }
        }
        let Some(devices) = self.reach("dev/any", false)?.and_then(|path| fs::read_dir(path.parent()?).ok()) else {
            return Ok(());
        };
        for device in devices.flatten() {
            let ours = device.file_name().to_string_lossy().starts_with("nvidia");
            if ours && !device.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_file(device.path()).map_err(|source| LayoutError::Io { path: device.path(), source })?;
            }
        }
        Ok(())
    }

    fn all(&self, world: &World) -> Done {
        self.put("proc/driver/nvidia-caps/mig-minors", &Entry::File(mig_minors()))?;
        entries(world, self.layout).iter().try_for_each(|(name, entry)| self.put(name, entry))
    }

    fn put(&self, name: &str, entry: &Entry) -> Done {
        let path = self.place(name)?;
        let failed = |source| LayoutError::Io { path: path.clone(), source };
        match entry {
            Entry::File(text) => write(&path, text).map_err(failed),
            Entry::Node { major, minor, mode } => self.node(&path, *major, *minor, *mode).map_err(failed),
        }
    }

    fn node(&self, path: &Path, major: u32, minor: u32, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        if !self.layout.plain_files {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor)) {
                // Not permitted to an ordinary user, nor in most containers: the name is what most clients look for.
                Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(rustix::fs::chmod(path, mode)?),
            }
        }
        write(path, "")
    }

    /// Takes a file away, and the directories of instances that are empty without it.
    fn remove(&self, name: &str) -> Done {
        let Some(path) = self.reach(name, false)? else { return Ok(()) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LayoutError::Io { path, source: error });
            }
            _ => {}
        }
        // An instance's own; those above it stay, as they do with a driver.
        let own = path.ancestors().skip(1).take_while(|folder| {
            let name = folder.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
            name.starts_with("gi") || name.starts_with("ci")
        });
        let _ = own.map(fs::remove_dir).take_while(Result::is_ok).count();
        Ok(())
    }
}

/// Whoever reads the file meanwhile reads the old text or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

/// Everything that depends on the machine.
fn entries(world: &World, layout: &Layout) -> Entries {
    let mut entries = Entries::new();
    let version = format!(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (fake-nvml)\nGCC version:  none\n",
        world.driver
    );
    for (name, text) in [
        ("proc/devices", DEVICES),
        ("proc/driver/nvidia/params", PARAMS),
        ("proc/driver/nvidia/version", &version),
        ("proc/driver/nvidia/capabilities/mig/config", &capability(1, 0o400)),
        ("proc/driver/nvidia/capabilities/mig/monitor", &capability(2, 0o444)),
    ] {
        entries.insert(name.to_owned(), Entry::File(text.to_owned()));
    }
    let mut node = |name: String, major, minor, mode| entries.insert(name, Entry::Node { major, minor, mode });
    node("dev/nvidiactl".to_owned(), NVIDIA, 255, 0o666);
    node("dev/nvidia-uvm".to_owned(), UVM, 0, 0o666);
    node("dev/nvidia-uvm-tools".to_owned(), UVM, 1, 0o666);
    node(format!("{CAPABILITY_NODES}/nvidia-cap1"), CAPS, 1, 0o400);
    node(format!("{CAPABILITY_NODES}/nvidia-cap2"), CAPS, 2, 0o444);
    for gpu in &world.gpus {
        node(format!("dev/nvidia{}", gpu.minor), NVIDIA, gpu.minor, 0o666);
    }
    for gpu in &world.gpus {
        of_gpu(world, gpu, layout, &mut entries);
    }
    entries
}

fn of_gpu(world: &World, gpu: &Gpu, layout: &Layout, entries: &mut Entries) {
    let pci = gpu.pci.short();
    entries.insert(format!("sys/bus/pci/devices/{pci}/numa_node"), Entry::File(format!("{}\n", gpu.numa)));
    if let Some(model) = world.model(gpu) {
        let information = format!(
            "Model: \t\t {}\nIRQ:   \t\t 41\nGPU UUID: \t {}\nVideo BIOS: \t {}\nBus Type: \t PCIe\nDMA Size: \t 52 bits\n\
             DMA Mask: \t 0xfffffffffffff\nBus Location: \t {pci}\nDevice Minor: \t {}\nGPU Firmware: \t {}\nGPU Excluded:\t No\n",
            model.name,
            gpu.uuid,
            model.vbios.to_lowercase(),
            gpu.minor,
            world.driver
        );
        entries.insert(format!("proc/driver/nvidia/gpus/{pci}/information"), Entry::File(information));
    }
    let mut capable = |file: String, minor| {
        entries.insert(file, Entry::File(capability(minor, 0o444)));
        if layout.instance_nodes {
            let node = Entry::Node { major: CAPS, minor, mode: 0o444 };
            entries.insert(format!("{CAPABILITY_NODES}/nvidia-cap{minor}"), node);
        }
    };
    for instance in &gpu.instances {
        let folder = format!("proc/driver/nvidia/capabilities/gpu{}/mig/gi{}", gpu.minor, instance.id);
        let minor = instance_minor(gpu.minor, instance.id);
        capable(format!("{folder}/access"), minor);
        for compute in &instance.compute {
            capable(format!("{folder}/ci{}/access", compute.id), minor + 1 + compute.id);
        }
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
