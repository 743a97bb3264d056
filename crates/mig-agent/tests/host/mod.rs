//! A node with the driver's files, real ones where device nodes can be made.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use fake_nvml::{Layout, copy_library, lay_out};
use kubelet_sim::ContainerAllocation;
use serde_json::Value;

use crate::node::{Agent, DEADLINE, Node, fake_library, skip};

pub(crate) const TWO: &str = "gpus: [{model: A100-SXM4-40GB, instances: [{profile: 3g.20gb}, {profile: 1g.5gb}]}]";

/// A node, and the driver's files on it.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) root: PathBuf,
}

impl Host {
    pub(crate) fn new(node: Node) -> Self {
        let root = node.path("root");
        let host = Self { node, root };
        host.lay_out(true);
        copy_library(&host.root, &fake_library()).unwrap();
        host
    }

    pub(crate) fn lay_out(&self, instance_nodes: bool) {
        let layout = Layout { root: self.root.clone(), plain_files: false, instance_nodes };
        lay_out(&self.node.world(), &layout).unwrap();
    }

    /// The agent sees the driver's root at a path that the node knows under another name, as in a container.
    pub(crate) fn agent(&self, strategies: &str, more: &[&str]) -> Agent {
        let (root, proc, cdi) = (self.root.to_str().unwrap(), self.root.join("proc"), self.cdi());
        let strategies = format!("--device-list-strategy={strategies}");
        let arguments = [
            strategies.as_str(),
            "--nvidia-driver-root=/run/nvidia/driver",
            "--container-driver-root",
            root,
            "--proc-root",
            proc.to_str().unwrap(),
            "--cdi-dir",
            cdi.to_str().unwrap(),
        ];
        self.node.agent(&[&arguments, more].concat())
    }

    pub(crate) fn cdi(&self) -> PathBuf {
        self.node.path("var/run/cdi")
    }

    pub(crate) fn spec(&self) -> Value {
        serde_json::from_slice(&fs::read(self.cdi().join("mig-agent-gpu.json")).unwrap()).unwrap()
    }

    /// By name, the paths and numbers of each device's own nodes.
    pub(crate) fn devices(&self) -> BTreeMap<String, Vec<String>> {
        let spec = self.spec();
        let node = |node: &Value| format!("{} {}:{}", node["path"].as_str().unwrap(), node["major"], node["minor"]);
        let nodes =
            |device: &Value| device["containerEdits"]["deviceNodes"].as_array().unwrap().iter().map(node).collect();
        let devices = spec["devices"].as_array().unwrap().iter();
        devices.map(|device| (device["name"].as_str().unwrap().to_owned(), nodes(device))).collect()
    }

    /// The minors that the driver's own tree has for each slice, by UUID.
    pub(crate) fn minors(&self) -> BTreeMap<String, [String; 2]> {
        let tree = self.root.join("proc/driver/nvidia/capabilities");
        let minor = |file: PathBuf| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().next().unwrap().trim_start_matches("DeviceFileMinor: ").to_owned()
        };
        let mut minors = BTreeMap::new();
        for gpu in &self.node.world().gpus {
            for instance in &gpu.instances {
                let folder = tree.join(format!("gpu{}/mig/gi{}", gpu.minor, instance.id));
                for compute in &instance.compute {
                    let own = folder.join(format!("ci{}/access", compute.id));
                    minors.insert(compute.uuid.clone(), [minor(folder.join("access")), minor(own)]);
                }
            }
        }
        minors
    }
}

pub(crate) fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<BTreeSet<T>>().into_iter().collect()
}

pub(crate) fn paths(container: &ContainerAllocation) -> Vec<&str> {
    sorted(container.devices.iter().map(|device| device.container_path.as_str()))
}

/// Somebody who is not root cannot make device nodes, and what needs them is not tried.
pub(crate) fn makes_nodes(host: &Host) -> bool {
    let made = fs::metadata(host.root.join("dev/nvidiactl")).unwrap().file_type().is_char_device();
    if !made {
        skip("device nodes cannot be made here");
    }
    made
}

pub(crate) async fn wait_for(is: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !is() {
        assert!(std::time::Instant::now() < deadline, "it did not come to be");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
