//! Where the driver's library is.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use driver_files::{LIBRARY_FOLDERS, OPERATOR_ROOT, Root};

const NAME: &str = "libnvidia-ml.so.1";

/// What to hand to the dynamic loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Library {
    /// This very file.
    File(PathBuf),
    /// The loader shall look for it: `LD_LIBRARY_PATH`, its cache, its default folders.
    Loader,
}

/// By which a file is known again.
type Identity = (u64, u64, i64, i64);

/// The file of a library that was loaded, where that is known.
#[derive(Debug)]
pub(crate) struct Loaded {
    file: Option<(PathBuf, Identity)>,
}

impl Loaded {
    /// Whether there is another library now. While it is being replaced there is none for a moment: the old one goes on.
    pub(crate) fn was_replaced(&self, given: Option<&Path>, driver_root: &Path) -> bool {
        let Some((_, identity)) = &self.file else { return false };
        // Not only the file that was loaded: the old one may stay, and a link lead to another one now.
        match Library::find(given, driver_root) {
            Ok(Library::File(now)) => {
                let is_another = identity_of(&now).is_some_and(|now| now != *identity);
                is_another && examine(&now).is_ok()
            }
            _ => false,
        }
    }
}

fn identity_of(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
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
    /// Some other file has its name.
    #[error(
        "{} is no library{}: install the driver again, or name the right file by --nvml-library",
        path.display(),
        if *empty { ", it is empty" } else { "" }
    )]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// There is nothing in it.
        empty: bool,
    },
    /// It is for another kind of processor.
    #[error(
        "the NVML library {} is for {theirs} processors, and this program for {}: take the image, or the driver root, that is meant for this node",
        path.display(),
        std::env::consts::ARCH
    )]
    Foreign {
        /// The library.
        path: PathBuf,
        /// Whose it is.
        theirs: String,
    },
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
    /// The given path, or the first below the driver root that can be it, or the loader's choice.
    pub fn find(given: Option<&Path>, driver_root: &Path) -> Result<Self, LibraryError> {
        // The loader takes a name without a slash for one to look up, and not for a file in the working directory.
        let given = given.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        if let Some(path) = given {
            return if path.is_file() {
                examine(&path).map(|()| Self::File(path))
            } else {
                Err(LibraryError::Absent(path))
            };
        }
        let mut unfit = None;
        for path in candidates(driver_root) {
            match examine(&path) {
                Ok(()) => return Ok(Self::File(path)),
                // Beside a 64-bit driver there are often its libraries for 32-bit programs.
                Err(LibraryError::Foreign { theirs, .. }) if NARROW.contains(&theirs.as_str()) => {}
                Err(error) => {
                    unfit.get_or_insert(error);
                }
            }
        }
        unfit.map_or(Ok(Self::Loader), Err)
    }

    /// Its file, as it is now: to be asked before it is loaded, so that no change is missed.
    pub(crate) fn file(&self) -> Loaded {
        let path = match self {
            Self::File(path) => path,
            Self::Loader => return Loaded { file: None },
        };
        Loaded { file: identity_of(path).map(|identity| (path.clone(), identity)) }
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
            let _ = if driver_root.is_dir() {
                write!(
                    searched,
                    " (nor is {NAME} in a usual folder below {root}: install NVIDIA's driver, or name its files by --nvidia-driver-root or --nvml-library)"
                )
            } else {
                write!(
                    searched,
                    " (and there is no directory {root}: name the driver's root by --nvidia-driver-root, and in a container, where it is mounted, by --container-driver-root)"
                )
            };
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

/// Files of that name, links followed as they are for those who live in the root: a driver's container, or a node that is
/// mounted here, has links that begin with `/`.
fn candidates(driver_root: &Path) -> impl Iterator<Item = PathBuf> {
    let roots = [driver_root.to_owned(), driver_root.join(OPERATOR_ROOT)];
    roots.into_iter().flat_map(|path| {
        let root = Root::open(&path, &path).ok();
        LIBRARY_FOLDERS.into_iter().filter_map(move |folder| {
            let file = Path::new(folder).join(NAME);
            let found = root.as_ref()?.find(&file);
            match found {
                Ok(found) => Some(path.join(found.inside)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                // Kernels before 5.6 know no such way to follow links, and some sandboxes forbid it.
                Err(_) => Some(path.join(file)),
            }
            .filter(|path| path.is_file())
        })
    })
}

/// What the ELF header says of processors, by names that Rust has for them.
const MACHINES: [(u16, &str); 6] =
    [(3, "x86"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (21, "powerpc64"), (243, "riscv64")];
/// Those whose programs run beside 64-bit ones.
const NARROW: [&str; 2] = ["x86", "arm"];

/// What the loader would say in words that help nobody, or would not survive.
fn examine(path: &Path) -> Result<(), LibraryError> {
    let mut header = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        file.take(64).read_to_end(&mut header)?;
        Ok(length)
    });
    // Who may not read it is told so by the loader.
    let Ok(length) = read else { return Ok(()) };
    if !header.starts_with(b"\x7fELF") {
        return Err(LibraryError::NotALibrary { path: path.to_owned(), empty: length == 0 });
    }
    let field = |at: usize, size: usize| {
        let bytes = header.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let machine = field(0x12, 2);
    let known = MACHINES.iter().find(|(number, _)| u64::from(*number) == machine).map(|(_, name)| *name);
    let mine = MACHINES.iter().any(|(_, name)| *name == std::env::consts::ARCH);
    if mine && header.len() >= 0x14 && known != Some(std::env::consts::ARCH) {
        let theirs = known.map_or_else(|| format!("other (ELF machine {machine})"), str::to_owned);
        return Err(LibraryError::Foreign { path: path.to_owned(), theirs });
    }
    // The loader maps what the headers promise, and a process that touches what is not there is killed. Linkers put the
    // sections' headers last. 64-bit, little-endian: all that NVIDIA builds for.
    let (headers, size, count) = (field(0x28, 8), field(0x3a, 2), field(0x3c, 2));
    let whole = header.len() == 64 && length >= headers.saturating_add(size * count);
    if whole { Ok(()) } else { Err(LibraryError::CutShort(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with nothing in it, for a kind of processor.
    fn library(arch: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (machine, _) = MACHINES.iter().find(|(_, name)| *name == arch).unwrap();
        bytes[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    fn put_bytes(root: &Path, file: &str, bytes: &[u8]) -> PathBuf {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn put(root: &Path, file: &str) -> PathBuf {
        put_bytes(root, file, &library(std::env::consts::ARCH))
    }

    fn link(root: &Path, to: &str, from: &str) {
        let path = root.join(from);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
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

    /// `docs/platforms.md` has these places, and where they were read.
    #[test]
    fn every_platforms_place_is_looked_at() {
        for place in [
            "usr/lib64",
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu/nvidia/current",
            "usr/lib/nvidia/tesla",
            "x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia",
            "home/kubernetes/bin/nvidia/lib64",
            "usr/local/glibc/usr/lib",
            "usr/local/glibc/lib",
            "run/opengl-driver/lib",
            "run/nvidia/driver/usr/lib64",
            "run/nvidia/driver/usr/lib/aarch64-linux-gnu",
        ] {
            let root = tempfile::tempdir().unwrap();
            let library = put(root.path(), &format!("{place}/libnvidia-ml.so.1"));
            assert_eq!(Library::find(None, root.path()), Ok(Library::File(library)), "{place}");
        }
        // GKE's folder as the root itself.
        let root = tempfile::tempdir().unwrap();
        let library = put(root.path(), "lib64/libnvidia-ml.so.1");
        assert_eq!(Library::find(None, root.path()), Ok(Library::File(library)));
    }

    /// A node's root, mounted in a container: Debian's alternatives are links that begin with `/`.
    #[test]
    fn links_are_followed_within_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("driver-root");
        let real = put(&root, "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.535.183.01");
        link(&root, "libnvidia-ml.so.535.183.01", "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1");
        link(&root, "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1", "etc/alternatives/libnvidia-ml.so.1");
        link(&root, "/etc/alternatives/libnvidia-ml.so.1", "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        assert_eq!(Library::find(None, &root), Ok(Library::File(real)));

        // Bottlerocket, NixOS and others have folders that are links; and a link that leads out leads nowhere.
        let root = outer.path().join("other");
        let real = put(&root, "nix/store/abc-nvidia/lib/libnvidia-ml.so.1");
        link(&root, "/nix/store/abc-nvidia", "run/opengl-driver");
        put(outer.path(), "outside/libnvidia-ml.so.1");
        link(&root, "../../../../outside/libnvidia-ml.so.1", "usr/lib64/libnvidia-ml.so.1");
        assert_eq!(Library::find(None, &root), Ok(Library::File(real)));
    }

    #[test]
    fn what_cannot_be_the_library_is_told_and_passed_over_for_one_that_can() {
        let root = tempfile::tempdir().unwrap();
        let find = || Library::find(None, root.path());
        let (theirs, narrow) = if std::env::consts::ARCH == "x86_64" { ("aarch64", "x86") } else { ("x86_64", "arm") };
        // Libraries for 32-bit programs are nothing to speak of.
        put_bytes(root.path(), "usr/lib/libnvidia-ml.so.1", &library(narrow));
        assert_eq!(find(), Ok(Library::Loader));
        let path = put_bytes(root.path(), "usr/lib64/libnvidia-ml.so.1", &library(theirs));
        let message = find().unwrap_err().to_string();
        assert!(message.contains(&format!("is for {theirs} processors")), "{message}");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(find(), Err(LibraryError::NotALibrary { path: path.clone(), empty: false }));
        std::fs::write(&path, "").unwrap();
        let message = find().unwrap_err().to_string();
        assert!(message.contains("is no library, it is empty"), "{message}");
        let good = put(root.path(), "lib64/libnvidia-ml.so.1");
        assert_eq!(find(), Ok(Library::File(good)));
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
        assert_eq!(found, Err(LibraryError::NotALibrary { path: here.join("Cargo.toml"), empty: false }));
    }

    #[test]
    fn a_library_in_another_ones_place_is_noticed_once_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = put(root.path(), "usr/lib64/libnvidia-ml.so.1");
        let loaded = Library::find(None, root.path()).unwrap().file();
        let replaced = || loaded.was_replaced(None, root.path());
        assert!(!replaced());
        std::fs::remove_file(&path).unwrap();
        assert!(!replaced(), "there is no other yet");
        put_bytes(root.path(), "usr/lib64/libnvidia-ml.so.1", &library(std::env::consts::ARCH)[..20]);
        assert!(!replaced(), "it is being written");
        put(root.path(), "usr/lib64/libnvidia-ml.so.1");
        assert!(replaced());
        std::fs::remove_file(&path).unwrap();
        put(root.path(), "lib64/libnvidia-ml.so.1");
        assert!(replaced(), "elsewhere will do");
        assert!(!Library::Loader.file().was_replaced(None, root.path()));
    }

    /// As where each version of the driver has a folder of its own.
    #[test]
    fn a_link_that_leads_to_another_library_is_noticed_though_the_old_one_stays() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "usr/lib64/libnvidia-ml.so.580");
        put(root.path(), "usr/lib64/libnvidia-ml.so.595");
        let link = root.path().join("usr/lib64/libnvidia-ml.so.1");
        std::os::unix::fs::symlink("libnvidia-ml.so.580", &link).unwrap();
        let loaded = Library::find(None, root.path()).unwrap().file();
        assert!(!loaded.was_replaced(None, root.path()));
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("libnvidia-ml.so.595", &link).unwrap();
        assert!(loaded.was_replaced(None, root.path()));
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
