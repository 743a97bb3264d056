//! Device nodes below a directory: whether they are what they should be, and making those that nobody has made.
//!
//! The driver makes no nodes by itself. `nvidia-modprobe` does, when somebody with its right touches a GPU or an instance,
//! and for a slice that was just cut that may be nobody before the first container needs it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, fstat, major, makedev, minor, mkdirat, mknodat, unlinkat};
use rustix::io::Errno;

use crate::root::Root;

/// A character device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Below `/dev`: `nvidia0`, `nvidia-caps/nvidia-cap12`.
    pub name: String,
    /// Of the driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl Node {
    /// Where containers look for it.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

/// A node that a container cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Neither there nor ours to make.
    #[error("{} is missing: run nvidia-modprobe or nvidia-smi on the node", .0.display())]
    Missing(PathBuf),
    /// It is there, and something else.
    #[error("{} is not device {major}:{minor}: remove it, and run nvidia-smi on the node", path.display())]
    Another {
        /// Which.
        path: PathBuf,
        /// What it should be.
        major: u32,
        /// What it should be.
        minor: u32,
    },
    /// It is not there, and we may not make it.
    #[error(
        "{} is missing, and it cannot be made: {source}; either run nvidia-smi on the node, or give the agent CAP_MKNOD and the node's /dev mounted read-write",
        path.display()
    )]
    Unmade {
        /// Which.
        path: PathBuf,
        /// What the system said. Part of the message, as it says which of the two is lacking.
        source: Errno,
    },
    /// Something else went wrong.
    #[error("unable to look at {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Whether the node is there as it should be, below `dev` of the root; makes it if it may be made, which only nodes of
/// capabilities may.
pub fn provide(root: &Root, node: &Node, make: Option<u32>) -> Result<(), NodeError> {
    let path = Path::new("dev").join(&node.name);
    let on_node = root.node().join(&path);
    match root.entry(&path) {
        Ok(found) if node.is(&found) => Ok(()),
        Ok(_) if make.is_none() => Err(NodeError::Another { path: on_node, major: node.major, minor: node.minor }),
        Ok(_) => node.make(root, &path, make.unwrap_or_default(), true).map_err(|source| match source {
            // A directory, or not ours to remove.
            Errno::ISDIR | Errno::PERM | Errno::ACCESS | Errno::ROFS => {
                NodeError::Another { path: on_node, major: node.major, minor: node.minor }
            }
            source => NodeError::Unmade { path: on_node, source },
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match make {
            None => Err(NodeError::Missing(on_node)),
            Some(mode) => {
                node.make(root, &path, mode, false).map_err(|source| NodeError::Unmade { path: on_node, source })
            }
        },
        Err(source) => Err(NodeError::Unreadable { path: on_node, source }),
    }
}

/// The character devices in a folder below `dev` that are wanted, whatever their numbers are.
pub fn present(root: &Root, folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<Node> {
    let within = Path::new("dev").join(folder);
    let names = within.to_str().and_then(|path| root.names(path, wanted).ok()).unwrap_or_default();
    let node = |name: String| {
        let stat = fstat(root.entry(&within.join(&name)).ok()?).ok()?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        is_device.then(|| Node { name, major: major(stat.st_rdev), minor: minor(stat.st_rdev) })
    };
    names.into_iter().filter_map(node).collect()
}

impl Node {
    fn is(&self, found: &OwnedFd) -> bool {
        fstat(found).is_ok_and(|stat| {
            let device = (major(stat.st_rdev), minor(stat.st_rdev));
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (self.major, self.minor)
        })
    }

    /// Makes it, in place of what is there: after the driver was loaded anew its majors may be others.
    fn make(&self, root: &Root, path: &Path, mode: u32, replace: bool) -> Result<(), Errno> {
        let missing = |error: io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let folder = match root.directory(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dev = root.directory(Path::new("dev")).map_err(missing)?;
                let inner = folder.file_name().unwrap_or(OsStr::new(""));
                match mkdirat(&dev, inner, Mode::from_raw_mode(0o755)) {
                    Ok(()) => rustix::fs::chmodat(&dev, inner, Mode::from_raw_mode(0o755), AtFlags::empty())?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                root.directory(folder).map_err(missing)?
            }
            found => found.map_err(missing)?,
        };
        if replace {
            unlinkat(&folder, name, AtFlags::empty())?;
        }
        let mode = Mode::from_raw_mode(mode);
        match mknodat(&folder, name, FileType::CharacterDevice, mode, makedev(self.major, self.minor)) {
            // The agent's own umask is strict.
            Ok(()) => rustix::fs::chmodat(&folder, name, mode, AtFlags::empty()),
            // Somebody else was faster.
            Err(Errno::EXIST) if !replace => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

    use super::*;

    fn capability(minor: u32) -> Node {
        Node { name: format!("nvidia-caps/nvidia-cap{minor}"), major: 241, minor }
    }

    fn dev() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dev")).unwrap();
        let root = Root::open(folder.path(), Path::new("/")).unwrap();
        (folder, root)
    }

    #[test]
    fn what_is_not_ours_to_make_is_named() {
        let (folder, root) = dev();
        let gpu = Node { name: "nvidia0".to_owned(), major: 195, minor: 0 };
        let error = provide(&root, &gpu, None).unwrap_err().to_string();
        assert!(error.starts_with("/dev/nvidia0 is missing"), "{error}");
        for wrong in ["file", "link"] {
            let path = folder.path().join("dev/nvidia0");
            match wrong {
                "file" => fs::write(&path, "").unwrap(),
                _ => symlink("/dev/null", &path).unwrap(),
            }
            let error = provide(&root, &gpu, None).unwrap_err().to_string();
            assert!(error.starts_with("/dev/nvidia0 is not device 195:0"), "{error}");
            fs::remove_file(path).unwrap();
        }
    }

    /// Only root may make nodes; without it, the refusal is what is seen.
    #[test]
    fn missing_capabilities_are_made_where_that_is_permitted() {
        let (folder, root) = dev();
        let path = folder.path().join("dev/nvidia-caps/nvidia-cap12");
        match provide(&root, &capability(12), Some(0o444)) {
            Ok(()) => {
                let made = fs::metadata(&path).unwrap();
                assert!(made.file_type().is_char_device());
                assert_eq!((made.rdev(), made.mode() & 0o777), (makedev(241, 12), 0o444));
                provide(&root, &capability(12), Some(0o444)).unwrap();
                // Loaded anew, the driver has another major.
                let moved = Node { major: 240, ..capability(12) };
                provide(&root, &moved, Some(0o444)).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().rdev(), makedev(240, 12));
            }
            Err(error) => {
                assert!(!rustix::process::geteuid().is_root(), "{error}");
                assert!(error.to_string().contains("CAP_MKNOD"), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_in_its_place_is_left_alone() {
        let (folder, root) = dev();
        let path = folder.path().join("dev/nvidia-caps/nvidia-cap12");
        fs::create_dir_all(&path).unwrap();
        let error = provide(&root, &capability(12), Some(0o444)).unwrap_err().to_string();
        assert!(error.contains("is not device 241:12"), "{error}");
        assert!(path.is_dir());
    }
}
