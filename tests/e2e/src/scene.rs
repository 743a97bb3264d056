//! What the node's (pretended) GPUs hold, as `fake-nvml show -o json` told it before the cluster was started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The GPUs of the scene.
#[derive(Debug, Deserialize)]
pub struct Scene {
    gpus: Vec<Gpu>,
}

#[derive(Debug, Deserialize)]
struct Gpu {
    minor: u32,
    instances: Vec<GpuInstance>,
}

#[derive(Debug, Deserialize)]
struct GpuInstance {
    id: u32,
    compute: Vec<Slice>,
}

/// What a container can be given: a compute instance, named after its GPU instance's profile when it fills that.
#[derive(Debug, Deserialize)]
struct Slice {
    id: u32,
    profile: String,
    uuid: String,
}

impl Scene {
    /// Reads the file that `E2E_SCENE` names.
    ///
    /// # Errors
    /// When there is none: the suite was started without a cluster.
    pub fn read() -> Result<Self> {
        let path = std::env::var_os("E2E_SCENE")
            .map(PathBuf::from)
            .context("E2E_SCENE is not set: the suite needs a cluster, which `make e2e` brings up (docs/e2e.md)")?;
        let text = std::fs::read(&path).with_context(|| format!("failed to read the scene from {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to understand the scene in {}", path.display()))
    }

    /// The resources that the node must have, exactly.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<String, u64> {
        let mut resources = BTreeMap::new();
        for slice in self.gpus.iter().flat_map(Gpu::slices) {
            *resources.entry(resource(&slice.profile)).or_default() += 1;
        }
        resources
    }

    /// The UUIDs of all slices of a profile.
    #[must_use]
    pub fn slices(&self, profile: &str) -> BTreeSet<String> {
        uuids(self.gpus.iter().flat_map(Gpu::slices), profile)
    }

    /// What a driver makes of each slice, by UUID: the minor number of its GPU, and the files below
    /// `/proc/driver/nvidia/capabilities` that have those of its two capabilities.
    #[must_use]
    pub fn capabilities(&self) -> BTreeMap<String, (u32, [String; 2])> {
        let mut files = BTreeMap::new();
        for gpu in &self.gpus {
            for instance in &gpu.instances {
                let folder = format!("gpu{}/mig/gi{}", gpu.minor, instance.id);
                for slice in &instance.compute {
                    let own = [format!("{folder}/access"), format!("{folder}/ci{}/access", slice.id)];
                    files.insert(slice.uuid.clone(), (gpu.minor, own));
                }
            }
        }
        files
    }

    /// The UUIDs of the slices of a profile on one GPU.
    #[must_use]
    pub fn slices_of_gpu(&self, gpu: usize, profile: &str) -> BTreeSet<String> {
        uuids(self.gpus.get(gpu).into_iter().flat_map(Gpu::slices), profile)
    }
}

impl Gpu {
    fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.instances.iter().flat_map(|instance| &instance.compute)
    }
}

fn uuids<'a>(slices: impl Iterator<Item = &'a Slice>, profile: &str) -> BTreeSet<String> {
    slices.filter(|slice| slice.profile == profile).map(|slice| slice.uuid.clone()).collect()
}

/// The resource that pods ask for: `nvidia.com/mig-3g.20gb`.
#[must_use]
pub fn resource(profile: &str) -> String {
    format!("nvidia.com/mig-{profile}")
}
