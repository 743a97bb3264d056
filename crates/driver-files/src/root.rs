//! A directory that stands for `/`, as it is for those who were installed in it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// More than any folder of libraries has; one with more is looked at in part.
const MOST_ENTRIES: usize = 1_000_000;
/// A rename somewhere on the way makes the kernel give up.
const ATTEMPTS: usize = 8;

/// A directory seen from here and from the node. Links are followed as if it were `/`: they never lead out of it.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Where it really is, from here.
    real: PathBuf,
    node: PathBuf,
}

/// What a path leads to when all links are followed.
#[derive(Debug)]
pub struct Found {
    /// Without the root: `usr/lib64/libcuda.so.580.95.05`.
    pub inside: PathBuf,
    pub(crate) file: OwnedFd,
}

impl Root {
    /// The directory `seen` from here, which the node knows as `node`.
    pub fn open(seen: &Path, node: &Path) -> io::Result<Self> {
        let folder = openat(CWD, seen, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let real = name_of(&folder)?;
        let root = Self { folder, real, node: node.to_owned() };
        // Here, where it is clear what is missing: later every file would seem to be.
        root.entry(Path::new(".")).map_err(explained)?;
        Ok(root)
    }

    /// A directory within as a root of its own.
    pub fn below(&self, path: &str) -> io::Result<Self> {
        let folder = self.look(Path::new(path), OFlags::PATH | OFlags::DIRECTORY)?;
        let real = name_of(&folder)?;
        Ok(Self { folder, real, node: self.node.join(path) })
    }

    /// Where the node has what was found here.
    pub fn on_node(&self, found: &Found) -> PathBuf {
        self.node.join(&found.inside)
    }

    /// Where the node has this root.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// What is at this path. Nothing is opened for reading: a device or a pipe is left alone.
    pub fn find(&self, path: &Path) -> io::Result<Found> {
        let file = self.look(path, OFlags::PATH)?;
        let real = name_of(&file)?;
        let outside = || io::Error::new(io::ErrorKind::NotFound, "it was moved out of the root");
        let inside = real.strip_prefix(&self.real).map_err(|_| outside())?.to_owned();
        Ok(Found { inside, file })
    }

    /// What is at this path itself, a link not followed.
    pub(crate) fn entry(&self, path: &Path) -> io::Result<OwnedFd> {
        self.look(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens a directory for `..at` calls.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.look(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Those names in a directory that are wanted, in order.
    pub(crate) fn names(&self, path: &str, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let entries = Dir::new(self.directory(Path::new(path))?)?;
        let mut names = Vec::new();
        for entry in entries.take(MOST_ENTRIES) {
            let entry = entry?;
            names.extend(entry.file_name().to_str().ok().filter(|name| wanted(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The first bytes of a plain file that was found.
    pub(crate) fn begins_with(&self, found: &Found, bytes: &[u8]) -> bool {
        // Not waiting for anybody, should it have become a pipe meanwhile.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let Ok(file) = self.look(&found.inside, flags) else { return false };
        if !is_plain(&file) {
            return false;
        }
        let mut start = vec![0; bytes.len()];
        rustix::io::read(&file, &mut start[..]).is_ok_and(|read| read == bytes.len()) && start == bytes
    }

    fn look(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match openat2(&self.folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) if attempts < ATTEMPTS => {}
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// What a kernel, or a container's filter of system calls, that is older than `openat2` says to it.
fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "openat2 is refused ({error}): files below a root are found by it, which takes Linux 5.6 and a container runtime that lets it through"
            ),
        ),
        _ => error,
    }
}

impl Found {
    /// Whether it is a file, and not a device, a pipe or a directory.
    pub(crate) fn is_plain(&self) -> bool {
        is_plain(&self.file)
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &str {
        self.inside.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

fn is_plain(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// How the kernel calls an open file.
fn name_of(file: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_within() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("root");
        fs::create_dir_all(inner.join("etc")).unwrap();
        fs::create_dir_all(inner.join("lib")).unwrap();
        fs::write(outer.path().join("secret"), "the host's").unwrap();
        fs::write(inner.join("etc/secret"), "the root's own").unwrap();
        symlink("/etc/secret", inner.join("lib/absolute")).unwrap();
        symlink("../../../../../etc/secret", inner.join("lib/relative")).unwrap();
        symlink("../../secret", inner.join("lib/out")).unwrap();
        symlink("loop", inner.join("lib/loop")).unwrap();
        let root = Root::open(&inner, Path::new("/run/nvidia/driver")).unwrap();
        for link in ["lib/absolute", "/lib/relative"] {
            let found = root.find(Path::new(link)).unwrap();
            assert_eq!(root.on_node(&found), Path::new("/run/nvidia/driver/etc/secret"));
            assert!(root.begins_with(&found, b"the root"));
        }
        // There is no /secret in it.
        assert_eq!(root.find(Path::new("lib/out")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.find(Path::new("lib/loop")).unwrap_err().raw_os_error(), Some(40));
        assert!(root.find(Path::new("../secret")).is_err());
    }

    #[test]
    fn an_old_kernel_is_named() {
        let said = |code| explained(io::Error::from_raw_os_error(code)).to_string();
        assert!(said(38).contains("Linux 5.6") && said(1).contains("Linux 5.6"));
        assert!(!said(2).contains("Linux"));
    }

    #[test]
    fn the_machines_own_root_will_do() {
        let root = Root::open(Path::new("/"), Path::new("/")).unwrap();
        let found = root.find(Path::new("proc/self/mounts")).unwrap();
        assert!(found.is_plain());
        assert!(root.on_node(&found).is_absolute());
    }

    #[test]
    fn a_link_to_the_root_is_a_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        fs::write(folder.path().join("real/file"), "").unwrap();
        symlink("real", folder.path().join("link")).unwrap();
        let root = Root::open(&folder.path().join("link"), Path::new("/")).unwrap();
        assert_eq!(root.find(Path::new("file")).unwrap().inside, Path::new("file"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::open(folder.path(), Path::new("/")).unwrap();
        let found = root.find(Path::new("pipe")).unwrap();
        assert!(!found.is_plain());
        assert!(!root.begins_with(&found, b"x"));
    }
}
