//! Files that describe a GPU model, as `models/` has them: for planning where there is no GPU to ask.

use serde::Deserialize;

use crate::geometry::{ComputeProfile, Engines, Geometry, GeometryError, InstanceProfile};
use crate::inventory::Placement;
use crate::profile::Profile;
use crate::yaml;

/// A GPU model. What a file says beyond this is for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The product's name: `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// PCI device and vendor as one number, where the file says.
    pub pci_device_id: Option<u32>,
    /// How it can be cut; none where it cannot.
    pub geometry: Option<Geometry>,
}

/// A file that describes no GPU model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It is no YAML, or of another shape.
    #[error("{0}")]
    Syntax(String),
    /// It contradicts itself.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

#[derive(Deserialize)]
struct ModelFile {
    name: String,
    pci_device_id: Option<String>,
    mig: Option<MigFile>,
}

#[derive(Deserialize)]
struct MigFile {
    memory_slices: u32,
    compute_slices: u32,
    profiles: Vec<ProfileFile>,
}

#[derive(Deserialize)]
struct ProfileFile {
    name: Profile,
    id: u32,
    slices: u32,
    #[serde(default)]
    memory_mb: u64,
    #[serde(default)]
    multiprocessors: u32,
    #[serde(default)]
    engines: EnginesFile,
    max_instances: u32,
    placements: Places,
    #[serde(default)]
    compute_profiles: Vec<ComputeFile>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EnginesFile {
    copy: u32,
    decoder: u32,
    encoder: u32,
    jpeg: u32,
    ofa: u32,
}

#[derive(Deserialize)]
struct ComputeFile {
    name: Profile,
    id: u32,
    slices: u32,
    #[serde(default)]
    multiprocessors: u32,
    max_instances: u32,
    placements: Places,
}

#[derive(Deserialize)]
struct Places {
    starts: Vec<u32>,
    size: u32,
}

impl Places {
    fn listed(&self) -> Vec<Placement> {
        self.starts.iter().map(|start| Placement { start: *start, size: self.size }).collect()
    }
}

impl Model {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let file: ModelFile = yaml::parse(text).map_err(ModelError::Syntax)?;
        let pci_device_id =
            file.pci_device_id.map(|id| yaml::hexadecimal(&id).map_err(ModelError::Syntax)).transpose()?;
        let geometry = file.mig.map(|mig| {
            let profiles = mig.profiles.iter().map(profile).collect();
            Geometry::new(mig.memory_slices, mig.compute_slices, profiles)
        });
        Ok(Self { name: file.name, pci_device_id, geometry: geometry.transpose()? })
    }
}

fn profile(file: &ProfileFile) -> InstanceProfile {
    let EnginesFile { copy, decoder, encoder, jpeg, ofa } = file.engines;
    let compute = |file: &ComputeFile| ComputeProfile {
        profile: file.name.clone(),
        id: file.id,
        slices: file.slices,
        multiprocessors: file.multiprocessors,
        max_instances: file.max_instances,
        placements: file.placements.listed(),
    };
    InstanceProfile {
        profile: file.name.clone(),
        id: file.id,
        slices: file.slices,
        memory_mib: file.memory_mb,
        multiprocessors: file.multiprocessors,
        engines: Engines { copy, decoder, encoder, jpeg, ofa },
        max_instances: file.max_instances,
        placements: file.placements.listed(),
        compute_profiles: file.compute_profiles.iter().map(compute).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_ours_is_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let mut cut = 0;
        for file in folder.read_dir().unwrap() {
            let path = file.unwrap().path();
            let model = Model::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert!(model.pci_device_id.is_some(), "{}", path.display());
            let Some(geometry) = model.geometry else { continue };
            cut += 1;
            for profile in &geometry.profiles {
                // What is assumed of a driver that does not say is what the files say.
                let unsaid = InstanceProfile { compute_profiles: Vec::new(), ..profile.clone() };
                assert_eq!(geometry.compute_profiles(&unsaid), profile.compute_profiles, "{}", profile.profile);
            }
            // A driver states no slices; they follow from its profiles.
            assert_eq!(Geometry::of(geometry.profiles.clone()), Ok(geometry), "{}", path.display());
        }
        assert!(cut >= 7, "{cut}");
    }

    #[test]
    fn what_is_no_model_says_where_and_why() {
        for (text, reason) in [
            ("name: [", "line 1"),
            ("name: a\nmig: { memory_slices: 8 }", "missing field"),
            ("name: a\nmig: { memory_slices: 65, compute_slices: 7, profiles: [] }", "1 to 64 memory slices"),
            ("name: a\npci_device_id: 12", "0x"),
            (
                "name: a\nmig:\n  memory_slices: 2\n  compute_slices: 2\n  profiles:\n  - { name: 1g.5gb, id: 1, slices: 1, max_instances: 1, placements: { starts: [2], size: 1 } }",
                "1g.5gb cannot lie at 2:1",
            ),
            (
                "name: a\nmig:\n  memory_slices: 2\n  compute_slices: 2\n  profiles:\n  - { name: 1g.5gb, id: 1, slices: 4294967295, max_instances: 1, placements: { starts: [0], size: 1 } }",
                "1g.5gb has 4294967295 compute slices",
            ),
        ] {
            let error = Model::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
