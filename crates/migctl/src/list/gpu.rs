use mig_model::{Driver, Fault, GpuSurvey, GpuUuid, MigMode, UnreadableGpu};
use serde::Serialize;

use super::gibibytes;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::Table;

#[derive(Serialize)]
struct Answer<'s> {
    driver: &'s Driver,
    gpus: Vec<Row<'s>>,
    unreadable: &'s [UnreadableGpu],
}

#[derive(Serialize)]
struct Row<'s> {
    index: u32,
    uuid: &'s GpuUuid,
    name: &'s str,
    pci_address: Option<&'s str>,
    memory_bytes: Option<u64>,
    mig: Mig,
    /// GPU instances on it.
    instances: usize,
    fault: Option<&'s Fault>,
}

/// MIG mode in the words that `enable` and `disable` use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Mig {
    pub(crate) supported: bool,
    pub(crate) enabled: bool,
    /// What it will be after the next reset, where that is something else.
    pub(crate) pending: Option<bool>,
}

impl From<MigMode> for Mig {
    fn from(mode: MigMode) -> Self {
        match mode {
            MigMode::Unsupported => Self { supported: false, enabled: false, pending: None },
            MigMode::Known { enabled, pending } => {
                Self { supported: true, enabled, pending: (pending != enabled).then_some(pending) }
            }
        }
    }
}

impl Mig {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self { supported: false, .. } => "none",
            Self { pending: Some(true), .. } => "off, on after reset",
            Self { pending: Some(false), .. } => "on, off after reset",
            Self { enabled: true, .. } => "on",
            Self { enabled: false, .. } => "off",
        }
    }
}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let node = context.node()?;
    let gpus = context.gpus_to_read(&node.survey)?;
    let unreadable = if context.options.gpuid.is_empty() { node.survey.unreadable.as_slice() } else { &[] };
    let answer = Answer { driver: &node.survey.driver, gpus: gpus.into_iter().map(row).collect(), unreadable };
    context.output.answer(&answer, text)
}

fn row(survey: &GpuSurvey) -> Row<'_> {
    let gpu = &survey.gpu;
    Row {
        index: gpu.index,
        uuid: &gpu.uuid,
        name: &gpu.name,
        pci_address: gpu.pci_address.as_deref(),
        memory_bytes: survey.memory_bytes,
        mig: gpu.mig.into(),
        instances: gpu.instances.len(),
        fault: gpu.fault.as_ref(),
    }
}

fn text(answer: &Answer<'_>) -> String {
    if answer.gpus.is_empty() {
        return "no GPUs\n".to_owned();
    }
    let mut table = Table::new(&["GPU", "NAME", "MEMORY", "MIG", "INSTANCES", "PCI", "UUID"]);
    for gpu in &answer.gpus {
        table.row([
            gpu.index.to_string(),
            gpu.name.strip_prefix("NVIDIA ").unwrap_or(gpu.name).to_owned(),
            gpu.memory_bytes.map(|bytes| gibibytes(bytes >> 20)).unwrap_or_default(),
            if gpu.fault.is_some() { "fault".to_owned() } else { gpu.mig.word().to_owned() },
            gpu.instances.to_string(),
            gpu.pci_address.unwrap_or_default().to_owned(),
            gpu.uuid.to_string(),
        ]);
    }
    table.render()
}
