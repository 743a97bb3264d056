//! A node's pretended driver: put where programs look for one, kept while this runs, taken away when it ends.
//!
//! Whoever comes second for the same directory takes it over, and the first one then leaves it alone: that is how a
//! DaemonSet replaces its pod without the driver being gone meanwhile.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use fake_nvml::{Layout, STATE, Store, StoreError, library_folder};
use rustix::fs::{FlockOperation, flock};
use signal_hook::{consts, iterator::Signals};

use super::{Arguments, Done, Failure, replace};

/// Below a root, where drivers put their library.
const FOLDERS: [&str; 5] = ["usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64", "usr/lib"];
const GUIDE: &str = "\
This node has a pretended NVIDIA driver. To change its GPUs while programs use them, for example:
  fake-nvml show                                      what there is
  fake-nvml xid 48 --gpu 0                            the driver reports an XID error of GPU 0
  fake-nvml lose-gpu 1; fake-nvml restore-gpu 1       a GPU falls off the bus, and comes back
  fake-nvml fault add --call nvmlDeviceGetMigMode --returns UNKNOWN; fake-nvml fault clear
  fake-nvml fault add --call nvmlDeviceGetCount_v2 --delay never    the driver hangs
  fake-nvml process add --gpu 0 --pid 4711            somebody uses a GPU
  fake-nvml set $FAKE_NVML_SCENE                      as it was at first
On Kubernetes each is run by `kubectl exec POD -- COMMAND`; without more, `fake-nvml help` lists them all.
";

#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// The directory that stands for the driver's root, on its own or as a mount of the node's
    #[arg(long, value_name = "DIR", env = "FAKE_NVML_ROOT")]
    root: PathBuf,
    /// The library to put there
    #[arg(long, value_name = "PATH")]
    library: PathBuf,
    /// Make plain files in place of device nodes, as is done anyway where mknod is not permitted
    #[arg(long)]
    plain_files: bool,
}

/// The one who looks after a directory holds this open: whoever takes it over puts another one there.
struct Owner {
    path: PathBuf,
    file: File,
}

impl Node {
    pub(super) fn run(&self, arguments: &Arguments) -> Done {
        let Some(scene) = &arguments.scene else {
            return Err(Failure::Usage("no scene: give --scene FILE or set FAKE_NVML_SCENE".to_owned()));
        };
        // From the beginning: as a container's first process it hears no signal that it does not ask for.
        let io = |error| Failure::Io(self.root.clone(), error);
        let mut signals = Signals::new([consts::SIGTERM, consts::SIGINT]).map_err(io)?;
        let root = std::path::absolute(&self.root).map_err(io)?;
        let layout = Layout { root: root.clone(), plain_files: self.plain_files, instance_nodes: true };
        let (store, owner) = self.settle(&layout, scene)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{} is laid out as the scene {} says.\n", root.display(), scene.display())?;
        write!(out, "{GUIDE}")?;
        out.flush()?;
        drop(out);
        signals.forever().next();
        leave(&layout, store, &owner)
    }

    /// Makes the directory as the scene says, or as it was left if it was of this very scene.
    fn settle(&self, layout: &Layout, scene: &Path) -> Done<(Store, Owner)> {
        let root = &layout.root;
        let text = fs::read(scene).map_err(|error| Failure::Io(scene.to_owned(), error))?;
        // A broken one costs nothing that there is.
        fake_nvml::load(scene, 1)?;
        fs::create_dir_all(root).map_err(|error| Failure::Io(root.clone(), error))?;
        let _turn = turn(root)?;
        let state = state(root);
        refuse_another_driver(root, &state)?;
        let create = || fake_nvml::load(scene, 1).map_err(|error| StoreError::Scene(error.to_string()));
        let copy = state.join("scene.yaml");
        let of_before = fs::read(&copy).ok();
        let (store, _, _) = match Store::open(&state, create) {
            Err(StoreError::Foreign { .. } | StoreError::Gone { .. }) => {
                fs::remove_dir_all(&state).map_err(|error| Failure::Io(state.clone(), error))?;
                Store::open(&state, create)?
            }
            opened => opened?,
        };
        if of_before.is_some_and(|before| before != text) {
            replace(&store, scene)?;
        }
        fs::write(&copy, text).map_err(|error| Failure::Io(copy.clone(), error))?;
        fake_nvml::copy_library(root, &self.library)?;
        store.lay_out(layout)?;
        let owner = Owner::take(state.join("owner"))?;
        Ok((store, owner))
    }
}

/// Takes everything away, unless somebody else has taken over.
fn leave(layout: &Layout, store: Store, owner: &Owner) -> Done {
    let _turn = turn(&layout.root)?;
    let mut out = io::stdout().lock();
    if !owner.is_still() {
        writeln!(out, "{} is left to another one.", layout.root.display())?;
        return Ok(());
    }
    store.retire()?;
    fake_nvml::take_away(layout)?;
    writeln!(out, "{} is as it was.", layout.root.display())?;
    Ok(())
}

/// Where the machine of this driver root is.
pub(super) fn state(root: &Path) -> PathBuf {
    root.join(library_folder()).join(STATE)
}

/// Held until the file is closed: one comes or goes at a time.
fn turn(root: &Path) -> Done<File> {
    let locked = File::open(root).and_then(|file| {
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    locked.map_err(|error| Failure::Io(root.to_owned(), error))
}

fn refuse_another_driver(root: &Path, state: &Path) -> Done {
    if root.canonicalize().is_ok_and(|path| path.parent().is_none()) {
        return Err(Failure::Layout(fake_nvml::LayoutError::OwnFiles));
    }
    let libraries = FOLDERS.iter().map(|folder| root.join(folder).join("libnvidia-ml.so.1"));
    let others = libraries.filter(|path| !(state.exists() && path.parent() == state.parent()));
    match others.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Failure::Node(format!(
            "{} is another driver's: nothing was changed; name a directory for the pretended one alone by --root",
            path.display()
        ))),
        None => Ok(()),
    }
}

pub(super) fn is_ready(root: &Path) -> Done {
    let path = state(root).join("owner");
    match fs::read(&path) {
        Ok(name) if name == host_name() => Ok(()),
        Ok(_) => Err(Failure::Node(format!("{} is looked after by another one", root.display()))),
        Err(error) => Err(Failure::Io(path, error)),
    }
}

/// A pod's own name.
fn host_name() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_owned()
}

impl Owner {
    fn take(path: PathBuf) -> Done<Self> {
        let draft = path.with_extension("new");
        let file = fs::write(&draft, host_name())
            .and_then(|()| File::open(&draft))
            .and_then(|file| fs::rename(&draft, &path).map(|()| file));
        match file {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Failure::Io(path, error)),
        }
    }

    fn is_still(&self) -> bool {
        let identity = |data: fs::Metadata| (data.dev(), data.ino());
        let there = fs::symlink_metadata(&self.path).map(identity);
        matches!((there, self.file.metadata().map(identity)), (Ok(there), Ok(ours)) if there == ours)
    }
}
