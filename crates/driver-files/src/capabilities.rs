//! Numbers of device nodes, which the kernel gives at run time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A driver lists 4,322 capabilities in 100 kB.
const LONGEST: u64 = 4 << 20;

/// The driver's files in `/proc` don't say what they should.
#[derive(Debug, thiserror::Error)]
pub enum NumbersError {
    /// A file that cannot be read.
    #[error("unable to read {}{hint}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What that means.
        hint: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A major that is not there.
    #[error("{} has no nvidia device: is the kernel's driver loaded, and is --proc-root the node's /proc?", .0.display())]
    NoDriver(PathBuf),
}

/// The majors of the driver's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Majors {
    /// Of GPUs, `nvidiactl` and `nvidia-modeset`.
    pub gpu: u32,
    /// Of `nvidia-uvm`, once that module is loaded.
    pub uvm: Option<u32>,
    /// Of `nvidia-caps/*`, where the driver knows MIG.
    pub capabilities: Option<u32>,
}

impl Majors {
    /// From `devices` below `/proc`.
    pub fn read(proc_root: &Path) -> Result<Self, NumbersError> {
        let path = proc_root.join("devices");
        let text = read(&path, ": is --proc-root the node's /proc?")?;
        let characters = text.lines().take_while(|line| !line.starts_with("Block devices"));
        let pairs: HashMap<&str, u32> = characters
            .filter_map(|line| line.trim().split_once(' '))
            .filter_map(|(major, name)| Some((name.trim(), major.parse().ok()?)))
            .collect();
        let major = |names: &[&str]| names.iter().find_map(|name| pairs.get(name)).copied();
        let gpu = major(&["nvidia", "nvidia-frontend"]).ok_or(NumbersError::NoDriver(path))?;
        Ok(Self { gpu, uvm: major(&["nvidia-uvm"]), capabilities: major(&["nvidia-caps"]) })
    }
}

/// The minors of `nvidia-caps/nvidia-cap*`, for every instance that there could be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigMinors {
    minors: HashMap<Instance, u32>,
}

/// The GPU's minor, the GPU instance, and the compute instance if it is one.
type Instance = (u32, u32, Option<u32>);

impl MigMinors {
    /// From `driver/nvidia-caps/mig-minors` below `/proc`.
    pub fn read(proc_root: &Path) -> Result<Self, NumbersError> {
        let path = proc_root.join("driver/nvidia-caps/mig-minors");
        let text = read(&path, ": MIG needs a driver that has it, R450 or later")?;
        Ok(Self { minors: text.lines().filter_map(entry).collect() })
    }

    /// The nodes that a container needs for a compute instance: the GPU instance's and its own.
    pub fn of(&self, gpu_minor: u32, gpu_instance: u32, compute_instance: u32) -> Option<[u32; 2]> {
        let of = |compute| self.minors.get(&(gpu_minor, gpu_instance, compute)).copied();
        Some([of(None)?, of(Some(compute_instance))?])
    }
}

/// `gpu0/gi1/access 12` or `gpu0/gi1/ci0/access 13`.
fn entry(line: &str) -> Option<(Instance, u32)> {
    let (path, minor) = line.split_once(' ')?;
    let mut parts = path.split('/');
    let mut number = |word: &str| parts.next()?.strip_prefix(word)?.parse::<u32>().ok();
    let (gpu, instance) = (number("gpu")?, number("gi")?);
    let compute = match parts.next()? {
        "access" => None,
        part => Some(part.strip_prefix("ci")?.parse().ok()?),
    };
    Some(((gpu, instance, compute), minor.trim().parse().ok()?))
}

fn read(path: &Path, hint: &'static str) -> Result<String, NumbersError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|source| NumbersError::Unreadable { path: path.to_owned(), hint, source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(file: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        root
    }

    #[test]
    fn majors_are_the_kernels() {
        let open = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n235 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n 99 nvidia-uvm\n";
        let majors = Majors::read(proc("devices", open).path()).unwrap();
        assert_eq!(majors, Majors { gpu: 195, uvm: Some(511), capabilities: Some(235) });
        let older = Majors::read(proc("devices", "Character devices:\n195 nvidia-frontend\n").path()).unwrap();
        assert_eq!(older, Majors { gpu: 195, uvm: None, capabilities: None });
    }

    #[test]
    fn without_a_driver_the_error_says_what_to_look_at() {
        let error = Majors::read(proc("devices", "Character devices:\n  1 mem\n").path()).unwrap_err().to_string();
        assert!(error.contains("is the kernel's driver loaded"), "{error}");
        let none = proc("other", "");
        assert!(Majors::read(none.path()).unwrap_err().to_string().contains("--proc-root"));
        assert!(MigMinors::read(none.path()).unwrap_err().to_string().contains("R450"));
    }

    #[test]
    fn both_nodes_of_a_slice_are_found() {
        let text = "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu1/gi5/access 183\ngpu1/gi5/ci7/access 191\ngpu2/gi/access x\n\ngpu3\n";
        let minors = MigMinors::read(proc("driver/nvidia-caps/mig-minors", text).path()).unwrap();
        assert_eq!(minors.of(0, 0, 0), Some([3, 4]));
        assert_eq!(minors.of(1, 5, 7), Some([183, 191]));
        assert_eq!(minors.of(1, 5, 0), None);
        assert_eq!(minors.of(2, 0, 0), None);
    }
}
