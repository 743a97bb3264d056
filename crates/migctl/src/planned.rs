//! Plans, as `plan` shows them and `apply` announces them.

use std::fmt::Write as _;

use mig_model::plan::{GpuPlan, PassedOver, Room};
use mig_model::{GpuSurvey, GpuUuid, Placement, Profile, Step};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// What would be done to a GPU, or why it cannot be.
#[derive(Debug)]
pub(crate) struct Planned<'s> {
    pub(crate) gpu: &'s GpuSurvey,
    /// For messages: `GPU 0`, or a model's name.
    pub(crate) label: String,
    /// Whether the GPU is only thought of.
    pub(crate) pretended: bool,
    pub(crate) outcome: Result<GpuPlan, Failure>,
}

/// As JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    fits: bool,
    gpus: Vec<GpuAnswer>,
}

#[derive(Debug, Serialize)]
struct GpuAnswer {
    #[serde(skip)]
    label: String,
    index: u32,
    /// None of a GPU that is only thought of.
    uuid: Option<GpuUuid>,
    name: String,
    fits: bool,
    /// GPU instances that stay.
    kept: Vec<u32>,
    steps: Vec<Step>,
    /// How many more of each type there would be room for.
    room: Vec<Type>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_over: Option<Vec<Other>>,
    error: Option<Refusal>,
}

#[derive(Debug, Serialize)]
struct Type {
    profile: Profile,
    count: u32,
}

#[derive(Debug, Serialize)]
struct Other {
    created: Vec<Placed>,
    room: Vec<Type>,
    #[serde(skip)]
    room_in_words: String,
}

#[derive(Debug, Serialize)]
struct Placed {
    profile: Profile,
    placement: Placement,
}

#[derive(Debug, Serialize)]
struct Refusal {
    kind: &'static str,
    message: String,
    hints: Vec<String>,
}

impl Answer {
    pub(crate) fn new(planned: &[Planned<'_>], explain: bool) -> Self {
        let gpus: Vec<GpuAnswer> = planned.iter().map(|planned| GpuAnswer::new(planned, explain)).collect();
        Self { fits: gpus.iter().all(|gpu| gpu.fits), gpus }
    }
}

impl GpuAnswer {
    fn new(planned: &Planned<'_>, explain: bool) -> Self {
        let Planned { gpu, label, pretended, outcome } = planned;
        let nothing = GpuPlan::default();
        let (plan, error) = match outcome {
            Ok(plan) => (plan, None),
            Err(Failure { kind, message, hints, .. }) => {
                (&nothing, Some(Refusal { kind, message: message.clone(), hints: hints.clone() }))
            }
        };
        Self {
            label: label.clone(),
            index: gpu.gpu.index,
            uuid: (!pretended).then(|| gpu.gpu.uuid.clone()),
            name: gpu.gpu.name.clone(),
            fits: error.is_none(),
            kept: plan.kept.clone(),
            steps: plan.steps.clone(),
            room: types(&plan.room),
            passed_over: explain.then(|| plan.passed_over.iter().map(other).collect()),
            error,
        }
    }
}

fn types(Room(room): &Room) -> Vec<Type> {
    room.iter().map(|(profile, count)| Type { profile: profile.clone(), count: *count }).collect()
}

fn other(PassedOver { created, room }: &PassedOver) -> Other {
    let placed =
        |(profile, placement): &(Profile, Placement)| Placed { profile: profile.clone(), placement: *placement };
    Other { created: created.iter().map(placed).collect(), room: types(room), room_in_words: room.to_string() }
}

/// A paragraph for each GPU that can be as wished.
pub(crate) fn text(answer: &Answer) -> String {
    let mut text = String::new();
    for gpu in answer.gpus.iter().filter(|gpu| gpu.fits) {
        let kept = match gpu.kept.len() {
            0 => String::new(),
            1 => "; 1 instance stays".to_owned(),
            count => format!("; {count} instances stay"),
        };
        let steps = match gpu.steps.len() {
            0 => "nothing to do".to_owned(),
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        let _ = writeln!(text, "{}: {steps}{kept}", gpu.label);
        for step in &gpu.steps {
            let _ = writeln!(text, "  {step}");
        }
        if !gpu.room.is_empty() && (!gpu.steps.is_empty() || gpu.passed_over.is_some()) {
            let _ = writeln!(text, "  room left: {}", in_words(&gpu.room));
        }
        if let Some(others) = &gpu.passed_over {
            explained(&mut text, others);
        }
    }
    text
}

fn explained(text: &mut String, others: &[Other]) {
    if others.is_empty() {
        text.push_str("  no other placement serves\n");
    }
    for other in others {
        let places = other.created.iter().map(|one| format!("{} at {}", one.profile, one.placement));
        let places = places.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  passed over: {places}; it would leave room for {}", other.room_in_words);
    }
}

fn in_words(room: &[Type]) -> String {
    Room(room.iter().map(|one| (one.profile.clone(), one.count)).collect()).to_string()
}

/// The last refusal, if there is one; those before it are told at once.
pub(crate) fn refuse(planned: Vec<Planned<'_>>, context: &Context) -> Result<(), Failure> {
    let mut refusals: Vec<Failure> = planned.into_iter().filter_map(|planned| planned.outcome.err()).collect();
    let Some(last) = refusals.pop() else { return Ok(()) };
    for other in &refusals {
        context.output.error(other);
    }
    Err(last)
}

/// Whether carrying it out would destroy something, or switch MIG mode, which ends whatever runs there.
pub(crate) fn disturbs(steps: &[Step]) -> bool {
    steps.iter().any(|step| !matches!(step, Step::CreateGpuInstance { .. } | Step::CreateComputeInstance { .. }))
}
