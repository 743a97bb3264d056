//! Which of the driver's files a container needs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fstat};

use crate::root::{Found, Root};

/// Folders of libraries below a driver root, in the order in which they are looked at: Debian, Fedora, and what NVIDIA's
/// containers use; then those of single platforms, see `docs/platforms.md`.
pub const LIBRARY_FOLDERS: [&str; 21] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "usr/lib",
    // Debian's own packages, where its alternatives are not set.
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
    // Bottlerocket.
    "usr/lib/nvidia",
    "usr/lib/nvidia/tesla",
    "x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia",
    "x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla",
    "aarch64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia",
    "aarch64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla",
    // GKE.
    "home/kubernetes/bin/nvidia/lib64",
    // Talos before 1.13.
    "usr/local/glibc/usr/lib",
    "usr/local/glibc/lib",
    "usr/local/glibc/lib64",
    // NixOS.
    "run/opengl-driver/lib",
    // Where the root is the folder itself.
    ".",
];

/// Where the GPU operator's driver container shows its root to the node.
pub const OPERATOR_ROOT: &str = "run/nvidia/driver";

/// What computes, what decodes and encodes video, and what looks after GPUs. MIG does no graphics, except on GPUs that
/// sell it by name, and those need more than libraries.
const LIBRARIES: [&str; 23] = [
    "cuda",
    "cudadebugger",
    "nvcuvid",
    "nvidia-allocator",
    "nvidia-api",
    "nvidia-cfg",
    "nvidia-compiler",
    "nvidia-compiler-next",
    "nvidia-encode",
    "nvidia-fatbinaryloader",
    "nvidia-gpucomp",
    "nvidia-ml",
    "nvidia-nscq",
    "nvidia-nvvm",
    "nvidia-nvvm70",
    "nvidia-opencl",
    "nvidia-opticalflow",
    "nvidia-pkcs11",
    "nvidia-pkcs11-openssl3",
    "nvidia-ptxjitcompiler",
    "nvidia-sandboxutils",
    "nvidia-tileiras",
    "nvoptix",
];
const PROGRAMS: [&str; 4] = ["nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"];
const PROGRAM_FOLDERS: [&str; 6] =
    ["usr/bin", "bin", "usr/local/bin", "opt/bin", "usr/lib/nvidia/current", "home/kubernetes/bin/nvidia/bin"];
/// How OpenCL's loader learns of the driver.
const OPENCL: &str = "etc/OpenCL/vendors/nvidia.icd";

/// In containers of the Debian family, and of the Red Hat family. The loader looks there without being told to, which is
/// why nothing has to be run in the container, see `docs/decisions/0007-cdi-without-hooks.md`.
#[cfg(target_arch = "aarch64")]
const CONTAINER_LIBRARY_FOLDERS: [&str; 2] = ["/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
#[cfg(not(target_arch = "aarch64"))]
const CONTAINER_LIBRARY_FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"];

/// The driver's files that a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// In the order of their paths in the container.
    pub files: Vec<Provided>,
}

/// One file, on the node and in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provided {
    /// Its path in the container.
    pub container: PathBuf,
    /// Its path on the node, links followed.
    pub node: PathBuf,
}

/// A file, or a directory with all that is in it, at the same path in the container; nothing if there is none.
pub fn shown(root: &Root, path: &str) -> Option<Provided> {
    let found = root.find(Path::new(path)).ok()?;
    let is_shown = found.is_plain() || root.below(path).is_ok();
    is_shown.then(|| Provided { container: Path::new("/").join(path), node: root.on_node(&found) })
}

/// No driver to give to containers.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The root itself.
    #[error("unable to open the driver root {}", root.display())]
    Root {
        /// As seen from here.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nothing in it.
    #[error(
        "there is neither libcuda.so.1 nor libnvidia-ml.so.1 in a usual folder below {}: is it the driver root (--nvidia-driver-root on the node, --container-driver-root here)?",
        .0.display()
    )]
    Empty(PathBuf),
}

impl Driver {
    /// The files below the driver root `seen` from here, which the node knows as `node`, or below the operator's root in
    /// it. Libraries with a version in their names are taken only if it is the running driver's.
    pub fn find(seen: &Path, node: &Path, version: &str) -> Result<Self, DriverError> {
        let root = Root::open(seen, node).map_err(|source| DriverError::Root { root: seen.to_owned(), source })?;
        let own = Self::in_root(&root, version);
        let found = own.or_else(|| Self::in_root(&root.below(OPERATOR_ROOT).ok()?, version));
        found.ok_or_else(|| DriverError::Empty(seen.to_owned()))
    }

    fn in_root(root: &Root, version: &str) -> Option<Self> {
        let libraries = libraries(root, version);
        if !libraries.keys().any(|name| name.starts_with("libcuda.so") || name.starts_with("libnvidia-ml.so")) {
            return None;
        }
        let mut files = Vec::new();
        for folder in CONTAINER_LIBRARY_FOLDERS {
            let in_folder = libraries.iter().map(|(name, path)| (Path::new(folder).join(name), path));
            files.extend(in_folder.map(|(container, path)| Provided { container, node: path.clone() }));
        }
        files.extend(PROGRAMS.iter().filter_map(|name| program(root, name)));
        if let Some(found) =
            root.find(Path::new(OPENCL)).ok().filter(|found| found.is_plain() && found.name() == "nvidia.icd")
        {
            files.push(Provided { container: Path::new("/").join(OPENCL), node: root.on_node(&found) });
        }
        files.sort();
        Some(Self { files })
    }
}

/// Each name by which a library is asked for, and the file that it leads to. Without `ldconfig` in the container, all
/// names have to be there: `libcuda.so.1` is no link in a container but the file itself once more.
fn libraries(root: &Root, version: &str) -> BTreeMap<String, PathBuf> {
    let mut libraries = BTreeMap::new();
    for folder in LIBRARY_FOLDERS {
        let Ok(names) = root.names(folder, |name| stem(name, version).is_some()) else { continue };
        for name in names {
            let Some(stem) = stem(&name, version) else { continue };
            if libraries.contains_key(&name) {
                continue;
            }
            let Ok(found) = root.find(&Path::new(folder).join(&name)) else { continue };
            // A link may lead to another name of the same library and to nothing else: what it leads to is shown to
            // every container.
            let same = found.name().strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"));
            if same && found.is_plain() && root.begins_with(&found, b"\x7fELF") {
                let file = root.on_node(&found);
                // Debian has the file itself in a folder of its own.
                if self::stem(found.name(), version).is_some() {
                    libraries.entry(found.name().to_owned()).or_insert_with(|| file.clone());
                }
                libraries.insert(name, file);
            }
        }
    }
    libraries
}

/// `libcuda` of `libcuda.so`, `libcuda.so.1` and `libcuda.so.580.95.05`, if that is the driver's version.
fn stem<'n>(name: &'n str, version: &str) -> Option<&'n str> {
    let (stem, rest) = name.split_once(".so")?;
    let known = stem.strip_prefix("lib").is_some_and(|name| LIBRARIES.contains(&name));
    let number = |text: &str| !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let wanted = rest.is_empty() || rest.strip_prefix('.').is_some_and(|rest| number(rest) || rest == version);
    (known && wanted).then_some(stem)
}

fn program(root: &Root, name: &str) -> Option<Provided> {
    PROGRAM_FOLDERS.iter().find_map(|folder| {
        let found = root.find(&Path::new(folder).join(name)).ok()?;
        let runs = found.is_plain() && found.name() == name && is_executable(&found);
        runs.then(|| Provided { container: Path::new("/usr/bin").join(name), node: root.on_node(&found) })
    })
}

fn is_executable(found: &Found) -> bool {
    fstat(&found.file)
        .is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const ELF: &str = "\u{7f}ELF and so on";

    fn put(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(root: &Path, to: &str, file: &str) {
        symlink(to, root.join(file)).unwrap();
    }

    /// As lines: path in the container, path on the node; only one of the container's library folders.
    fn found(root: &Path, version: &str) -> Vec<String> {
        let driver = Driver::find(root, Path::new("/node"), version).unwrap();
        let (own, other) = (CONTAINER_LIBRARY_FOLDERS[0], CONTAINER_LIBRARY_FOLDERS[1]);
        let in_other = driver.files.iter().filter(|file| file.container.starts_with(other)).count();
        let in_own = driver.files.iter().filter(|file| file.container.starts_with(own)).count();
        assert_eq!(in_own, in_other);
        let line = |file: &Provided| format!("{} {}", file.container.display(), file.node.display());
        driver.files.iter().filter(|file| !file.container.starts_with(own)).map(line).collect()
    }

    #[test]
    fn every_name_of_a_library_is_the_file_itself() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        put(at, "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05", ELF);
        link(at, "libcuda.so.580.95.05", "usr/lib/x86_64-linux-gnu/libcuda.so.1");
        link(at, "libcuda.so.1", "usr/lib/x86_64-linux-gnu/libcuda.so");
        put(at, "usr/lib/x86_64-linux-gnu/libnvidia-gpucomp.so.580.95.05", ELF);
        // Debian's: through /etc/alternatives.
        put(at, "usr/lib/nvidia/current/libnvidia-ml.so.580.95.05", ELF);
        fs::create_dir_all(at.join("etc/alternatives")).unwrap();
        link(at, "/usr/lib/nvidia/current/libnvidia-ml.so.580.95.05", "etc/alternatives/nvml");
        link(at, "/etc/alternatives/nvml", "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        // Another driver's remains, other people's libraries, what is no library at all.
        put(at, "usr/lib/x86_64-linux-gnu/libnvidia-nvvm.so.570.11.01", ELF);
        put(at, "usr/lib/x86_64-linux-gnu/libcudart.so.12", ELF);
        put(at, "usr/lib/x86_64-linux-gnu/libnvidia-opencl.so.1", "INPUT(libsomething.so)");
        put(at, "usr/bin/nvidia-smi", "#!");
        fs::set_permissions(at.join("usr/bin/nvidia-smi"), fs::Permissions::from_mode(0o755)).unwrap();
        put(at, "usr/bin/nvidia-debugdump", "not executable");
        put(at, "etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n");
        let gnu = "/node/usr/lib/x86_64-linux-gnu";
        assert_eq!(
            found(at, "580.95.05"),
            [
                "/etc/OpenCL/vendors/nvidia.icd /node/etc/OpenCL/vendors/nvidia.icd".to_owned(),
                "/usr/bin/nvidia-smi /node/usr/bin/nvidia-smi".to_owned(),
                format!("/usr/lib64/libcuda.so {gnu}/libcuda.so.580.95.05"),
                format!("/usr/lib64/libcuda.so.1 {gnu}/libcuda.so.580.95.05"),
                format!("/usr/lib64/libcuda.so.580.95.05 {gnu}/libcuda.so.580.95.05"),
                format!("/usr/lib64/libnvidia-gpucomp.so.580.95.05 {gnu}/libnvidia-gpucomp.so.580.95.05"),
                "/usr/lib64/libnvidia-ml.so.1 /node/usr/lib/nvidia/current/libnvidia-ml.so.580.95.05".to_owned(),
                "/usr/lib64/libnvidia-ml.so.580.95.05 /node/usr/lib/nvidia/current/libnvidia-ml.so.580.95.05"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn the_operators_root_is_a_root_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "run/nvidia/driver/opt/libcuda.so.580", ELF);
        fs::create_dir_all(root.path().join("run/nvidia/driver/usr/lib64")).unwrap();
        link(root.path(), "/opt/libcuda.so.580", "run/nvidia/driver/usr/lib64/libcuda.so.1");
        let file = "/node/run/nvidia/driver/opt/libcuda.so.580";
        assert_eq!(
            found(root.path(), "580"),
            ["libcuda.so.1", "libcuda.so.580"].map(|name| format!("/usr/lib64/{name} {file}"))
        );
    }

    #[test]
    fn a_hostile_root_shows_nothing_of_the_host() {
        let outer = tempfile::tempdir().unwrap();
        put(outer.path(), "host/libcuda.so.1", ELF);
        let at = outer.path().join("root");
        put(&at, "usr/lib64/libnvidia-ml.so.1", ELF);
        put(&at, "etc/shadow", ELF);
        link(&at, "../../../host/libcuda.so.1", "usr/lib64/libcuda.so.1");
        link(&at, outer.path().join("host/libcuda.so.1").to_str().unwrap(), "usr/lib64/libcuda.so");
        link(&at, "/etc/shadow", "usr/lib64/libnvidia-cfg.so.1");
        link(&at, "libnvidia-nvvm.so.4", "usr/lib64/libnvidia-nvvm.so.4");
        link(&at, "/dev/zero", "usr/lib64/libnvidia-opencl.so.1");
        fs::create_dir(at.join("usr/lib64/libnvidia-encode.so.1")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at.join("usr/lib64/libnvcuvid.so.1"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        link(&at, "/etc/shadow", "usr/lib64/nvidia.icd");
        for n in 10..30_000 {
            fs::write(at.join(format!("usr/lib64/libnvidia-ml.so.{n}")), "").unwrap();
        }
        assert_eq!(found(&at, "580"), ["/usr/lib64/libnvidia-ml.so.1 /node/usr/lib64/libnvidia-ml.so.1"]);
    }

    #[test]
    fn without_a_driver_it_is_said_where_it_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let error = Driver::find(root.path(), Path::new("/"), "580").unwrap_err().to_string();
        assert!(error.contains(root.path().to_str().unwrap()) && error.contains("--container-driver-root"), "{error}");
        Driver::find(&root.path().join("none"), Path::new("/"), "580").unwrap_err();
    }
}
