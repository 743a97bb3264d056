//! Which GPUs are meant.

use std::str::FromStr;

use mig_model::layout::{GpuIdentity, GpuSelector};
use mig_model::{GpuSurvey, NodeSurvey, UnreadableGpu};

use crate::failure::{Exit, Failure};

/// So many GPUs are listed when one is not found.
const LISTED: usize = 16;

/// One word of `--gpuid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    All,
    One(GpuSelector),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if text.starts_with("MIG-") {
            return Err("this is the UUID of an instance, expected that of its GPU".to_owned());
        }
        text.parse().map(Self::One).map_err(|error: <GpuSelector as FromStr>::Err| error.to_string())
    }
}

/// The GPUs to look at: those named, or all of them.
pub(crate) fn to_read<'s>(selectors: &[Selector], survey: &'s NodeSurvey) -> Result<Vec<&'s GpuSurvey>, Failure> {
    if selectors.is_empty() {
        return Ok(survey.gpus.iter().collect());
    }
    let mut chosen: Vec<&GpuSurvey> = Vec::new();
    for selector in selectors {
        for gpu in matching(selector, survey)? {
            if !chosen.iter().any(|known| known.gpu.uuid == gpu.gpu.uuid) {
                chosen.push(gpu);
            }
        }
    }
    chosen.sort_by_key(|gpu| gpu.gpu.index);
    Ok(chosen)
}

/// The GPUs to change: those named, or the only one there is. None of them is lost, and there is at least one.
pub(crate) fn to_change<'s>(selectors: &[Selector], survey: &'s NodeSurvey) -> Result<Vec<&'s GpuSurvey>, Failure> {
    if let Some(unreadable) = survey.unreadable.first().filter(|_| selectors.contains(&Selector::All)) {
        return Err(Failure::failed(unreadable.fault.kind, &unreadable.fault.message)
            .hint("name the GPUs to change by --gpuid to leave this one out"));
    }
    let chosen = to_read(selectors, survey)?;
    if chosen.is_empty() {
        return Err(no_gpus(survey));
    }
    if selectors.is_empty() && chosen.len() + survey.unreadable.len() > 1 {
        let message = format!("there are {} GPUs: say which by --gpuid", chosen.len() + survey.unreadable.len());
        return Err(with_gpus(Failure::new(Exit::Usage, "WhichGpu", message), survey));
    }
    match chosen.iter().find_map(|gpu| gpu.gpu.fault.as_ref()) {
        Some(fault) => Err(Failure::failed(fault.kind, &fault.message)),
        None => Ok(chosen),
    }
}

fn matching<'s>(selector: &Selector, survey: &'s NodeSurvey) -> Result<Vec<&'s GpuSurvey>, Failure> {
    let Selector::One(selector) = selector else { return Ok(survey.gpus.iter().collect()) };
    if let Some(gpu) = survey.unreadable.iter().find(|gpu| *selector == GpuSelector::Index(gpu.index)) {
        return Err(Failure::failed(gpu.fault.kind, &gpu.fault.message));
    }
    let found: Vec<&GpuSurvey> = survey.gpus.iter().filter(|gpu| selector.names(&GpuIdentity::from(*gpu))).collect();
    match found.as_slice() {
        [] if survey.gpus.is_empty() => Err(no_gpus(survey)),
        [] => Err(with_gpus(Failure::new(Exit::NotFound, "UnknownGpu", format!("there is no GPU {selector}")), survey)),
        _ => Ok(found),
    }
}

fn no_gpus(survey: &NodeSurvey) -> Failure {
    match survey.unreadable.first() {
        Some(gpu) => Failure::failed(gpu.fault.kind, &gpu.fault.message),
        None => Failure::new(Exit::NotFound, "NoGpu", "the driver knows no GPU on this machine"),
    }
}

/// What is known of GPUs that cannot be read is their index: any other name may be one of theirs.
pub(crate) fn with_unreadable(failure: Failure, survey: &NodeSurvey) -> Failure {
    let hint =
        |gpu: &UnreadableGpu| format!("GPU {} cannot be read, and may be this one: {}", gpu.index, gpu.fault.message);
    survey.unreadable.iter().map(hint).fold(failure, Failure::hint)
}

fn with_gpus(failure: Failure, survey: &NodeSurvey) -> Failure {
    let mut failure = with_unreadable(failure, survey);
    for GpuSurvey { gpu, .. } in survey.gpus.iter().take(LISTED) {
        let pci = gpu.pci_address.as_deref().map(|pci| format!(", {pci}")).unwrap_or_default();
        failure = failure.hint(format!("GPU {}: {}{pci}, {}", gpu.index, gpu.uuid, gpu.name));
    }
    match survey.gpus.len().saturating_sub(LISTED) {
        0 => failure,
        more => failure.hint(format!("and {more} more: migctl list gpu")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_gpu_is_read() {
        assert_eq!("all".parse(), Ok(Selector::All));
        for text in ["12", "GPU-aaaaaaaa-0000", "3B:00.0", "0000:3b:00.0", "00000000:3B:00.0"] {
            assert!(matches!(text.parse(), Ok(Selector::One(_))), "{text:?}");
        }
        for text in ["", "-1", "first", "MIG-aaaa", "3b", "99999999999"] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
    }
}
