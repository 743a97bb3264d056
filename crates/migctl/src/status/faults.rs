//! What is wrong with GPUs and slices: what their vitals say now, and what the node's agent knows besides.

use std::collections::BTreeMap;

use mig_health::{Held, faults};
use mig_model::{Fault, Gpu, MigUuid, NodeSurvey, UNHEALTHY, Unhealthy};

use crate::agent;
use crate::args::Options;

/// Of what is told without a GPU to tell it of.
const MOST_LINES: usize = 8;

/// What the agent of this node wrote down; nothing if there is none.
#[derive(Debug, Default)]
pub(super) struct Faults {
    held: Vec<Held>,
    /// All that it offers to nobody, for whatever reason.
    unhealthy: Vec<Unhealthy>,
}

/// A device that the agent lists and that is not there.
#[derive(Debug, serde::Serialize)]
pub(super) struct Gone {
    pub(super) uuid: String,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Wrong {
    kind: String,
    pub(super) message: String,
}

impl Faults {
    pub(super) fn read(options: &Options) -> Self {
        let held = agent::faults(options).map(|record| record.faults).unwrap_or_default();
        Self { held, unhealthy: agent::note(options, UNHEALTHY) }
    }

    fn held(&self, gpu: Option<&str>, slice: Option<&str>) -> impl Iterator<Item = Wrong> {
        let is = move |held: &&Held| {
            held.ended_ms.is_none() && held.slice.as_deref() == slice && gpu.is_none_or(|gpu| held.gpu == gpu)
        };
        self.held
            .iter()
            .filter(is)
            .map(|held| Wrong::new(if held.xid.is_some() { "Xid" } else { "UncorrectableErrors" }, &held.message))
    }

    /// What it says of a device that is in this list.
    fn of(&self, uuid: &str) -> impl Iterator<Item = Wrong> {
        let own = self.unhealthy.iter().filter(move |unhealthy| unhealthy.uuid == uuid);
        own.map(|unhealthy| Wrong::new(&unhealthy.reason, &unhealthy.message))
    }

    /// What is wrong with all slices of a GPU, or with the GPU as it is offered whole.
    pub(super) fn of_gpu(&self, gpu: &Gpu) -> Vec<Wrong> {
        let uuid = gpu.uuid.as_str();
        let told = faults(&gpu.vitals).into_iter().map(|(_, fault)| Wrong::from(&fault));
        let mut all: Vec<Wrong> = told.chain(self.held(Some(uuid), None)).collect();
        let mut slices = gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
        let common: Vec<Wrong> = match slices.next() {
            Some(first) => {
                let rest: Vec<_> = slices.map(|slice| slice.uuid.as_str()).collect();
                let is_common = |wrong: &Wrong| rest.iter().all(|uuid| self.of(uuid).any(|other| other == *wrong));
                self.of(first.uuid.as_str()).filter(is_common).collect()
            }
            None => Vec::new(),
        };
        // One slice's own is not all slices'.
        let own = self.of(uuid).chain(common.into_iter().filter(|_| !is_single(gpu)));
        all.extend(own.filter(|wrong| !wrong.is_in(&all)).collect::<Vec<_>>());
        all
    }

    /// What is wrong with one slice, and not with its GPU.
    pub(super) fn of_slice(&self, gpu: &Gpu, uuid: &MigUuid) -> Vec<Wrong> {
        let of_gpu = self.of_gpu(gpu);
        let mut all: Vec<Wrong> = self.held(None, Some(uuid.as_str())).collect();
        let more: Vec<Wrong> = self.of(uuid.as_str()).filter(|wrong| !wrong.is_in(&all)).collect();
        all.extend(more);
        all.retain(|wrong| {
            !wrong.is_in(&of_gpu) && gpu.fault.as_ref().is_none_or(|fault| *wrong != Wrong::from(fault))
        });
        all
    }

    /// Devices that are on no GPU.
    pub(super) fn gone(&self, survey: &NodeSurvey) -> Vec<Gone> {
        let gpus = || survey.gpus.iter().map(|survey| &survey.gpu);
        let parts = || gpus().flat_map(|gpu| gpu.instances.iter().flat_map(|instance| &instance.compute_instances));
        let is_there =
            |uuid: &str| gpus().any(|gpu| gpu.uuid.as_str() == uuid) || parts().any(|part| part.uuid.as_str() == uuid);
        let gone = self.unhealthy.iter().filter(|unhealthy| !is_there(&unhealthy.uuid));
        gone.map(|unhealthy| Gone {
            uuid: clean(&unhealthy.uuid),
            wrong: Wrong::new(&unhealthy.reason, &unhealthy.message),
        })
        .collect()
    }

    /// A line for each reason that the agent has, for those who see no GPU.
    pub(super) fn summary(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for unhealthy in &self.unhealthy {
            *counts.entry(&unhealthy.message).or_default() += 1;
        }
        let line = |(message, count): (&str, usize)| {
            let devices = if count == 1 { "device" } else { "devices" };
            format!("the node's agent said of {count} {devices}: {}", clean(message))
        };
        counts.into_iter().map(line).take(MOST_LINES).collect()
    }
}

fn is_single(gpu: &Gpu) -> bool {
    gpu.instances.iter().flat_map(|instance| &instance.compute_instances).count() == 1
}

/// The file is the agent's, and is read as root.
fn clean(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

impl Wrong {
    fn new(kind: &str, message: &str) -> Self {
        Self { kind: clean(kind), message: clean(message) }
    }
}

impl Wrong {
    /// Whether one of these is the same; of two messages one may go on to say when it is over.
    fn is_in(&self, others: &[Self]) -> bool {
        let is_same = |other: &Self| {
            let (one, two) = (&self.message, &other.message);
            self.kind == other.kind && (one.starts_with(two) || two.starts_with(one))
        };
        others.iter().any(is_same)
    }
}

impl From<&Fault> for Wrong {
    fn from(fault: &Fault) -> Self {
        Self::new(fault.kind, &fault.message)
    }
}
