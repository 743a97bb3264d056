//! What a file in `models/` says of a GPU beyond its survey.

use std::collections::BTreeMap;

use mig_model::{GpuUuid, MigMode};

use crate::cut::{Cut, read_cut};
use crate::error::DriverError;
use crate::hardware::{Hardware, ModelFacts};
use crate::names::known_profiles;
use crate::read::{Reader, allowed, said};

pub(crate) fn describe(hardware: &Hardware, uuid: &GpuUuid) -> Result<ModelFacts, DriverError> {
    let mut reader = Reader::new(&hardware.session, &hardware.roots.sys)?;
    let gpu = hardware.session.gpu_by_uuid(uuid)?;
    let mode = reader.mig_mode(&gpu)?;
    let profiles = match mode {
        MigMode::Unsupported => Vec::new(),
        MigMode::Known { .. } => known_profiles(&gpu)?,
    };
    let cut = match mode.is_enabled() {
        true => match read_cut(&gpu, &profiles) {
            Err(error) if error.is_denied() => Cut::default(),
            other => other?,
        },
        false => Cut::default(),
    };
    let mut compute_profile_indices = BTreeMap::new();
    for (profile, known) in &cut.compute_profiles {
        // Of two that have one id, the first is the usual one.
        for compute in known.iter().rev() {
            compute_profile_indices.insert((*profile, compute.info.id), compute.index);
        }
    }
    let capability = said(gpu.compute_capability())?;
    Ok(ModelFacts {
        driver: reader.driver.clone(),
        name: gpu.name()?,
        architecture: said(gpu.architecture())?,
        brand: said(gpu.brand())?,
        compute_capability: capability
            .and_then(|(major, minor)| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))),
        cores: said(gpu.cores())?,
        pci_ids: said(gpu.pci())?.map(|pci| (pci.device, pci.subsystem)),
        memory_total: allowed(gpu.memory_bytes())?,
        memory_reserved: allowed(gpu.reserved_memory_bytes())?,
        vbios: said(gpu.vbios())?,
        power_limit_milliwatts: said(gpu.default_power_limit())?,
        max_mig_devices: said(gpu.max_mig_devices())?.filter(|count| *count > 0),
        profile_indices: profiles.iter().map(|known| (known.info.id, known.index)).collect(),
        compute_profile_indices,
    })
}
