//! The GPUs as the pretended driver has them, by the word of its control command.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::process::Command;

#[derive(Debug, Deserialize)]
pub(crate) struct Machine {
    pub(crate) driver: String,
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) instances: Vec<Instance>,
}

/// A slice of memory and compute.
#[derive(Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) profile: String,
    pub(crate) placement: Placement,
    pub(crate) compute: Vec<Compute>,
}

/// In memory slices.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Placement {
    pub(crate) start: usize,
    pub(crate) size: usize,
}

/// What programs use: the whole of a slice's compute, or a part.
#[derive(Debug, Deserialize)]
pub(crate) struct Compute {
    pub(crate) profile: String,
    pub(crate) uuid: String,
}

/// Where a device is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) instance: &'a Instance,
    pub(crate) compute: &'a Compute,
}

impl Machine {
    /// Asks `fake-nvml show`.
    pub(crate) async fn read(bin_dir: &Path, scene: &Path, state: &Path) -> anyhow::Result<Self> {
        let program = bin_dir.join("fake-nvml");
        let mut command = Command::new(&program);
        command.args(["show", "-o", "json"]).arg("--scene").arg(scene).arg("--state").arg(state).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("unable to run {}", program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fake-nvml show failed: {}", errors.trim());
        serde_json::from_slice(&output.stdout).context("unable to read what fake-nvml shows")
    }

    /// Where the device with this UUID is.
    pub(crate) fn find(&self, uuid: &str) -> Option<Place<'_>> {
        self.places().find(|place| place.compute.uuid == uuid)
    }

    /// The resources that the agent is to offer, and how many of each.
    pub(crate) fn resources(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for place in self.places() {
            *counts.entry(resource(&place.compute.profile)).or_default() += 1;
        }
        counts
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let instances = self.gpus.iter().flat_map(|gpu| gpu.instances.iter().map(move |instance| (gpu, instance)));
        instances
            .flat_map(|(gpu, instance)| instance.compute.iter().map(move |compute| Place { gpu, instance, compute }))
    }
}

impl Gpu {
    /// How many memory slices there are. The driver's control command does not say; models have 4 or 8.
    pub(crate) fn memory_slices(&self) -> usize {
        let ends = self.instances.iter().map(|instance| instance.placement.start + instance.placement.size);
        ends.max().unwrap_or_default().next_power_of_two().max(4)
    }
}

/// `nvidia.com/mig-1g.5gb`: Kubernetes takes no `+` in a name.
pub(crate) fn resource(profile: &str) -> String {
    format!("nvidia.com/mig-{}", profile.replace('+', "."))
}

/// `MIG_DEVICES_1G_5GB`.
pub(crate) fn variable(profile: &str) -> String {
    let letters = profile.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
    format!("MIG_DEVICES_{}", letters.collect::<String>().to_ascii_uppercase())
}
