//! The CDI spec by which a container runtime gives devices to containers without NVIDIA's own runtime.
//!
//! Only nodes, mounts and one variable: no hook, which is to say that nothing of ours runs in the container's namespaces.
//! See `docs/decisions/0007-cdi-without-hooks.md`.

use std::collections::{BTreeMap, BTreeSet};

use driver_files::{Driver, Node};
use serde::{Deserialize, Serialize};

pub(crate) mod store;

/// Vendor and class. Not NVIDIA's: their toolkit writes specs of its own, and two specs that name the same device cancel
/// each other out.
const KIND: &str = "mig-agent/gpu";
/// The first that takes a device's name that begins with a digit, and older than every runtime that has CDI switched on.
const VERSION: &str = "0.5.0";

const CAPABILITIES: &str = "/dev/nvidia-caps/";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    cdi_version: String,
    kind: String,
    pub(crate) devices: Vec<Device>,
    /// What a container gets once, whichever and how many of the devices it has.
    container_edits: Edits,
}

/// One device, by its UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<DeviceNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount>,
}

/// With its numbers, so that the runtime need not find the node on the host: nobody may have made it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DeviceNode {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
    permissions: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// What a device is called after `mig-agent/gpu=`. The ids of old drivers have slashes, which names must not.
pub(crate) fn name(id: &str) -> String {
    id.replace('/', "_")
}

/// What container runtimes are told.
pub(crate) fn qualified_name(id: &str) -> String {
    format!("{KIND}={}", name(id))
}

impl Spec {
    /// Devices by name. A spec without any is not valid.
    pub(crate) fn new(devices: BTreeMap<String, Device>, common: &[Node], driver: &Driver) -> Self {
        let mounts = driver.files.iter().map(|file| Mount {
            host_path: file.node.display().to_string(),
            container_path: file.container.display().to_string(),
            options: ["ro", "nosuid", "nodev", "bind"].map(str::to_owned).to_vec(),
        });
        let container_edits = Edits {
            // Where NVIDIA's runtime is the default one it reads this: the image may ask for all GPUs in it.
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()],
            device_nodes: common.iter().map(DeviceNode::from).collect(),
            mounts: mounts.collect(),
        };
        Self {
            cdi_version: VERSION.to_owned(),
            kind: KIND.to_owned(),
            devices: devices.into_values().collect(),
            container_edits,
        }
    }
}

impl Device {
    pub(crate) fn new(id: &str, nodes: &[Node]) -> Self {
        let container_edits = Edits { device_nodes: nodes.iter().map(DeviceNode::from).collect(), ..Edits::default() };
        Self { name: name(id), container_edits }
    }

    /// The capability nodes among its own.
    pub(crate) fn capabilities(&self) -> impl Iterator<Item = &str> {
        let paths = self.container_edits.device_nodes.iter().map(|node| node.path.as_str());
        paths.filter(|path| path.starts_with(CAPABILITIES))
    }

    /// The same without nodes that are another's by now: the driver gives a destroyed slice's to the next one in its place.
    pub(crate) fn without(mut self, taken: &BTreeSet<String>) -> Self {
        self.container_edits.device_nodes.retain(|node| !taken.contains(&node.path));
        self
    }
}

impl From<&Node> for DeviceNode {
    fn from(node: &Node) -> Self {
        Self {
            path: node.path(),
            kind: "c".to_owned(),
            major: node.major,
            minor: node.minor,
            permissions: "rw".to_owned(),
        }
    }
}
