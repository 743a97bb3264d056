//! Taking the steps of a plan.
//!
//! Before each change the GPU is found by its UUID and looked at anew, and no handle is used after the next change: a
//! change of mode may move handles and minor numbers, and an id may have passed to another instance since the plan.

use std::ops::ControlFlow;

use mig_model::{ComputeInstance, GpuInstance, GpuUuid, MigUuid, Placement, Profile, Step};
use nvml_wrapper::error::NvmlError;

use crate::cut::{Cut, known_compute_profiles, read_cut};
use crate::error::{DriverError, kind_of, words};
use crate::hardware::Hardware;
use crate::names::{KnownProfile, known_profiles};
use crate::report::{Activation, Done, Failed, Outcome, Progress, Report, StepError};
use crate::session::{ComputeHandle, Handle, InstanceHandle, Session};

pub(crate) fn execute(
    hardware: &Hardware,
    gpu: &GpuUuid,
    steps: &[Step],
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Report {
    let mut report = Report::default();
    for (position, step) in steps.iter().enumerate() {
        let starting = Progress::Starting { step, number: position + 1, of: steps.len() };
        let mut left = steps.get(position..).unwrap_or_default();
        if watch(starting).is_break() {
            report.interrupted = true;
        } else {
            left = left.get(1..).unwrap_or_default();
            match Taking::new(&hardware.session, gpu, step).take() {
                Ok(outcome) => {
                    report.done.push(Done { step: step.clone(), outcome });
                    report.interrupted = watch(Progress::Done { step }).is_break() && !left.is_empty();
                }
                Err(error) => report.failed = Some(Failed { step: step.clone(), error }),
            }
        }
        if report.interrupted || report.failed.is_some() {
            report.left = left.to_vec();
            break;
        }
    }
    report
}

/// One step.
struct Taking<'t> {
    session: &'t Session,
    uuid: &'t GpuUuid,
    step: &'t Step,
    /// The step in words: `create 3g.20gb at 4:4`.
    words: String,
}

/// What is tried when a creation fails half-way.
const TAKE_AWAY: &str = "take it away";

type Taken<T> = Result<T, StepError>;

impl<'t> Taking<'t> {
    fn new(session: &'t Session, uuid: &'t GpuUuid, step: &'t Step) -> Self {
        // A sign stands before the words.
        let words = step.to_string().trim_start_matches(|c: char| !c.is_ascii_alphabetic()).to_owned();
        Self { session, uuid, step, words }
    }

    fn take(&self) -> Taken<Outcome> {
        match self.step {
            Step::SetMigMode { enabled } => self.set_mode(*enabled),
            Step::DestroyComputeInstance { gpu_instance, compute_instance, profile, uuid } => {
                self.check_compute(*gpu_instance, *compute_instance, profile, uuid)?;
                self.destroy_compute(*gpu_instance, *compute_instance).map_err(self.failed())?;
                Ok(Outcome::Destroyed)
            }
            Step::DestroyGpuInstance { gpu_instance, profile, placement, compute_instances } => {
                let found = self.check_instance(*gpu_instance, profile, *placement, compute_instances)?;
                self.destroy_instance(&found, &self.words)?;
                Ok(Outcome::Destroyed)
            }
            Step::CreateGpuInstance { profile, placement, compute } => {
                self.create_instance(profile, *placement, compute).map(Outcome::Created)
            }
            Step::CreateComputeInstance { gpu_instance, profile } => {
                let compute_instance = self.create_compute(*gpu_instance, profile)?;
                Ok(Outcome::CreatedCompute { gpu_instance: *gpu_instance, compute_instance })
            }
        }
    }

    fn failed(&self) -> impl Fn(DriverError) -> StepError {
        refused(&self.words)
    }

    fn gpu(&self) -> Result<Handle<'t>, DriverError> {
        self.session.gpu_by_uuid(self.uuid)
    }

    fn instance(&self, id: u32) -> Result<InstanceHandle<'t>, DriverError> {
        self.gpu()?.instance(id)
    }

    fn cut(&self) -> Result<Cut, DriverError> {
        let gpu = self.gpu()?;
        read_cut(&gpu, &known_profiles(&gpu)?)
    }

    fn find(&self, id: u32) -> Result<Option<GpuInstance>, DriverError> {
        Ok(self.cut()?.instances.into_iter().find(|instance| instance.id == id))
    }
}

/// The mode.
impl Taking<'_> {
    fn set_mode(&self, enabled: bool) -> Taken<Outcome> {
        let switched = self.gpu().and_then(|gpu| gpu.set_mig_mode(enabled)).map_err(self.failed())?;
        let activation = match switched {
            Ok(()) => Activation::Done,
            Err(NvmlError::InUse) => Activation::ClientsInTheWay,
            Err(NvmlError::ResetRequired) => Activation::NeedsReset,
            Err(other) => Activation::Other { kind: kind_of(&other), message: words(&other).into_owned() },
        };
        let read_back =
            |error| StepError::Driver { tried: format!("see what came of it, after {}", self.words), error };
        let (enabled, pending) = self.gpu().and_then(|gpu| gpu.mig_mode()).map_err(read_back)?;
        Ok(Outcome::Mode { enabled, pending, activation })
    }
}

/// What goes.
impl Taking<'_> {
    fn check_compute(&self, gpu_instance: u32, id: u32, profile: &Profile, uuid: &MigUuid) -> Taken<()> {
        let what = format!("compute instance {id} of GPU instance {gpu_instance} ({profile}, {uuid})");
        let Some(within) = self.find(gpu_instance).map_err(self.failed())? else {
            return Err(StepError::Changed { what, now: "that GPU instance is gone".to_owned() });
        };
        match within.compute_instances.iter().find(|compute| compute.id == id) {
            None => Err(StepError::Changed { what, now: "it is gone".to_owned() }),
            Some(now) if now.uuid != *uuid || now.profile != *profile => {
                Err(StepError::Changed { what, now: format!("{} of profile {} has its number", now.uuid, now.profile) })
            }
            Some(_) => Ok(()),
        }
    }

    fn check_instance(
        &self,
        id: u32,
        profile: &Profile,
        placement: Option<Placement>,
        compute_instances: &[(u32, MigUuid)],
    ) -> Taken<GpuInstance> {
        let place = placement.map(|at| format!(" at {at}")).unwrap_or_default();
        let what = format!("GPU instance {id} ({profile}{place})");
        let Some(found) = self.find(id).map_err(self.failed())? else {
            return Err(StepError::Changed { what, now: "it is gone".to_owned() });
        };
        if found.profile != *profile || placement.is_some() && found.placement != placement {
            let at = found.placement.map(|at| format!(" at {at}")).unwrap_or_default();
            return Err(StepError::Changed { what, now: format!("a {}{at} has its number", found.profile) });
        }
        for (id, uuid) in compute_instances {
            let now = match found.compute_instances.iter().find(|compute| compute.id == *id) {
                None => format!("its compute instance {id} ({uuid}) is gone"),
                Some(now) if now.uuid != *uuid => format!("its compute instance {id} was {uuid} and is {}", now.uuid),
                Some(_) => continue,
            };
            return Err(StepError::Changed { what, now });
        }
        Ok(found)
    }

    /// With all compute instances that it has, also those that nobody knew of when this was planned.
    fn destroy_instance(&self, found: &GpuInstance, tried: &str) -> Taken<()> {
        let mut destroyed = Vec::new();
        for compute in &found.compute_instances {
            if let Err(error) = self.destroy_compute(found.id, compute.id) {
                return Err(partly(refused(tried)(error), destroyed));
            }
            destroyed.push(compute.uuid.clone());
        }
        let result = self.instance(found.id).and_then(InstanceHandle::destroy);
        result.map_err(|error| partly(refused(tried)(error), destroyed))
    }

    fn destroy_compute(&self, gpu_instance: u32, id: u32) -> Result<(), DriverError> {
        self.instance(gpu_instance)?.compute_instance(id)?.destroy()
    }
}

/// What comes.
impl Taking<'_> {
    fn create_instance(&self, profile: &Profile, placement: Placement, compute: &[Profile]) -> Taken<GpuInstance> {
        let gpu = self.gpu().map_err(self.failed())?;
        let known = known_profiles(&gpu).map_err(self.failed())?;
        // Who may create but not look could neither tell what came of it nor take it back.
        read_cut(&gpu, &known).map_err(self.failed())?;
        let Some(KnownProfile { info, .. }) = known.iter().find(|known| known.profile == *profile) else {
            return Err(self.unknown(profile, known.into_iter().map(|known| known.profile)));
        };
        let made = gpu.create_instance(info.id, placement).map_err(self.failed())?;
        let info = match made.info() {
            Ok(info) => info,
            // Its id is not known, but nothing has changed since: the handle is good.
            Err(error) => return Err(after(self.failed()(error), made.destroy().map_err(refused(TAKE_AWAY)))),
        };
        let complete = || {
            if info.placement != placement {
                let (profile, wanted, got) = (profile.clone(), placement, info.placement);
                return Err(StepError::Misplaced { profile, wanted, got });
            }
            for part in compute {
                self.make_compute(info.id, profile, part)?;
            }
            self.find(info.id).map_err(self.failed())?.ok_or_else(|| self.vanished())
        };
        complete().map_err(|cause| after(cause, self.take_away(info.id)))
    }

    /// A GPU instance that was just created, with whatever it has.
    fn take_away(&self, id: u32) -> Taken<()> {
        match self.find(id).map_err(refused(TAKE_AWAY))? {
            Some(found) => self.destroy_instance(&found, TAKE_AWAY),
            None => Ok(()),
        }
    }

    fn create_compute(&self, gpu_instance: u32, profile: &Profile) -> Taken<ComputeInstance> {
        let Some(within) = self.find(gpu_instance).map_err(self.failed())? else {
            let what = format!("GPU instance {gpu_instance}");
            return Err(StepError::Changed { what, now: "it is gone".to_owned() });
        };
        let made = self.make_compute(gpu_instance, &within.profile, profile)?;
        let id = match made.info() {
            Ok(info) => info.id,
            Err(error) => return Err(after(self.failed()(error), made.destroy().map_err(refused(TAKE_AWAY)))),
        };
        let find = || {
            let within = self.find(gpu_instance).map_err(self.failed())?;
            let mut all = within.into_iter().flat_map(|instance| instance.compute_instances);
            all.find(|compute| compute.id == id).ok_or_else(|| self.vanished())
        };
        find().map_err(|cause| after(cause, self.destroy_compute(gpu_instance, id).map_err(refused(TAKE_AWAY))))
    }

    fn make_compute(&self, gpu_instance: u32, within: &Profile, profile: &Profile) -> Taken<ComputeHandle<'_>> {
        let instance = self.instance(gpu_instance).map_err(self.failed())?;
        let known = known_compute_profiles(&instance, within).map_err(self.failed())?;
        let Some(found) = known.iter().find(|known| known.profile == *profile) else {
            return Err(self.unknown(profile, known.into_iter().map(|known| known.profile)));
        };
        instance.create_compute_instance(found.info.id).map_err(self.failed())
    }

    fn unknown(&self, profile: &Profile, known: impl Iterator<Item = Profile>) -> StepError {
        StepError::UnknownProfile { tried: self.words.clone(), profile: profile.clone(), known: known.collect() }
    }

    fn vanished(&self) -> StepError {
        StepError::Changed { what: format!("what was created to {}", self.words), now: "it is gone again".to_owned() }
    }
}

/// `map_err` for what the driver would not do.
fn refused(tried: &str) -> impl Fn(DriverError) -> StepError {
    move |error| StepError::Driver { tried: tried.to_owned(), error }
}

fn partly(cause: StepError, destroyed: Vec<MigUuid>) -> StepError {
    if destroyed.is_empty() { cause } else { StepError::Destroyed { cause: Box::new(cause), destroyed } }
}

/// A failure after something was created, and what became of that.
fn after(cause: StepError, taken_away: Taken<()>) -> StepError {
    StepError::Created { cause: Box::new(cause), left_behind: taken_away.err().map(Box::new) }
}
