//! MIG mode: whether it is on, and how it is switched.

use mig_model::{Geometry, Gpu, GpuSurvey, MigMode, Step};

use crate::change::{Account, Change, GpuAccount, carry_out};
use crate::context::Context;
use crate::destroy::{refuse_if_in_use, whole};
use crate::failure::{Exit, Failure};
use crate::selection;
use crate::users::{User, Users, names};

/// `enable` and `disable`.
pub(crate) fn switch(context: &Context, on: bool, destroy_instances: bool) -> Result<(), Failure> {
    let _lock = context.lock(if on { "enable" } else { "disable" })?;
    let node = context.node()?;
    let gpus = selection::to_change(&context.options.gpuid, &node.survey)?;
    let mut changes = Vec::new();
    for gpu in gpus {
        changes.push(Change { gpu, steps: steps(gpu, on)? });
    }
    if changes.iter().any(|change| !change.steps.is_empty()) {
        let users = Users::read(context);
        users.refuse_if_unknown()?;
        for change in &changes {
            refuse_if_held(&users, change)?;
            refuse_if_in_use(&users, change.gpu, &change.steps)?;
            if !destroy_instances {
                refuse_if_cut(change)?;
            }
        }
    }
    carry_out(context, &node.hardware, &changes)?.tell(context, |account| text(account, on))
}

fn steps(survey: &GpuSurvey, on: bool) -> Result<Vec<Step>, Failure> {
    match survey.gpu.mig {
        MigMode::Unsupported => Err(unsupported(survey)),
        MigMode::Known { enabled, pending } if enabled == on && pending == on => Ok(Vec::new()),
        // One that waits for its clients comes into force at once when it is asked for again and they have gone.
        MigMode::Known { .. } => {
            let mut steps: Vec<Step> = if on { Vec::new() } else { survey.gpu.instances.iter().map(whole).collect() };
            steps.push(Step::SetMigMode { enabled: on });
            Ok(steps)
        }
    }
}

/// A process that holds the whole GPU makes the driver wait, and is named then; a pod that holds it may just be starting.
pub(crate) fn refuse_if_held(users: &Users, change: &Change<'_>) -> Result<(), Failure> {
    let switches = change.steps.iter().any(|step| matches!(step, Step::SetMigMode { .. }));
    let is_pod = |user: &User| matches!(user, User::Pod { .. } | User::GivenOut { .. });
    let pods: Vec<User> = users.of_gpu(change.gpu).into_iter().filter(is_pod).collect();
    if !switches || pods.is_empty() {
        return Ok(());
    }
    let message = format!("GPU {} is in use by {}", change.gpu.gpu.index, names(&pods));
    Err(Failure::new(Exit::InUse, "InUse", message).hint("nothing was changed; end the pods, and try again"))
}

fn refuse_if_cut(change: &Change<'_>) -> Result<(), Failure> {
    let goes = change.steps.iter().filter(|step| matches!(step, Step::DestroyGpuInstance { .. })).count();
    if goes == 0 {
        return Ok(());
    }
    let index = change.gpu.gpu.index;
    let instances = if goes == 1 { "instance, which nobody uses" } else { "instances, which nobody uses" };
    let message = format!("GPU {index} is cut into {goes} {instances}");
    Err(Failure::new(Exit::InUse, "InstancesExist", message)
        .hint(format!("destroy them, too: migctl --gpuid {index} disable --destroy-instances")))
}

fn text(account: &Account, on: bool) -> String {
    if account.dry_run && !account.is_empty() {
        return account.lines_left();
    }
    let word = if on { "on" } else { "off" };
    let line = |gpu: &GpuAccount| {
        let state = if gpu.failed.is_some() || !gpu.left.is_empty() {
            return gpu.lines_done();
        } else if gpu.needs.is_some() {
            format!("MIG will be {word} after a reset")
        } else if gpu.done.is_empty() {
            format!("MIG is {word} already")
        } else {
            format!("MIG is {word}")
        };
        format!("GPU {}: {state}\n", gpu.index)
    };
    account.gpus.iter().map(line).collect()
}

/// How a GPU can be cut now; an error that says what to do where MIG is off.
pub(crate) fn geometry_in_force(survey: &GpuSurvey) -> Result<&Geometry, Failure> {
    let gpu = &survey.gpu;
    let index = gpu.index;
    match gpu.mig {
        MigMode::Unsupported => Err(unsupported(survey)),
        MigMode::Known { enabled: false, pending: true } => {
            let message = format!("GPU {index}: MIG is not on before the GPU's next reset");
            Err(Failure::new(Exit::NeedsReset, "NeedsReset", message)
                .hint(format!("what it needs: migctl --gpuid {index} enable")))
        }
        MigMode::Known { enabled: false, pending: false } => {
            Err(Failure::failed("MigOff", format!("GPU {index}: MIG is off"))
                .hint(format!("turn it on: migctl --gpuid {index} enable")))
        }
        MigMode::Known { enabled: true, .. } => Ok(geometry(survey)?.0),
    }
}

/// How a GPU can be cut, and whether MIG has to be turned on before.
pub(crate) fn geometry(survey: &GpuSurvey) -> Result<(&Geometry, bool), Failure> {
    let MigMode::Known { enabled, pending } = survey.gpu.mig else { return Err(unsupported(survey)) };
    let geometry = survey.geometry.as_ref().ok_or_else(|| {
        let message = format!("GPU {}: the driver does not say how it can be cut", survey.gpu.index);
        Failure::new(Exit::NotPermitted, "NoProfiles", message)
            .hint("that needs root, or the mig/monitor capability: /dev/nvidia-caps/nvidia-cap2")
    })?;
    Ok((geometry, !enabled && !pending))
}

/// For lists that go on without it.
pub(crate) fn why_no_geometry(gpu: &Gpu) -> &'static str {
    match gpu.mig {
        MigMode::Unsupported => "it cannot be cut (no MIG)",
        MigMode::Known { .. } => {
            "the driver does not say how it can be cut; that needs root, or the mig/monitor capability"
        }
    }
}

pub(crate) fn unsupported(survey: &GpuSurvey) -> Failure {
    let gpu = &survey.gpu;
    Failure::failed("NotSupported", format!("GPU {} cannot be cut: {} has no MIG", gpu.index, gpu.name))
}
