//! What a container receives for its devices, by the ways that are switched on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use kubelet::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount};
use mig_model::{Profile, ResourceName};

pub(crate) mod extra;
pub(crate) mod gift;
pub(crate) mod strategy;

use extra::Extra;
use gift::Offered;
use strategy::{DeviceIdStrategy, DeviceListStrategy, PreferredAllocation, SharedAllocation};

use crate::cdi;

/// NVIDIA's container runtime reads this one.
const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
/// Where NVIDIA's container runtime looks for mounts that name devices.
const MOUNTS: &str = "/var/run/nvidia-container-devices";
/// A key of an annotation has at most 63 characters after its prefix, `mig-agent_` among them.
const LONGEST_KEY: usize = 63;
const KEY_BEGINS: &str = "mig-agent_";

/// What every container gets, whatever it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// By which ways devices are told to the container's runtime.
    pub list_strategies: Vec<DeviceListStrategy>,
    /// By what NVIDIA's container runtime is told a device.
    pub id_strategy: DeviceIdStrategy,
    /// Variables that get the list of the container's devices.
    pub visible_devices_env: Vec<String>,
    /// Whether device nodes go through the kubelet too: for containers that NVIDIA's runtime does not start.
    pub pass_device_specs: bool,
    /// What stands before the name of a CDI annotation.
    pub cdi_annotation_prefix: String,
    /// What goes with the GPUs.
    pub extras: Vec<Extra>,
    /// Which devices the kubelet is advised to take.
    pub preferred: PreferredAllocation,
    /// Which shares of devices that are shared.
    pub shared: SharedAllocation,
    /// Where the driver's files are.
    pub files: Files,
}

/// Where the driver's files are, from here and on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The driver root, as the node sees it.
    pub driver_root: PathBuf,
    /// The same, from here.
    pub driver_root_here: PathBuf,
    /// The directory with the node's `dev`, as the node sees it; the driver root if that has one, or `/`.
    pub dev_root: Option<PathBuf>,
    /// The same, from here.
    pub dev_root_here: Option<PathBuf>,
    /// Where `/proc` is, from here.
    pub proc_root: PathBuf,
    /// Where the container runtime reads CDI specs, from here.
    pub cdi_dir: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            driver_root: "/".into(),
            driver_root_here: "/".into(),
            dev_root: None,
            dev_root_here: None,
            proc_root: "/proc".into(),
            cdi_dir: "/var/run/cdi".into(),
        }
    }
}

impl Default for ContainerSettings {
    fn default() -> Self {
        Self {
            list_strategies: vec![DeviceListStrategy::Envvar],
            id_strategy: DeviceIdStrategy::Uuid,
            visible_devices_env: vec!["CUDA_VISIBLE_DEVICES".to_owned(), NVIDIA.to_owned()],
            pass_device_specs: false,
            cdi_annotation_prefix: "cdi.k8s.io/".to_owned(),
            extras: Vec::new(),
            preferred: PreferredAllocation::Packed,
            shared: SharedAllocation::Distributed,
            files: Files::default(),
        }
    }
}

impl ContainerSettings {
    fn has(&self, strategy: DeviceListStrategy) -> bool {
        self.list_strategies.contains(&strategy)
    }

    /// Whether anything on disk has to be made ready for containers.
    pub(crate) fn touches_files(&self) -> bool {
        self.writes_cdi() || self.passes_nodes()
    }

    /// Whether a CDI spec is needed.
    pub(crate) fn writes_cdi(&self) -> bool {
        self.list_strategies.iter().any(|strategy| strategy.is_cdi())
    }

    /// Whether device nodes go through the kubelet. Where CDI alone is used they are in its spec.
    pub(crate) fn passes_nodes(&self) -> bool {
        self.pass_device_specs && !self.list_strategies.iter().all(|strategy| strategy.is_cdi())
    }

    /// Whether a container with devices of two resources reaches all of them; else only those that one variable names.
    pub(crate) fn reaches_all(&self) -> bool {
        self.writes_cdi() || self.passes_nodes() || self.has(DeviceListStrategy::VolumeMounts)
    }

    /// The variables that name devices, and so those of one resource only.
    pub(crate) fn naming_variables(&self) -> impl Iterator<Item = &str> {
        let told = self.has(DeviceListStrategy::Envvar) && !self.has(DeviceListStrategy::VolumeMounts);
        self.visible_devices_env.iter().map(String::as_str).filter(move |name| *name != NVIDIA || told)
    }

    /// What a container gets for these devices of one resource.
    ///
    /// The kubelet asks once per resource and keeps one value per variable, so a container with devices of two resources
    /// finds both only in the variables that carry a name of each, and in what has a key for each device.
    pub(crate) fn answer(&self, resource: &ResourceName, offered: &[&Offered]) -> ContainerAllocateResponse {
        // Two replicas of a device are one device.
        let mut seen = BTreeSet::new();
        let offered: Vec<&Offered> =
            offered.iter().copied().filter(|offered| seen.insert(&offered.device.uuid)).collect();
        let offered = offered.as_slice();
        let mut answer = ContainerAllocateResponse { envs: self.variables(resource, offered), ..Default::default() };
        if self.has(DeviceListStrategy::VolumeMounts) {
            answer.envs.insert(NVIDIA.to_owned(), MOUNTS.to_owned());
            let mount = |offered: &&Offered| Mount {
                container_path: format!("{MOUNTS}/{}", offered.gift.visible),
                host_path: "/dev/null".to_owned(),
                read_only: false,
            };
            answer.mounts = offered.iter().map(mount).collect();
        }
        if self.passes_nodes() {
            answer.devices = nodes(offered);
        }
        if self.writes_cdi() {
            let names: Vec<String> = offered.iter().map(|offered| cdi::qualified_name(&offered.device.uuid)).collect();
            if let Some(first) = offered.first().filter(|_| self.has(DeviceListStrategy::CdiAnnotations)) {
                answer.annotations.insert(self.annotation(&first.device.id.replace("::", ".")), names.join(","));
            }
            if self.has(DeviceListStrategy::CdiCri) {
                answer.cdi_devices = names.into_iter().map(|name| CdiDevice { name }).collect();
            }
        }
        answer
    }

    fn variables(&self, resource: &ResourceName, offered: &[&Offered]) -> HashMap<String, String> {
        let uuids = || offered.iter().map(|offered| offered.device.uuid.as_str()).collect::<Vec<_>>().join(",");
        let visible = || offered.iter().map(|offered| offered.gift.visible.as_str()).collect::<Vec<_>>().join(",");
        let mut variables = HashMap::new();
        for name in &self.visible_devices_env {
            match name.as_str() {
                // Told so, NVIDIA's runtime would add the devices that CDI adds already.
                NVIDIA if !self.has(DeviceListStrategy::Envvar) => None,
                NVIDIA => variables.insert(name.clone(), visible()),
                // CUDA knows MIG devices by their UUIDs only.
                _ => variables.insert(name.clone(), uuids()),
            };
        }
        let mut named: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for Offered { device, .. } in offered {
            if let Some(profile) = &device.profile {
                named.entry(profile.variable_suffix()).or_default().push(&device.uuid);
                if let Some(suffix) = own_suffix(resource, profile) {
                    named.entry(suffix).or_default().push(&device.uuid);
                }
            }
        }
        // CDI's names say all there is to say, and NVIDIA's runtime would add the same a second time.
        if !self.list_strategies.iter().all(|strategy| strategy.is_cdi()) {
            variables.extend(self.extras.iter().map(|extra| (extra.variable().to_owned(), "enabled".to_owned())));
        }
        variables.extend(named.into_iter().map(|(suffix, ids)| (format!("MIG_DEVICES_{suffix}"), ids.join(","))));
        variables
    }

    /// One that no other answer for the same container has: a device is given once.
    fn annotation(&self, id: &str) -> String {
        let name = cdi::name(id);
        let end = name.get(name.len().saturating_sub(LONGEST_KEY - KEY_BEGINS.len())..).unwrap_or(&name);
        format!("{}{KEY_BEGINS}{end}", self.cdi_annotation_prefix)
    }
}

/// What follows `MIG_DEVICES_` where a resource is not the only one of its devices' profile: it is shared, or has a name from
/// the configuration.
fn own_suffix(resource: &ResourceName, profile: &Profile) -> Option<String> {
    let name = resource.name();
    let rest = name.strip_prefix("mig-").and_then(|name| name.strip_prefix(&profile.resource_suffix()));
    let suffix = match (rest, name) {
        (Some(""), _) | (_, "gpu" | "gpu.shared") => return None,
        (Some(".shared"), _) => format!("{}_SHARED", profile.variable_suffix()),
        _ => name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_").to_ascii_uppercase(),
    };
    (suffix != profile.variable_suffix()).then_some(suffix)
}

/// Each node once: those of a GPU belong to all of its slices, and some to all GPUs.
fn nodes(offered: &[&Offered]) -> Vec<DeviceSpec> {
    let mut seen = BTreeSet::new();
    let all = offered.iter().flat_map(|offered| offered.gift.nodes.iter());
    all.filter(|node| seen.insert(&node.container_path)).cloned().collect()
}

#[cfg(test)]
mod tests;
