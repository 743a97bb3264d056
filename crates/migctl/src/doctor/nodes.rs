//! Files in `/dev`: what programs reach GPUs and instances by.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::{Finding, Places, Told, listed};

/// What has to be in `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Below `/dev`.
    name: String,
    /// For which instance it is, where it is for one.
    what: String,
    /// Where `/proc/devices` says.
    major: Option<u32>,
    minor: u32,
    /// The permissions that the driver says, where it says them.
    mode: Option<u32>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Missing,
    Unreadable(String),
    NoDevice,
    Device { major: u32, minor: u32, mode: u32 },
}

/// `nvidiactl`, `nvidia-uvm`, and one for each GPU.
pub(super) fn devices(places: &Places<'_>, told: Option<&Told<'_>>) -> Finding {
    const CHECK: &str = "device-nodes";
    let majors = majors(places);
    let major = |names: &[&str]| names.iter().find_map(|name| majors.get(*name)).copied();
    let node =
        |name: String, major: Option<u32>, minor: u32| Wanted { name, what: String::new(), major, minor, mode: None };
    let front = major(&["nvidiactl", "nvidia-frontend", "nvidia"]);
    let mut wanted = vec![node("nvidiactl".to_owned(), front, 255)];
    let minors = told.iter().flat_map(|told| &told.gpus).filter_map(|gpu| gpu.gpu.minor);
    wanted.extend(minors.map(|minor| node(format!("nvidia{minor}"), major(&["nvidia", "nvidia-frontend"]), minor)));
    wanted.push(node("nvidia-uvm".to_owned(), major(&["nvidia-uvm"]), 0));
    let count = wanted.len();
    match amiss(places, &wanted).as_slice() {
        [] => Finding::ok(CHECK, format!("{count} are as they should be")),
        wrong => Finding::problem(CHECK, listed(wrong))
            .advice("make them: nvidia-modprobe -c 0 -u, or run nvidia-smi as root (nvidia-uvm: modprobe nvidia-uvm)")
            .advice("in a container, mount the host's /dev, or give it the devices"),
    }
}

/// Those of MIG as such, and of each instance.
pub(super) fn capabilities(places: &Places<'_>, told: Option<&Told<'_>>) -> Finding {
    const CHECK: &str = "capability-nodes";
    let major = majors(places).get("nvidia-caps").copied();
    let wanted = listed_by_driver(places, major).or_else(|| told.and_then(|told| by_minors(places, told, major)));
    let Some(wanted) = wanted else {
        let proc = places.context.options.proc_root.display();
        let message =
            format!("neither {proc}/driver/nvidia/capabilities nor {proc}/driver/nvidia-caps/mig-minors is to be seen");
        return Finding::skipped(CHECK, message);
    };
    let count = wanted.len();
    match amiss(places, &wanted).as_slice() {
        [] => Finding::ok(CHECK, format!("{count} are as they should be")),
        wrong => Finding::problem(CHECK, listed(wrong))
            .advice("run nvidia-smi as root: it makes missing nodes; wrong ones have to be removed before")
            .advice("until then, containers cannot use these instances"),
    }
}

/// What is wrong, a few words each.
fn amiss(places: &Places<'_>, wanted: &[Wanted]) -> Vec<String> {
    wanted.iter().filter_map(|wanted| fault(wanted, &node_at(&places.host("dev").join(&wanted.name)))).collect()
}

fn fault(wanted: &Wanted, node: &Node) -> Option<String> {
    let name = match wanted.what.as_str() {
        "" => wanted.name.clone(),
        what => format!("{} ({what})", wanted.name),
    };
    match node {
        Node::Missing => Some(format!("{name} is missing")),
        Node::Unreadable(why) => Some(format!("{name} cannot be looked at: {why}")),
        Node::NoDevice => Some(format!("{name} is no device")),
        Node::Device { major, minor, .. }
            if wanted.major.is_some_and(|wanted| wanted != *major) || *minor != wanted.minor =>
        {
            let expected = wanted.major.map_or_else(|| "?".to_owned(), |major| major.to_string());
            Some(format!("{name} is device {major}:{minor}, not {expected}:{}", wanted.minor))
        }
        Node::Device { mode, .. } => match wanted.mode {
            Some(wanted) if wanted & !mode & 0o777 != 0 => {
                Some(format!("{name} has mode {mode:04o}, not {wanted:04o}"))
            }
            _ => None,
        },
    }
}

fn node_at(path: &Path) -> Node {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_char_device() => {
            let device = metadata.rdev();
            Node::Device {
                major: rustix::fs::major(device),
                minor: rustix::fs::minor(device),
                mode: metadata.mode() & 0o777,
            }
        }
        Ok(_) => Node::NoDevice,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Node::Missing,
        Err(error) => Node::Unreadable(error.to_string()),
    }
}

/// The majors of character devices, by name.
fn majors(places: &Places<'_>) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(places.proc("devices")).unwrap_or_default();
    let characters = text.lines().take_while(|line| !line.starts_with("Block devices"));
    let pair = |line: &str| {
        let (major, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), major.parse().ok()?))
    };
    characters.filter_map(pair).collect()
}

/// From the tree that the driver keeps of the instances that there are: no NVML is needed for it.
fn listed_by_driver(places: &Places<'_>, major: Option<u32>) -> Option<Vec<Wanted>> {
    let tree = places.proc("driver/nvidia/capabilities");
    let mut wanted = Vec::new();
    for name in ["config", "monitor"] {
        wanted.extend(capability(&tree.join("mig").join(name), &format!("mig/{name}"), major));
    }
    for (gpu, folder) in folders(&tree, "gpu") {
        for (instance, folder) in folders(&folder.join("mig"), "gi") {
            let what = format!("gpu{gpu}/gi{instance}");
            wanted.extend(capability(&folder.join("access"), &what, major));
            for (compute, folder) in folders(&folder, "ci") {
                wanted.extend(capability(&folder.join("access"), &format!("{what}/ci{compute}"), major));
            }
        }
    }
    (!wanted.is_empty()).then_some(wanted)
}

/// Folders whose names are this word and a number, by number.
fn folders(parent: &Path, word: &str) -> Vec<(u32, std::path::PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let numbered = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix(word)?.parse().ok()?;
        Some((number, entry.path()))
    };
    let mut folders: Vec<_> = entries.flatten().filter_map(numbered).collect();
    folders.sort();
    folders
}

/// `DeviceFileMinor: 21`, `DeviceFileMode: 292`.
fn capability(file: &Path, what: &str, major: Option<u32>) -> Option<Wanted> {
    let text = fs::read_to_string(file).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u32>().ok())
    };
    let minor = value("DeviceFileMinor")?;
    Some(Wanted { name: node_name(minor), what: what.to_owned(), major, minor, mode: value("DeviceFileMode") })
}

fn node_name(minor: u32) -> String {
    format!("nvidia-caps/nvidia-cap{minor}")
}

/// From the list of every minor that there could be, for the instances that NVML tells of.
fn by_minors(places: &Places<'_>, told: &Told<'_>, major: Option<u32>) -> Option<Vec<Wanted>> {
    let text = fs::read_to_string(places.proc("driver/nvidia-caps/mig-minors")).ok()?;
    let pair = |line: &'_ str| {
        line.split_once(' ').and_then(|(name, minor)| Some((name.to_owned(), minor.trim().parse().ok()?)))
    };
    let minors: BTreeMap<String, u32> = text.lines().filter_map(pair).collect();
    let wanted = |key: String, what: String| {
        let minor = *minors.get(&key)?;
        Some(Wanted { name: node_name(minor), what, major, minor, mode: None })
    };
    let mut all: Vec<Wanted> =
        ["config", "monitor"].into_iter().filter_map(|name| wanted(name.to_owned(), format!("mig/{name}"))).collect();
    for gpu in told.gpus.iter().map(|survey| &survey.gpu) {
        let Some(minor) = gpu.minor else { continue };
        for instance in &gpu.instances {
            let what = format!("gpu{minor}/gi{}", instance.id);
            all.extend(wanted(format!("{what}/access"), what.clone()));
            for compute in &instance.compute_instances {
                let what = format!("{what}/ci{}", compute.id);
                all.extend(wanted(format!("{what}/access"), what.clone()));
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_the_wanted_device_with_at_least_its_mode() {
        let wanted = Wanted {
            name: "nvidia-caps/nvidia-cap21".to_owned(),
            what: "gpu0/gi2".to_owned(),
            major: Some(241),
            minor: 21,
            mode: Some(0o444),
        };
        let device = |major, minor, mode| Node::Device { major, minor, mode };
        for (node, expected) in [
            (device(241, 21, 0o444), None),
            (device(241, 21, 0o666), None),
            (device(241, 21, 0o400), Some("has mode 0400, not 0444")),
            (device(240, 21, 0o444), Some("is device 240:21, not 241:21")),
            (device(241, 22, 0o444), Some("is device 241:22, not 241:21")),
            (Node::Missing, Some("is missing")),
            (Node::NoDevice, Some("is no device")),
            (Node::Unreadable("denied".to_owned()), Some("cannot be looked at: denied")),
        ] {
            let expected = expected.map(|words| format!("nvidia-caps/nvidia-cap21 (gpu0/gi2) {words}"));
            assert_eq!(fault(&wanted, &node), expected, "{node:?}");
        }
        let unknown = Wanted { major: None, mode: None, ..wanted };
        assert_eq!(fault(&unknown, &device(7, 21, 0)), None);
    }
}
