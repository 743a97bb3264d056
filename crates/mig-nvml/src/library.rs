//! Where the driver's library is.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const NAME: &str = "libnvidia-ml.so.1";

/// Below a driver root, in the order in which they are tried. Debian, Fedora, and what NVIDIA's containers use; the
/// last two are GKE's and Talos's.
const FOLDERS: [&str; 10] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "usr/lib",
    "usr/lib/nvidia",
    "home/kubernetes/bin/nvidia/lib64",
    "usr/local/glibc/usr/lib",
];

/// Where the GPU operator's driver container shows its root to the node.
const OPERATOR_ROOT: &str = "run/nvidia/driver";

/// What to hand to the dynamic loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Library {
    /// This very file.
    File(PathBuf),
    /// The loader shall look for it: `LD_LIBRARY_PATH`, its cache, its default folders.
    Loader,
}

/// No library to load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// The path that was asked for does not exist.
    #[error("there is no NVML library at {}: check --nvml-library", .0.display())]
    Absent(PathBuf),
    /// It ends too early.
    #[error(
        "the NVML library {} is cut short: it is being written, or the disk was full; install the driver again if this stays",
        .0.display()
    )]
    CutShort(PathBuf),
    /// It is there, or nowhere, and does not load.
    #[error("unable to load NVML: {reason}{searched}")]
    Unloadable {
        /// What the loader said.
        reason: String,
        /// Where we looked before, with an introduction.
        searched: String,
    },
}

impl Library {
    /// The given path, or the first that exists below the driver root, or the loader's choice.
    pub fn find(given: Option<&Path>, driver_root: &Path) -> Result<Self, LibraryError> {
        // The loader takes a name without a slash for one to look up, and not for a file in the working directory.
        let given = given.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let found = match given {
            Some(path) if path.is_file() => Some(path),
            Some(path) => return Err(LibraryError::Absent(path)),
            None => candidates(driver_root).find(|path| path.is_file()),
        };
        match found {
            // The loader maps what the headers promise, and a process that touches what is not there is killed.
            Some(path) if is_cut_short(&path) => Err(LibraryError::CutShort(path)),
            Some(path) => Ok(Self::File(path)),
            None => Ok(Self::Loader),
        }
    }

    /// What `dlopen` takes.
    pub(crate) fn to_loader(&self) -> OsString {
        match self {
            Self::File(path) => path.clone().into_os_string(),
            Self::Loader => NAME.into(),
        }
    }

    /// The error for a library that does not load.
    pub(crate) fn unloadable(&self, reason: String, driver_root: &Path) -> LibraryError {
        let mut searched = String::new();
        if *self == Self::Loader {
            let root = driver_root.display();
            let _ = write!(
                searched,
                " (nor is {NAME} in a usual folder below {root}: install NVIDIA's driver, or name its files by --nvidia-driver-root or --nvml-library)"
            );
        }
        LibraryError::Unloadable { reason, searched }
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Loader => write!(f, "{NAME} (wherever the loader finds it)"),
        }
    }
}

fn candidates(driver_root: &Path) -> impl Iterator<Item = PathBuf> {
    let roots = [driver_root.to_owned(), driver_root.join(OPERATOR_ROOT)];
    roots.into_iter().flat_map(|root| FOLDERS.map(|folder| root.join(folder).join(NAME)))
}

/// Whether an ELF file ends before its section headers, which linkers put last. What is no such file at all is left to
/// the loader, which says so.
fn is_cut_short(path: &Path) -> bool {
    let mut header = [0; 64];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut header)?;
        file.metadata()
    });
    let Ok(metadata) = read else { return false };
    let field = |at: usize, size: usize| {
        let bytes = header.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    // 64-bit, little-endian: all that NVIDIA builds for.
    let is_elf = header.starts_with(b"\x7fELF\x02\x01");
    let (headers, size, count) = (field(0x28, 8), field(0x3a, 2), field(0x3c, 2));
    is_elf && metadata.len() < headers.saturating_add(size * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str) -> PathBuf {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_hosts_driver_comes_before_the_operators() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Library::find(None, root.path()), Ok(Library::Loader));
        let operators = put(root.path(), "run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        assert_eq!(Library::find(None, root.path()), Ok(Library::File(operators)));
        let hosts = put(root.path(), "usr/lib64/libnvidia-ml.so.1");
        assert_eq!(Library::find(None, root.path()), Ok(Library::File(hosts)));
    }

    #[test]
    fn a_library_that_is_being_written_is_not_loaded() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("libnvidia-ml.so.1");
        for length in [64, 4096, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Library::find(Some(&path), root.path()), Err(LibraryError::CutShort(path.clone())), "{length}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Library::find(Some(&path), root.path()), Ok(Library::File(path)));
    }

    #[test]
    fn a_name_is_a_file_here_and_not_for_the_loader_to_find() {
        let here = std::env::current_dir().unwrap();
        let found = Library::find(Some(Path::new("Cargo.toml")), Path::new("/nowhere"));
        assert_eq!(found, Ok(Library::File(here.join("Cargo.toml"))));
    }

    #[test]
    fn a_given_path_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "usr/lib64/libnvidia-ml.so.1");
        let absent = root.path().join("mine.so");
        assert_eq!(Library::find(Some(&absent), root.path()), Err(LibraryError::Absent(absent.clone())));
        put(root.path(), "mine.so");
        assert_eq!(Library::find(Some(&absent), root.path()), Ok(Library::File(absent)));
    }
}
