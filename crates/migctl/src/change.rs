//! Steps, carried out GPU by GPU: progress, interruption, and the account of what was done and what was not.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mig_model::{ComputeInstance, GpuInstance, GpuSurvey, GpuUuid, Step};
use mig_nvml::{Activation, Done, Hardware, Outcome, Progress, Report};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::context::Context;
use crate::destroy::refuse_if_in_use;
use crate::failure::{Exit, Failure};
use crate::progress::Ticker;
use crate::users::Users;

/// What shall be done to one GPU.
#[derive(Debug)]
pub(crate) struct Change<'s> {
    pub(crate) gpu: &'s GpuSurvey,
    pub(crate) steps: Vec<Step>,
}

/// What became of it, as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Account {
    pub(crate) dry_run: bool,
    pub(crate) gpus: Vec<GpuAccount>,
    /// Why there is something left.
    #[serde(skip)]
    failure: Option<Failure>,
}

/// Every step is in `done`, `failed` or `left`.
#[derive(Debug, Serialize)]
pub(crate) struct GpuAccount {
    pub(crate) index: u32,
    pub(crate) uuid: GpuUuid,
    pub(crate) done: Vec<DoneStep>,
    pub(crate) failed: Option<FailedStep>,
    pub(crate) left: Vec<Step>,
    /// What has to be done by hand before MIG mode is what it shall be.
    pub(crate) needs: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DoneStep {
    #[serde(flatten)]
    pub(crate) step: Step,
    /// The GPU instance that was created, with its compute instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<GpuInstance>,
    /// The compute instance that was created in one that was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_compute: Option<ComputeInstance>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FailedStep {
    #[serde(flatten)]
    pub(crate) step: Step,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

/// Ctrl-C, or a terminal that goes away, once: stop after this step. Twice: stop at once, as without us.
struct Interruption(Arc<AtomicBool>);

impl Interruption {
    fn watch() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The first to be registered runs first: it sees the flag only from the second signal on.
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&asked))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| Failure::failed("Signals", format!("unable to watch for signals: {error}")))?;
        }
        Ok(Self(asked))
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Carries out every change, or none in a dry run. The first failure ends it all; a GPU that must be reset before it can go
/// on does not keep the others from theirs.
pub(crate) fn carry_out(context: &Context, hardware: &Hardware, changes: &[Change<'_>]) -> Result<Account, Failure> {
    let dry_run = context.options.dry_run;
    let mut account = Account { dry_run, gpus: Vec::new(), failure: None };
    let interruption = Interruption::watch()?;
    for change in changes {
        let Change { gpu: GpuSurvey { gpu, .. }, steps } = change;
        let mut own = GpuAccount {
            index: gpu.index,
            uuid: gpu.uuid.clone(),
            done: Vec::new(),
            failed: None,
            left: steps.clone(),
            needs: None,
        };
        // A mode that only a reset brings into force leaves nothing to create on.
        let switches = matches!(steps.as_slice(), [Step::SetMigMode { enabled: true }, _, ..]);
        let (first, rest) = steps.split_at(if switches { 1 } else { steps.len() });
        for part in [first, rest] {
            if dry_run || part.is_empty() || account.failure.is_some() || own.needs.is_some() {
                continue;
            }
            let ticker = Ticker::start(context, gpu.index);
            let mut taken = None;
            let report = hardware.execute(&gpu.uuid, part, &mut |progress| {
                if let Progress::Starting { step, number, of } = progress {
                    taken = still_free(context, change.gpu, step).err();
                    if interruption.asked() || taken.is_some() {
                        return ControlFlow::Break(());
                    }
                    ticker.begin(&format!("[{number}/{of}] {step}"));
                }
                ControlFlow::Continue(())
            });
            drop(ticker);
            let failure = own.take(report, change.gpu);
            account.failure = taken.or(failure);
        }
        account.gpus.push(own);
    }
    Ok(account)
}

/// The kubelet may have given an instance to a pod since all of it was planned, so it is asked again just before one goes.
/// Processes the driver itself protects.
fn still_free(context: &Context, survey: &GpuSurvey, step: &Step) -> Result<(), Failure> {
    if !matches!(step, Step::DestroyGpuInstance { .. } | Step::DestroyComputeInstance { .. }) {
        return Ok(());
    }
    let users = Users::read(context);
    users.refuse_if_unknown()?;
    refuse_if_in_use(&users, survey, std::slice::from_ref(step)).map_err(|mut failure| {
        failure.hints = vec!["it was taken into use after this was planned; look again, and try again".to_owned()];
        failure
    })
}

impl GpuAccount {
    /// What was done, a line each.
    pub(crate) fn lines_done(&self) -> String {
        self.done.iter().map(|done| format!("GPU {}: {done}\n", self.index)).collect()
    }

    fn take(&mut self, report: Report, gpu: &GpuSurvey) -> Option<Failure> {
        let taken = report.done.len() + usize::from(report.failed.is_some());
        self.left.drain(..taken.min(self.left.len()));
        for Done { step, outcome } in report.done {
            let mut done = DoneStep { step, created: None, created_compute: None };
            match outcome {
                Outcome::Destroyed => {}
                Outcome::Created(instance) => done.created = Some(instance),
                Outcome::CreatedCompute { compute_instance, .. } => done.created_compute = Some(compute_instance),
                Outcome::Mode { enabled, pending, activation } => {
                    self.needs =
                        (enabled != pending || activation != Activation::Done).then(|| needs(&activation, gpu));
                }
            }
            self.done.push(done);
        }
        if let Some(failed) = report.failed {
            let mut failure = Failure::from(&failed.error);
            failure.message = format!("GPU {}: {}", self.index, failure.message);
            let message = failed.error.to_string();
            self.failed = Some(FailedStep { step: failed.step, kind: failed.error.kind(), message });
            return Some(failure);
        }
        report.interrupted.then(|| Failure::new(Exit::Interrupted, "Interrupted", "interrupted"))
    }
}

/// What a switched mode still waits for.
fn needs(activation: &Activation, gpu: &GpuSurvey) -> String {
    let reset = match &gpu.gpu.pci_address {
        Some(pci) => format!("a reset of this GPU (nvidia-smi --gpu-reset -i {pci}), or in a virtual machine a reboot"),
        None => format!("a reset of this GPU (nvidia-smi --gpu-reset -i {}), or a reboot", gpu.gpu.index),
    };
    match activation {
        Activation::Done | Activation::NeedsReset => reset,
        Activation::ClientsInTheWay => {
            let users: Vec<_> =
                gpu.processes.iter().map(|process| crate::users::User::from(process).to_string()).collect();
            match users.as_slice() {
                [] => format!("its clients to stop (fuser -v /dev/nvidia* names them), then {reset}"),
                users => format!("{} to stop, then {reset}", users.join(", ")),
            }
        }
        Activation::Other { message, .. } => format!("{reset}; the driver said: {message}"),
    }
}

impl Account {
    /// Ends a verb: what was done is the answer, what was not the failure.
    pub(crate) fn tell(mut self, context: &Context, text: impl FnOnce(&Self) -> String) -> Result<(), Failure> {
        context.output.answer(&self, text)?;
        if let Some(failure) = self.failure.take() {
            let done: usize = self.gpus.iter().map(|gpu| gpu.done.len()).sum();
            let left: usize = self.gpus.iter().map(|gpu| gpu.left.len()).sum();
            let failure = match (done, left) {
                (0, 0) => failure,
                (0, _) => failure.hint("nothing was done"),
                (1, _) => failure.hint("1 step was done"),
                (done, _) => failure.hint(format!("{done} steps were done")),
            };
            return Err(self.gpus.iter().fold(failure, with_rest));
        }
        let waiting: Vec<&GpuAccount> = self.gpus.iter().filter(|gpu| gpu.needs.is_some()).collect();
        let Some(first) = waiting.first() else { return Ok(()) };
        let message = match waiting.len() {
            1 => format!("GPU {}: the new MIG mode is not in force yet", first.index),
            count => format!("{count} GPUs: the new MIG mode is not in force yet"),
        };
        let failure = Failure::new(Exit::NeedsReset, "NeedsReset", message);
        Err(waiting.into_iter().fold(failure, |failure, gpu| {
            let needs = gpu.needs.as_deref().unwrap_or_default();
            with_rest(failure.hint(format!("GPU {} needs {needs}", gpu.index)), gpu)
        }))
    }

    /// What is still to be done, a line each: all of it in a dry run.
    pub(crate) fn lines_left(&self) -> String {
        let line = |gpu: &GpuAccount, step: &Step| format!("GPU {}: {step}\n", gpu.index);
        self.gpus.iter().flat_map(|gpu| gpu.left.iter().map(move |step| line(gpu, step))).collect()
    }

    /// What was done, a line each.
    pub(crate) fn lines_done(&self) -> String {
        self.gpus.iter().map(GpuAccount::lines_done).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gpus.iter().all(|gpu| gpu.done.is_empty() && gpu.failed.is_none() && gpu.left.is_empty())
    }
}

/// In the past tense: `+ created GPU instance 2 (3g.20gb at 4:4): MIG-...`.
impl fmt::Display for DoneStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Step::SetMigMode { enabled: true } => f.write_str("* enabled MIG mode"),
            Step::SetMigMode { enabled: false } => f.write_str("* disabled MIG mode"),
            Step::DestroyComputeInstance { gpu_instance, compute_instance, profile, uuid } => {
                let host = format!("GPU instance {gpu_instance}");
                write!(f, "- destroyed compute instance {compute_instance} of {host} ({profile}, {uuid})")
            }
            Step::DestroyGpuInstance { gpu_instance, profile, placement, .. } => {
                let place = placement.map(|at| format!(" at {at}")).unwrap_or_default();
                write!(f, "- destroyed GPU instance {gpu_instance} ({profile}{place})")
            }
            Step::CreateGpuInstance { profile, placement, .. } => {
                let Some(GpuInstance { id, compute_instances, .. }) = &self.created else { return Ok(()) };
                let uuids: Vec<&str> = compute_instances.iter().map(|one| one.uuid.as_str()).collect();
                write!(f, "+ created GPU instance {id} ({profile} at {placement}): {}", uuids.join(", "))
            }
            Step::CreateComputeInstance { gpu_instance, profile } => {
                let Some(ComputeInstance { id, uuid, .. }) = &self.created_compute else { return Ok(()) };
                write!(f, "+ created compute instance {id} ({profile}) in GPU instance {gpu_instance}: {uuid}")
            }
        }
    }
}

/// What was not done, for an error.
fn with_rest(failure: Failure, gpu: &GpuAccount) -> Failure {
    gpu.left.iter().fold(failure, |failure, step| failure.hint(format!("not done: GPU {}: {step}", gpu.index)))
}
