//! The spec as a file: read once, written when it changes, never seen half-written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Spec;

/// As CDI's own library would call it.
const FILE: &str = "mig-agent-gpu.json";
/// A draft has an ending that no runtime reads.
const DRAFT: &str = ".mig-agent-gpu.draft";
/// 64 GPUs of seven slices are 150 kB.
const LONGEST: u64 = 16 << 20;

/// The spec cannot be put where container runtimes read it.
#[derive(Debug, thiserror::Error)]
#[error(
    "unable to write the CDI spec {}: is --cdi-dir a directory of the node, mounted read-write?",
    path.display()
)]
pub(crate) struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What is there is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It can be read, and is none.
    #[error(transparent)]
    NoSpec(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What an agent before this one wrote.
pub(crate) fn read(folder: &Path) -> Result<Option<Spec>, ReadError> {
    let mut text = Vec::new();
    match File::open(folder.join(FILE)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
        Ok(file) => file.take(LONGEST).read_to_end(&mut text)?,
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Whether the file is just this. What is longer, or never ends, is not read on.
fn is_there(path: &Path, text: &[u8]) -> bool {
    let mut before = Vec::new();
    let read = File::open(path).and_then(|file| file.take(text.len() as u64 + 1).read_to_end(&mut before));
    read.is_ok() && before == text
}

/// Puts the spec there, or takes it away when it has no device. Says whether anything had to be done.
pub(crate) fn write(folder: &Path, spec: &Spec) -> Result<bool, WriteError> {
    let path = folder.join(FILE);
    put(folder, &path, spec).map_err(|source| WriteError { path, source })
}

fn put(folder: &Path, path: &Path, spec: &Spec) -> io::Result<bool> {
    if spec.devices.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            outcome => outcome.map(|()| true),
        };
    }
    let text = serde_json::to_string(spec)? + "\n";
    if is_there(path, text.as_bytes()) {
        return Ok(false);
    }
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        // As for the file: container runtimes that are not root's look into it.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    // Two agents overlap during an upgrade. Where there are no locks, there is one.
    let held = File::open(folder)?;
    let _ = held.lock();
    let draft = folder.join(DRAFT);
    // Left by an agent that was killed; a link there is not followed.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
    // Whatever the umask: it holds no secret, and others than root run container engines too.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use driver_files::{Driver, Node};

    use super::*;
    use crate::cdi::Device;

    fn spec(ids: &[&str]) -> Spec {
        let node = Node { name: "nvidia0".to_owned(), major: 195, minor: 0 };
        let devices = ids.iter().map(|id| ((*id).to_owned(), Device::new(id, std::slice::from_ref(&node))));
        Spec::new(devices.collect::<BTreeMap<_, _>>(), &[], &Driver::default())
    }

    #[test]
    fn it_is_written_once_and_read_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/run/cdi");
        assert_eq!(read(&folder).unwrap(), None);
        let (one, two) = (spec(&["MIG-a"]), spec(&["MIG-a", "MIG-b"]));
        assert!(write(&folder, &one).unwrap());
        assert!(!write(&folder, &one).unwrap(), "it is there already");
        assert_eq!(read(&folder).unwrap(), Some(one));
        fs::write(folder.join(DRAFT), "half").unwrap();
        assert!(write(&folder, &two).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft stays");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o755, 0o644));
        fs::remove_file(folder.join(FILE)).unwrap();
        assert!(write(&folder, &two).unwrap(), "somebody took it away");
    }

    #[test]
    fn a_spec_without_devices_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &spec(&["MIG-a"])).unwrap();
        assert!(write(root.path(), &spec(&[])).unwrap());
        assert!(!write(root.path(), &spec(&[])).unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_spec_is_an_error_and_no_crash() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", "{\"devices\": 5}", "\u{0}"] {
            fs::write(root.path().join(FILE), text).unwrap();
            assert!(matches!(read(root.path()), Err(ReadError::NoSpec(_))));
        }
        // What never ends is none either, and makes room.
        fs::remove_file(root.path().join(FILE)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.path().join(FILE)).unwrap();
        assert!(matches!(read(root.path()), Err(ReadError::NoSpec(_))));
        assert!(write(root.path(), &spec(&["MIG-a"])).unwrap());
        assert_eq!(read(root.path()).unwrap(), Some(spec(&["MIG-a"])));
        fs::remove_file(root.path().join(FILE)).unwrap();
        fs::create_dir(root.path().join(FILE)).unwrap();
        assert!(matches!(read(root.path()), Err(ReadError::Io(_))), "what cannot be read may be one");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let error = write(&root.path().join("file/cdi"), &spec(&["MIG-a"])).unwrap_err().to_string();
        assert!(error.contains("file/cdi/mig-agent-gpu.json") && error.contains("--cdi-dir"), "{error}");
    }
}
