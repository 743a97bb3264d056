//! Waiting for what the driver tells by itself, instead of sleeping between two readings.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mig_model::{Fault, GpuUuid, NodeInventory, XidEvent};
use nvml_wrapper_sys::bindings::nvmlDevice_t;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::DriverError;
use crate::pulse::{Phase, Pulse};
use crate::read::MOST_GPUS;
use crate::session::{Event, EventSet, Session, XIDS};

/// So long at most is waited at a time: somebody else may want something, which no event tells. At first that is likely,
/// since labels come when everything is served; later each look would cost as much as a reading.
const SLICE: Duration = Duration::from_secs(5);
const FIRST_SLICE: Duration = Duration::from_millis(100);
const FIRST: Duration = Duration::from_secs(15);
/// Between two readings, however much happens.
const PAUSE: Duration = Duration::from_millis(100);
/// What is there already is taken before the next reading, up to so much.
const MOST: usize = 4096;

/// Which GPUs are watched.
pub(crate) struct Watcher<'s> {
    session: &'s Session,
    set: Option<EventSet<'s>>,
    gpus: BTreeMap<GpuUuid, Result<nvmlDevice_t, Fault>>,
    /// By index: GPUs that were made to tell before anybody knew who they are.
    early: BTreeMap<u32, Result<nvmlDevice_t, Fault>>,
    /// How often in a row waiting has failed, and why the last time.
    failed: (u32, Option<Fault>),
    began: Instant,
}

impl<'s> Watcher<'s> {
    pub(crate) fn new(session: &'s Session) -> Self {
        Self {
            session,
            set: None,
            gpus: BTreeMap::new(),
            early: BTreeMap::new(),
            failed: (0, None),
            began: Instant::now(),
        }
    }

    /// Makes the GPUs tell, before they are read: what changes while they are is told then.
    pub(crate) fn begin(&mut self) {
        // Where they can't be counted, the reading says so.
        let count = self.session.gpu_count().unwrap_or_default().min(MOST_GPUS);
        self.early = (0..count).map(|index| (index, self.register(index))).collect();
    }

    /// Watches every GPU that answers, and says of which ones that fails. Whether what was read may be old by now: some
    /// tell only from now on.
    pub(crate) fn watch(&mut self, inventory: &mut NodeInventory, xids: &UnboundedSender<XidEvent>) -> bool {
        let answers = |uuid: &GpuUuid| inventory.gpus.iter().any(|gpu| gpu.uuid == *uuid && gpu.fault.is_none());
        // One lost GPU ends every wait for the set that has it; and a set that has failed twice may be the set's fault.
        let is_without = !self.gpus.keys().all(answers);
        if self.failed.0 > 1 || is_without {
            self.drain(xids);
            self.gpus.clear();
            self.set = None;
        }
        // A set without the GPU that is lost has to fail by itself.
        if is_without {
            self.failed = (0, None);
        }
        let mut late = false;
        for gpu in inventory.gpus.iter_mut().filter(|gpu| gpu.fault.is_none()) {
            let known = self.gpus.get(&gpu.uuid).and_then(|known| known.as_ref().ok().copied());
            let watched = match known.map(Ok).or_else(|| self.early.remove(&gpu.index)) {
                Some(watched) => watched,
                None => {
                    let watched = self.register(gpu.index);
                    // Not where waiting fails again and again: that would be a reading without a rest.
                    late |= watched.is_ok() && self.failed.0 == 0;
                    watched
                }
            };
            // Once may be the fault of a GPU that is lost, and watched no more from now on.
            let broken = self.failed.1.clone().filter(|_| self.failed.0 > 1);
            gpu.unwatched = watched.as_ref().err().cloned().or(broken);
            self.gpus.insert(gpu.uuid.clone(), watched);
        }
        self.early.clear();
        late
    }

    /// Tells what the set still has.
    fn drain(&self, xids: &UnboundedSender<XidEvent>) {
        for _ in 0..MOST {
            match self.set.as_ref().map(|set| set.wait(Duration::ZERO)) {
                Some(Ok(Some(event))) => self.tell(&event, xids),
                _ => return,
            }
        }
    }

    fn register(&mut self, index: u32) -> Result<nvmlDevice_t, Fault> {
        let told = |error: DriverError| Fault {
            kind: "Unwatched",
            message: format!("the driver does not tell of errors (XIDs) of this GPU: {error}"),
        };
        let set = match &mut self.set {
            Some(set) => set,
            none => none.insert(self.session.event_set().map_err(told)?),
        };
        let gpu = self.session.gpu(index).map_err(told)?;
        let supported = gpu.supported_events().map_err(told)?;
        if supported & XIDS == 0 {
            let message = "the driver does not tell of errors (XIDs) of this GPU: it has no such events".to_owned();
            return Err(Fault { kind: "Unwatched", message });
        }
        set.register(&gpu, supported).map_err(told)?;
        Ok(gpu.raw())
    }

    /// Returns when it is time for a reading: after this long, when something has happened, or when somebody wants it.
    pub(crate) fn rest(
        &mut self,
        longest: Duration,
        wake: &mpsc::Receiver<()>,
        xids: &UnboundedSender<XidEvent>,
        pulse: &Pulse,
    ) {
        let began = Instant::now();
        let mut rest = longest;
        let mut taken = 0;
        loop {
            let left = rest.saturating_sub(began.elapsed());
            let Some(set) = self.set.as_ref().filter(|_| self.gpus.values().any(Result::is_ok)) else {
                pulse.set(Phase::Resting);
                // It can't be disconnected, since the owner holds a sender, too.
                let _ = wake.recv_timeout(left);
                return;
            };
            // What is there already is taken in any case.
            let slice = left.min(if self.began.elapsed() < FIRST { FIRST_SLICE } else { SLICE });
            pulse.set(Phase::Waiting(slice));
            let answer = set.wait(slice);
            if pulse.was_late() {
                if let Ok(Some(event)) = &answer {
                    self.tell(event, xids);
                }
                return;
            }
            if answer.is_ok() {
                self.failed = (0, None);
            }
            match answer {
                Ok(Some(event)) => {
                    self.tell(&event, xids);
                    rest = rest.min(PAUSE);
                    taken += 1;
                }
                Ok(None) if left.is_zero() || wake.try_recv().is_ok() => return,
                Ok(None) => {}
                Err(error) => {
                    let message = format!("the driver does not tell of errors (XIDs): {error}");
                    let count = self.failed.0.saturating_add(1);
                    self.failed = (count, Some(Fault { kind: "Unwatched", message }));
                    // A lost GPU ends the wait for all: the next reading shows which one it is.
                    let pause = PAUSE.min(longest);
                    pulse.set(Phase::Resting);
                    let _ = wake.recv_timeout(if count > 1 { left.max(pause) } else { pause });
                    return;
                }
            }
            if taken >= MOST && began.elapsed() >= rest {
                return;
            }
        }
    }

    fn tell(&self, event: &Event, xids: &UnboundedSender<XidEvent>) {
        let Some(xid) = event.xid else { return };
        let known = self.gpus.iter().find(|(_, watched)| watched.as_ref().is_ok_and(|raw| *raw == event.gpu));
        let uuid = match known {
            Some((uuid, _)) => Ok(uuid.clone()),
            None => self.session.gpu_of(event).uuid().and_then(|uuid| Ok(GpuUuid::new(uuid)?)),
        };
        match uuid {
            Ok(gpu) => {
                let Event { gpu_instance, compute_instance, .. } = *event;
                // Whoever listened is ending.
                let _ = xids.send(XidEvent { gpu, xid, gpu_instance, compute_instance });
            }
            Err(error) => tracing::warn!(xid, "the driver reports an error of a GPU that it does not name: {error}"),
        }
    }
}
