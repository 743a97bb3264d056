//! Why a wish cannot be met, in the words of an error with hints.

use mig_model::plan::{Misfit, place};
use mig_model::{Geometry, GpuInstance, Placement, PlanError, Profile, WantedInstance};

use crate::failure::{Exit, Failure};
use crate::request::Target;

/// So many other wishes are proposed.
const PROPOSED: usize = 3;

/// The planner's refusal.
pub(crate) fn failure(target: Target<'_>, error: &PlanError) -> Failure {
    let message = format!("{}: {error}", target.label);
    match error {
        PlanError::UnknownProfile { wanted, .. } => unknown_type(target.label, wanted, target.geometry),
        PlanError::IllegalPlacement { profile, start, possible } => {
            let message = format!("{}: {profile} cannot lie at {start}", target.label);
            let failure = Failure::new(Exit::DoesNotFit, "IllegalPlacement", message);
            failure.hint(format!("it can at {}", starts(possible)))
        }
        PlanError::ComputeDoesNotFit { .. } => Failure::new(Exit::DoesNotFit, "DoesNotFit", message),
        PlanError::DoesNotFit(misfit) => does_not_fit(target, misfit, message),
        PlanError::InTheWay { possible, .. } if possible.is_empty() => Failure::new(Exit::InUse, "InUse", message),
        PlanError::InTheWay { possible, .. } => Failure::new(Exit::InUse, "InUse", message)
            .hint(format!("around what is in use could be had: {}", counted(possible))),
        PlanError::NoMig(_) => Failure::failed("NotSupported", message),
        PlanError::PlacementUnknown(_) => Failure::new(Exit::NotPermitted, "NoPermission", message),
    }
}

fn does_not_fit(target: Target<'_>, misfit: &Misfit, message: String) -> Failure {
    let mut failure = Failure::new(Exit::DoesNotFit, "DoesNotFit", message);
    let parts: Vec<String> =
        misfit.parts_that_fit.iter().filter(|part| !part.is_empty()).take(PROPOSED).map(|part| counted(part)).collect();
    if !parts.is_empty() {
        failure = failure.hint(format!("of these fit: {}", parts.join("; or ")));
    }
    match place(target.geometry, target.now, &[]) {
        Ok(plan) if !target.now.is_empty() => failure.hint(format!("{} still takes {}", target.label, plan.room)),
        _ => failure,
    }
}

/// With those that there are, nearest first.
pub(crate) fn unknown_type(label: &str, wanted: &Profile, geometry: &Geometry) -> Failure {
    let known: Vec<String> = geometry.nearest(wanted).iter().map(Profile::to_string).collect();
    let message = format!("{label} has no instance type {}", wanted.gpu_instance());
    Failure::new(Exit::NotFound, "UnknownType", message).hint(format!("it has {}", known.join(", ")))
}

/// With those that there are.
pub(crate) fn unknown_instance(label: &str, id: u32, now: &[GpuInstance]) -> Failure {
    let failure = Failure::new(Exit::NotFound, "UnknownInstance", format!("{label} has no GPU instance {id}"));
    if now.is_empty() {
        return failure.hint("it has none at all");
    }
    now.iter().fold(failure, |failure, instance| failure.hint(format!("it has {}", instance_name(instance))))
}

/// `GPU instance 7 (1g.5gb at 0:1)`.
pub(crate) fn instance_name(instance: &GpuInstance) -> String {
    let place = instance.placement.map(|at| format!(" at {at}")).unwrap_or_default();
    format!("GPU instance {} ({}{place})", instance.id, instance.profile)
}

fn starts(placements: &[Placement]) -> String {
    let starts: Vec<String> = placements.iter().map(|at| at.start.to_string()).collect();
    starts.join(", ")
}

/// `2 x 3g.20gb + 1g.5gb@6`.
pub(crate) fn counted(instances: &[WantedInstance]) -> String {
    let mut counts: Vec<(&WantedInstance, usize)> = Vec::new();
    for one in instances {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    let words =
        counts.iter().map(|(one, count)| if *count == 1 { one.to_string() } else { format!("{count} x {one}") });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" + ") }
}
