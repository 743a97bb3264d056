//! GPU models for planning without a GPU: those in `models/`, built in, and any file like them.

use std::collections::BTreeMap;
use std::path::Path;

use mig_model::model::Model;
use mig_model::{Geometry, Gpu, GpuSurvey, GpuUuid, MigMode, NodeSurvey};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::files;

/// Name and text of every file in `models/`.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/models.rs"));

/// A model that can be cut.
#[derive(Debug)]
pub(crate) struct CutModel {
    /// The product's name.
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    pci_device_id: Option<u32>,
}

impl CutModel {
    /// A machine with such GPUs, on which MIG is on and nothing is cut.
    pub(crate) fn machine(&self, gpus: u32) -> Result<NodeSurvey, Failure> {
        let gpus = (0..gpus).map(|index| self.gpu(index)).collect::<Result<_, Failure>>()?;
        Ok(NodeSurvey { gpus, ..NodeSurvey::default() })
    }

    fn gpu(&self, index: u32) -> Result<GpuSurvey, Failure> {
        let uuid = GpuUuid::new(format!("GPU-00000000-0000-0000-0000-{index:012x}"))
            .map_err(|error| Failure::failed("BadModel", error.to_string()))?;
        let gpu = Gpu {
            vitals: mig_model::Vitals::default(),
            unwatched: None,
            outdated: false,
            processes: None,
            index,
            uuid,
            name: self.name.clone(),
            minor: None,
            pci_address: None,
            numa_node: None,
            mig: MigMode::Known { enabled: true, pending: true },
            instances: Vec::new(),
            fault: None,
        };
        Ok(GpuSurvey {
            gpu,
            geometry: Some(self.geometry.clone()),
            remaining: BTreeMap::new(),
            memory_bytes: None,
            pci_ids: self.pci_device_id.map(|device| (device, 0)),
            processes: Vec::new(),
            processes_known: true,
        })
    }
}

/// The model of this name, or of this file: what ends in `.yaml` or has a slash in it is a path.
pub(crate) fn find(name: &str) -> Result<CutModel, Failure> {
    let is_path = name.contains('/') || name == "-" || name.ends_with(".yaml") || name.ends_with(".yml");
    let text = if is_path { files::read(Path::new(name))? } else { built_in(name)?.to_owned() };
    let broken = |why: String| Failure::new(Exit::Usage, "BadModel", format!("{name} describes no GPU model: {why}"));
    let model = Model::parse(&text).map_err(|error| broken(error.to_string()))?;
    match model.geometry {
        Some(geometry) => Ok(CutModel { name: model.name, geometry, pci_device_id: model.pci_device_id }),
        None => Err(Failure::failed("NotSupported", format!("{} cannot be cut: it has no MIG", model.name))),
    }
}

/// For lists of what a model has: no GPU of this machine is meant then.
pub(crate) fn find_instead_of_gpus(name: &str, context: &Context) -> Result<CutModel, Failure> {
    if context.options.gpuid.is_empty() {
        find(name)
    } else {
        Err(Failure::usage("--model and --gpuid exclude each other"))
    }
}

fn built_in(name: &str) -> Result<&'static str, Failure> {
    let same = |known: &str| {
        let bare = name.strip_prefix("NVIDIA ").unwrap_or(name).replace(' ', "-");
        known.eq_ignore_ascii_case(&bare)
    };
    BUILT_IN.iter().find(|(known, _)| same(known)).map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        Failure::new(Exit::NotFound, "UnknownModel", format!("there is no built-in model {name}"))
            .hint(format!("built in are {}", names.join(", ")))
            .hint("a file like those in models/ does as well: --model ./my-gpu.yaml; migctl capture writes one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_is_read() {
        for (name, text) in BUILT_IN {
            Model::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_model_is_found_by_its_file_or_product_name() {
        for name in ["A100-SXM4-40GB", "a100-sxm4-40gb", "NVIDIA A100-SXM4-40GB"] {
            assert_eq!(find(name).unwrap().name, "NVIDIA A100-SXM4-40GB");
        }
        assert_eq!(find("A100").unwrap_err().exit, Exit::NotFound);
        assert_eq!(find("T4").unwrap_err().kind, "NotSupported");
    }
}
