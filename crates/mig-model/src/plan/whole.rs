//! The plan for a GPU as a whole: its MIG mode, and what it is cut into.

use serde::Serialize;

use super::search::{gone, plan};
use super::{GpuPlan, InUse, PlanError, Step, WantedInstance};
use crate::inventory::MigMode;
use crate::survey::GpuSurvey;

/// How a GPU shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuWish {
    /// Cut, or whole.
    pub mig: bool,
    /// All that it shall be cut into.
    pub instances: Vec<WantedInstance>,
}

/// The steps after which a GPU is as wished. Where MIG has to be turned on first, the rest of the plan is for the empty
/// GPU that is there then; whether that is at once or after a reset, the driver says.
pub fn plan_gpu(now: &GpuSurvey, in_use: &InUse, wish: &GpuWish) -> Result<GpuPlan, PlanError> {
    let MigMode::Known { enabled, pending } = now.gpu.mig else {
        let nothing = || GpuPlan::default();
        return if wish.mig { Err(PlanError::NoMig(now.gpu.name.clone())) } else { Ok(nothing()) };
    };
    // A switch that waits for its clients comes into force when it is asked for again and they have gone.
    let set = |on: bool| (pending != on || enabled != on).then_some(Step::SetMigMode { enabled: on });
    if !wish.mig {
        let held: Vec<u32> =
            now.gpu.instances.iter().map(|instance| instance.id).filter(|id| in_use.holds(*id)).collect();
        if !held.is_empty() {
            return Err(PlanError::InTheWay { instances: held, possible: Vec::new() });
        }
        let mut steps: Vec<Step> = now.gpu.instances.iter().map(gone).collect();
        steps.extend(set(false));
        return Ok(GpuPlan { steps, ..GpuPlan::default() });
    }
    let geometry = now.geometry.as_ref().ok_or_else(|| PlanError::NoMig(now.gpu.name.clone()))?;
    let mut planned = plan(geometry, &now.gpu.instances, in_use, &wish.instances)?;
    planned.steps.splice(0..0, set(true));
    Ok(planned)
}
