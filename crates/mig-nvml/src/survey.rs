//! The thorough reading of a node.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mig_model::{
    ComputeProfile, Engines, Geometry, GpuInstance, GpuSurvey, InstanceProfile, MigMode, NodeSurvey, Process,
    UnreadableGpu,
};

use crate::cut::{Cut, compute_offers, read_cut};
use crate::error::DriverError;
use crate::hardware::Hardware;
use crate::names::{KnownProfile, known_profiles};
use crate::read::{Identified, MOST_GPUS, Reader, allowed, mig_devices, plausible};
use crate::session::{Handle, Seen, Session};

pub(crate) fn survey(hardware: &Hardware) -> Result<NodeSurvey, DriverError> {
    let mut surveyor = Surveyor {
        session: &hardware.session,
        proc_root: &hardware.roots.proc,
        reader: Reader::new(&hardware.session, &hardware.roots.sys)?,
    };
    let mut survey = NodeSurvey { driver: surveyor.reader.driver.clone(), ..NodeSurvey::default() };
    for index in 0..plausible("GPUs", hardware.session.gpu_count()?, MOST_GPUS)? {
        match surveyor.gpu(index) {
            Ok(gpu) => survey.gpus.push(gpu),
            Err(error) => survey.unreadable.push(UnreadableGpu { index, uuid: None, fault: error.fault() }),
        }
    }
    Ok(survey)
}

struct Surveyor<'s> {
    session: &'s Session,
    proc_root: &'s Path,
    reader: Reader<'s>,
}

impl Surveyor<'_> {
    /// An error is of a GPU that does not say who it is; any other failure is its fault, and what was read before that
    /// is still told.
    fn gpu(&mut self, index: u32) -> Result<GpuSurvey, DriverError> {
        let Identified { handle, gpu, model, pci_ids } = self.reader.identify(index, None)?;
        let mut survey = GpuSurvey {
            gpu,
            geometry: None,
            remaining: BTreeMap::new(),
            memory_bytes: None,
            pci_ids,
            processes: Vec::new(),
            processes_known: false,
        };
        if let Err(error) = self.look(&handle, &model, &mut survey) {
            (survey.gpu.fault, survey.gpu.outdated) = (Some(error.fault()), true);
        }
        Ok(survey)
    }

    fn look(&mut self, gpu: &Handle<'_>, model: &str, survey: &mut GpuSurvey) -> Result<(), DriverError> {
        survey.memory_bytes = allowed(gpu.memory_bytes())?;
        survey.gpu.mig = self.reader.mig_mode(gpu)?;
        survey.gpu.vitals = gpu.vitals();
        let mut cut = Cut::default();
        let profiles = match survey.gpu.mig {
            MigMode::Unsupported => Vec::new(),
            MigMode::Known { .. } => known_profiles(gpu)?,
        };
        if survey.gpu.mig.is_enabled() {
            cut = match read_cut(gpu, &profiles) {
                // Then MIG devices tell what they can.
                Err(error) if error.is_denied() => {
                    let instances = self.reader.instances(survey.gpu.index, gpu, model, |_| {})?;
                    Cut { instances, ..Cut::default() }
                }
                other => other?,
            };
            survey.gpu.instances.clone_from(&cut.instances);
            survey.remaining = remaining(gpu, &profiles)?;
        }
        (survey.processes, survey.processes_known) = self.processes(gpu, survey.gpu.mig.is_enabled())?;
        survey.geometry = geometry(gpu, &profiles, &cut)?;
        Ok(())
    }

    /// And whether the driver let us see all of them.
    fn processes(&self, gpu: &Handle<'_>, is_cut: bool) -> Result<(Vec<Process>, bool), DriverError> {
        let answer = gpu.processes();
        let mut known = !matches!(&answer, Err(error) if error.is_denied());
        let mut seen = allowed(answer)?.unwrap_or_default();
        // Of a GPU that is cut, the driver tells everybody about the parts, and only some about the whole.
        if is_cut && (seen.is_empty() || seen.iter().any(|process| process.gpu_instance.is_none())) {
            let (parts, all) = processes_of_parts(gpu)?;
            known |= all;
            seen.retain(|whole| whole.gpu_instance.is_some() || !parts.iter().any(|part| part.pid == whole.pid));
            seen.extend(parts);
        }
        let mut memory: BTreeMap<(u32, Option<u32>, Option<u32>), Option<u64>> = BTreeMap::new();
        for Seen { pid, gpu_instance, compute_instance, memory_bytes } in seen {
            let known = memory.entry((pid, gpu_instance, compute_instance)).or_default();
            *known = (*known).max(memory_bytes);
        }
        let named = |((pid, gpu_instance, compute_instance), memory_bytes)| Process {
            pid,
            gpu_instance,
            compute_instance,
            memory_bytes,
            name: self.name(pid),
        };
        Ok((memory.into_iter().map(named).collect(), known))
    }

    fn name(&self, pid: u32) -> Option<String> {
        let drivers = self.session.process_name(pid).ok().filter(|name| !name.is_empty());
        drivers.or_else(|| {
            let kernels = fs::read(self.proc_root.join(pid.to_string()).join("comm")).ok()?;
            let name = String::from_utf8_lossy(&kernels).trim_end().replace(char::is_control, "\u{fffd}");
            (!name.is_empty()).then_some(name)
        })
    }
}

/// And whether every part let us look; where there is none, that says nothing.
fn processes_of_parts(gpu: &Handle<'_>) -> Result<(Vec<Seen>, bool), DriverError> {
    let mut parts = Vec::new();
    let mut all = true;
    let mut asked = false;
    for part in mig_devices(gpu)? {
        asked = true;
        let answer = part.device.processes();
        all &= !matches!(&answer, Err(error) if error.is_denied());
        let seen = match answer {
            // It was destroyed meanwhile.
            Err(error) if error.is_gone() => None,
            other => allowed(other)?,
        };
        parts.extend(seen.unwrap_or_default().into_iter().map(|process| Seen {
            gpu_instance: Some(part.gpu_instance),
            compute_instance: Some(part.compute_instance),
            ..process
        }));
    }
    Ok((parts, all && asked))
}

fn remaining(gpu: &Handle<'_>, profiles: &[KnownProfile]) -> Result<BTreeMap<u32, u32>, DriverError> {
    let mut remaining = BTreeMap::new();
    for KnownProfile { info, .. } in profiles {
        if let Some(count) = allowed(gpu.remaining(info.id))? {
            remaining.insert(info.id, count);
        }
    }
    Ok(remaining)
}

/// None of a GPU without profiles, or where the driver keeps placements from us.
fn geometry(gpu: &Handle<'_>, profiles: &[KnownProfile], cut: &Cut) -> Result<Option<Geometry>, DriverError> {
    let mut offers = Vec::new();
    for known in profiles {
        let Some(placements) = allowed(gpu.placements(known.info.id))? else { return Ok(None) };
        let compute_profiles = match cut.instances.iter().find(|instance| instance.profile == known.profile) {
            Some(example) => compute_profiles(gpu, example, known, cut)?,
            None => Vec::new(),
        };
        let [copy, decoder, encoder, jpeg, ofa] = known.info.share.engines;
        offers.push(InstanceProfile {
            profile: known.profile.clone(),
            id: known.info.id,
            slices: known.info.share.slices,
            memory_mib: known.info.share.memory_mib,
            multiprocessors: known.info.multiprocessors,
            engines: Engines { copy, decoder, encoder, jpeg, ofa },
            max_instances: known.info.max_instances,
            placements,
            compute_profiles,
        });
    }
    if offers.is_empty() { Ok(None) } else { Ok(Some(Geometry::of(offers)?)) }
}

fn compute_profiles(
    gpu: &Handle<'_>,
    example: &GpuInstance,
    known: &KnownProfile,
    cut: &Cut,
) -> Result<Vec<ComputeProfile>, DriverError> {
    let Some(listed) = cut.compute_profiles.get(&known.info.id) else { return Ok(Vec::new()) };
    match gpu.instance(example.id).and_then(|instance| compute_offers(&instance, listed)) {
        // It was destroyed meanwhile: then the driver has not said.
        Err(error) if error.is_gone() => Ok(Vec::new()),
        other => other,
    }
}
