//! Keeps what is wrong with which GPU and slice.

mod known;

use std::collections::BTreeMap;
use std::time::Duration;

use mig_model::{Fault, Gpu, GpuUuid, MigUuid, NodeInventory, Recovery as Wanted, Vitals, XidEvent};

use crate::Moment;
use crate::cause::{Cause, Key, Proof, What};
use crate::policy::{Policy, Recovery};
use crate::record::{Held, Record, VERSION};
use crate::states::{State, faults};
use crate::table::{Blame, Ending, Entry, Scope};

use self::known::{DOUBT, Known, Slice, slices};

/// While something waits for the next reading.
const SOON: Duration = Duration::from_millis(250);
/// Of events that wait for a reading; more than any machine has slices.
const MOST_WAITING: usize = 1024;

/// Kinds of the driver's own faults that only a reset mends.
const LOST: [&str; 4] = ["GpuIsLost", "GpuIsGone", "ResetRequired", "DriverNotLoaded"];

/// What became of an XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Something is unhealthy because of it.
    Counts,
    /// Nothing is.
    Ignored,
    /// What it names is not known yet.
    Waits,
}

/// The XID that a GPU had last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastXid {
    /// Its number.
    pub xid: u64,
    /// When it was told.
    pub at: Moment,
}

/// All that is wrong, and was not long ago.
#[derive(Debug)]
pub struct Monitor {
    policy: Policy,
    /// How long a driver may have been late before nothing of it can be believed.
    hang_after: Duration,
    late_since: Option<Moment>,
    causes: BTreeMap<Key, Cause>,
    gpus: BTreeMap<GpuUuid, Known>,
    waiting: Vec<(XidEvent, Moment)>,
    last: BTreeMap<GpuUuid, LastXid>,
}

impl Monitor {
    /// Knows of nothing yet. A driver that is late for `hang_after` hangs.
    pub fn new(policy: Policy, hang_after: Duration) -> Self {
        Self {
            policy,
            hang_after,
            late_since: None,
            causes: BTreeMap::new(),
            gpus: BTreeMap::new(),
            waiting: Vec::new(),
            last: BTreeMap::new(),
        }
    }

    /// What the policy is.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Other rules hold from now on. What they ignore makes nothing unhealthy any more; what those before ignored is not
    /// remembered, and counts when it happens again.
    pub fn adopt(&mut self, policy: Policy, now: Moment) {
        self.settle(now);
        self.policy = policy;
        let policy = &self.policy;
        self.waiting.retain(|(event, _)| policy.acts_on(event.xid));
        self.causes.retain(|key, cause| match key.what {
            What::Xid(xid) => {
                cause.ends_by(policy.of(xid).recovery);
                cause.fault = told(xid, policy.of(xid));
                policy.acts_on(xid)
            }
            What::State(state) => policy.acts_on_state(state),
            What::Unwatched => !policy.advertises_unwatched(),
            What::Driver | What::Hang => true,
        });
        self.settle(now);
    }

    /// The driver has reported an error.
    pub fn xid(&mut self, event: &XidEvent, now: Moment) -> Told {
        self.settle(now);
        self.last.insert(event.gpu.clone(), LastXid { xid: event.xid, at: now });
        let entry = self.policy.of(event.xid);
        // Whose an error is that could not be corrected. What is over by itself says nothing of such errors: 63 and 92 come
        // of those that were corrected.
        if entry.blame == Blame::Memory && entry.recovery == Ending::Hardware {
            self.gpus.entry(event.gpu.clone()).or_default().memory = Some(now);
        }
        if !self.policy.acts_on(event.xid) {
            return Told::Ignored;
        }
        match self.meant(event) {
            Some(keys) => {
                keys.into_iter().for_each(|key| self.occurs(key, now));
                Told::Counts
            }
            None => {
                let known = self.waiting.iter().any(|(waiting, _)| waiting == event);
                if !known && self.waiting.len() < MOST_WAITING {
                    self.waiting.push((event.clone(), now));
                }
                Told::Waits
            }
        }
    }

    /// Whom an event is about; nothing if that is not known yet.
    fn meant(&self, event: &XidEvent) -> Option<Vec<Key>> {
        let XidEvent { gpu, xid, gpu_instance, compute_instance } = event;
        let entry = self.policy.of(*xid);
        let key = |slice: Option<MigUuid>| Key { gpu: gpu.clone(), slice, what: What::Xid(*xid) };
        let known = self.gpus.get(gpu);
        let of_slices = |slices: &mut dyn Iterator<Item = &Slice>| {
            slices.map(|slice| key(Some(slice.uuid.clone()))).collect::<Vec<Key>>()
        };
        match (entry.scope, gpu_instance) {
            (Scope::Gpu, _) => Some(vec![key(None)]),
            (Scope::Slice, Some(instance)) => {
                let named = |slice: &&Slice| {
                    slice.instance == *instance && compute_instance.is_none_or(|compute| slice.compute == compute)
                };
                let keys = of_slices(&mut known?.slices.iter().filter(named));
                (!keys.is_empty()).then_some(keys)
            }
            // A mistake in a program that is gone says nothing of slices that are cut later; broken hardware does.
            (Scope::Slice, None) if entry.recovery == Ending::Application => {
                let known = known.filter(|known| known.cut && !known.slices.is_empty());
                Some(known.map_or_else(|| vec![key(None)], |known| of_slices(&mut known.slices.iter())))
            }
            (Scope::Slice, None) => Some(vec![key(None)]),
        }
    }

    fn occurs(&mut self, key: Key, now: Moment) {
        let What::Xid(xid) = key.what else { return };
        let entry = self.policy.of(xid);
        let (fault, ending) = (told(xid, entry), entry.recovery);
        self.happens(key, fault, Some(ending), now);
    }

    fn happens(&mut self, key: Key, fault: Fault, ending: Option<Ending>, now: Moment) {
        match self.causes.get_mut(&key) {
            Some(cause) => {
                cause.ending = ending;
                cause.occurs(fault, &self.policy.recovery, now);
            }
            None => _ = self.causes.insert(key, Cause::new(fault, ending, now)),
        }
    }

    /// A state is there, or it is not.
    fn is(&mut self, gpu: &GpuUuid, what: What, fault: Option<Fault>, now: Moment) {
        let key = Key { gpu: gpu.clone(), slice: None, what };
        match fault {
            Some(fault) => self.happens(key, fault, None, now),
            None => {
                if let Some(cause) = self.causes.get_mut(&key) {
                    cause.fades(Proof::Confirmed, now);
                }
            }
        }
    }

    /// Nothing is told of a state that was there: it does not fade meanwhile.
    fn stays(&mut self, gpu: &GpuUuid, state: State) {
        let key = Key { gpu: gpu.clone(), slice: None, what: What::State(state) };
        if let Some(cause) = self.causes.get_mut(&key).filter(|cause| cause.counts()) {
            cause.fading = None;
        }
    }

    /// The GPUs were read, the last time at `read`. To be told again while nothing changes, too: time passes.
    pub fn read(&mut self, inventory: &NodeInventory, read: Moment, now: Moment) {
        self.settle(now);
        for gpu in &inventory.gpus {
            let known = self.gpus.entry(gpu.uuid.clone()).or_default();
            known.answers = gpu.fault.is_none();
            if known.answers {
                known.read = true;
                known.cut = gpu.mig.is_enabled();
                known.slices = slices(gpu);
            }
        }
        for (event, at) in std::mem::take(&mut self.waiting) {
            match self.meant(&event) {
                Some(keys) => keys.into_iter().for_each(|key| self.occurs(key, now)),
                None if read > at => {
                    // A reading that is younger than the event does not have the slice: it is gone, with its error. A GPU
                    // that is not cut has none that could be gone.
                    if self.gpus.get(&event.gpu).is_some_and(|known| known.read && !known.cut) {
                        self.occurs(Key { gpu: event.gpu, slice: None, what: What::Xid(event.xid) }, now);
                    }
                }
                None => self.waiting.push((event, at)),
            }
        }
        for gpu in &inventory.gpus {
            self.look_at(gpu, read, now);
        }
        // Of a GPU that has never been read only the index is known: it may be any of those that are missing.
        let is_gone = |fault: &Fault| LOST.contains(&fault.kind);
        let may_be_there = inventory.unreadable.iter().any(|gpu| !is_gone(&gpu.fault));
        for (uuid, known) in self.gpus.iter_mut().filter(|_| !may_be_there) {
            if !inventory.gpus.iter().any(|gpu| gpu.uuid == *uuid) {
                known.answers = false;
                known.lost = true;
                known.doubt = None;
                let own = self.causes.iter_mut().filter(|(key, _)| key.gpu == *uuid);
                own.for_each(|(_, cause)| distrust(cause));
            }
        }
        self.settle(now);
    }

    fn look_at(&mut self, gpu: &Gpu, read: Moment, now: Moment) {
        let uuid = &gpu.uuid;
        self.is(uuid, What::Driver, gpu.fault.clone(), now);
        let unwatched = gpu.unwatched.clone().filter(|_| !self.policy.advertises_unwatched());
        self.is(uuid, What::Unwatched, unwatched, now);
        if let Some(fault) = &gpu.fault {
            // What else is told of it is old.
            let known = self.gpus.entry(uuid.clone()).or_default();
            known.lost |= LOST.contains(&fault.kind);
            known.doubt = None;
            let own = self.causes.iter_mut().filter(|(key, _)| key.gpu == *uuid);
            own.for_each(|(_, cause)| distrust(cause));
            return;
        }
        let present: Vec<(State, Fault)> =
            faults(&gpu.vitals).into_iter().filter(|(state, _)| self.policy.acts_on_state(*state)).collect();
        let (wants, rows) = (gpu.vitals.recovery.is_some(), gpu.vitals.remapped_rows.is_some());
        for (state, told) in
            [(State::RecoveryWanted, wants), (State::RowRemapFailed, rows), (State::RowRemapPending, rows)]
        {
            // Silence is no answer: what was told last still holds.
            if !told && self.policy.acts_on_state(state) {
                self.stays(uuid, state);
                continue;
            }
            let fault = present.iter().find(|(own, _)| *own == state).map(|(_, fault)| fault.clone());
            self.is(uuid, What::State(state), fault, now);
        }
        let risen = self.policy.acts_on_state(State::UncorrectableErrors);
        let known = self.gpus.entry(uuid.clone()).or_default();
        let rise = known.rises(&gpu.vitals, now) && risen;
        let reset = known.was_reset(&gpu.vitals);
        let silent = known.wanted.is_some() && !wants || known.pending.is_some() && !rows;
        if rise {
            let key = Key { gpu: uuid.clone(), slice: None, what: What::State(State::UncorrectableErrors) };
            self.happens(key, State::UncorrectableErrors.fault(&gpu.vitals), Some(Ending::Hardware), now);
        }
        let proof = match gpu.vitals.recovery {
            _ if reset => Proof::Reset,
            Some(Wanted::None) => Proof::Confirmed,
            _ => Proof::Answers,
        };
        let slices = slices(gpu);
        for (key, cause) in self.causes.iter_mut().filter(|(key, _)| key.gpu == *uuid) {
            let gone = key.slice.as_ref().is_some_and(|slice| !slices.iter().any(|own| own.uuid == *slice));
            if cause.ending != Some(Ending::Hardware) {
                continue;
            }
            if !present.is_empty() || silent {
                distrust(cause);
            } else if gone {
                // Whatever comes in its place is another.
                cause.fades(Proof::Reset, now);
            } else if read > cause.last {
                cause.fades(proof, now);
            }
        }
    }

    /// Whether the driver has been late since the last look. What was read last stays what is known.
    pub fn late(&mut self, late: bool, now: Moment) {
        self.settle(now);
        self.late_since = late.then(|| self.late_since.unwrap_or(now));
        let hangs = self.late_since.is_some_and(|since| now.saturating_sub(since) >= self.hang_after);
        let fault = hangs.then(|| Fault {
            kind: "DriverHangs",
            message:
                "the driver does not answer at all: see the kernel's log (dmesg); it needs a reset of the GPUs or a \
                      restart of the node"
                    .to_owned(),
        });
        let gpus: Vec<GpuUuid> = self.gpus.keys().cloned().collect();
        for gpu in gpus {
            self.is(&gpu, What::Hang, fault.clone(), now);
        }
    }

    fn settle(&mut self, now: Moment) {
        let recovery: Recovery = self.policy.recovery;
        self.causes.retain(|_, cause| cause.settle(&recovery, now));
    }

    /// The same inventory with everything that is wrong at this moment.
    pub fn mark(&mut self, inventory: &NodeInventory, now: Moment) -> NodeInventory {
        self.settle(now);
        let mut worst: BTreeMap<(&GpuUuid, Option<&MigUuid>), (&Key, &Cause)> = BTreeMap::new();
        for (key, cause) in self.causes.iter().filter(|(_, cause)| cause.counts()) {
            let place = worst.entry((&key.gpu, key.slice.as_ref())).or_insert((key, cause));
            if cause.rank(key.what) < place.1.rank(place.0.what) {
                *place = (key, cause);
            }
        }
        let told = |gpu: &GpuUuid, slice: Option<&MigUuid>| {
            worst.get(&(gpu, slice)).map(|(_, cause)| cause.told(&self.policy.recovery))
        };
        let hangs =
            |(key, cause): (&Key, &Cause), gpu: &GpuUuid| key.what == What::Hang && key.gpu == *gpu && cause.counts();
        let mut inventory = inventory.clone();
        for gpu in &mut inventory.gpus {
            // What runs there was told long ago.
            gpu.outdated |= self.causes.iter().any(|cause| hangs(cause, &gpu.uuid));
            // The driver's own word stays as it is.
            gpu.fault = gpu.fault.take().or_else(|| told(&gpu.uuid, None));
            for compute in gpu.instances.iter_mut().flat_map(|instance| &mut instance.compute_instances) {
                compute.fault = compute.fault.take().or_else(|| told(&gpu.uuid, Some(&compute.uuid)));
            }
        }
        inventory
    }

    /// When something will be otherwise though nothing happens.
    pub fn next(&self, now: Moment) -> Option<Moment> {
        let counting = || self.causes.values().filter(|cause| cause.counts());
        let ends = counting().filter_map(|cause| cause.end(&self.policy.recovery));
        let doubts = self.gpus.values().filter_map(|known| known.doubt).map(|since| since.saturating_add(DOUBT));
        let hang = self.late_since.map(|since| since.saturating_add(self.hang_after));
        // What is past waits for the driver, and not for time.
        let due = doubts.chain(hang).filter(|at| *at > now);
        // A GPU that cannot be read proves nothing, and its return is another view.
        let answers = |key: &Key| self.gpus.get(&key.gpu).is_some_and(|known| known.answers);
        let is_open =
            |cause: &Cause| cause.counts() && cause.ending == Some(Ending::Hardware) && cause.fading.is_none();
        let waits = !self.waiting.is_empty() || self.causes.iter().any(|(key, cause)| is_open(cause) && answers(key));
        let soon = (waits && self.late_since.is_none()).then(|| now.saturating_add(SOON));
        ends.chain(due).chain(soon).min()
    }

    /// The XID that each GPU had last.
    pub fn last_xids(&self) -> &BTreeMap<GpuUuid, LastXid> {
        &self.last
    }

    /// What has to outlive the process.
    pub fn record(&self) -> Record {
        let milliseconds = |moment: Moment| u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
        let faults = self.causes.iter().filter_map(|(key, cause)| {
            cause.ending?;
            let xid = if let What::Xid(xid) = key.what { Some(xid) } else { None };
            Some(Held {
                gpu: key.gpu.to_string(),
                slice: key.slice.as_ref().map(ToString::to_string),
                xid,
                message: cause.fault.message.clone(),
                since_ms: milliseconds(cause.since),
                last_ms: milliseconds(cause.last),
                returns: cause.returns,
                ended_ms: cause.over.map(milliseconds),
            })
        });
        let errors = self.gpus.iter().filter_map(|(gpu, known)| Some((gpu.to_string(), known.errors?)));
        Record {
            version: VERSION,
            faults: faults.collect(),
            uncorrectable_errors: errors.collect(),
            ..Record::default()
        }
    }

    /// Takes up what an earlier process knew. What cannot be, or does not count any more, is passed over.
    pub fn restore(&mut self, record: &Record, now: Moment) {
        if record.version != VERSION {
            return;
        }
        for (gpu, errors) in &record.uncorrectable_errors {
            if let Ok(gpu) = GpuUuid::new(gpu.as_str()) {
                self.gpus.entry(gpu).or_default().errors = Some(*errors);
            }
        }
        for held in &record.faults {
            let Ok(gpu) = GpuUuid::new(held.gpu.as_str()) else { continue };
            let slice = match held.slice.as_deref().map(MigUuid::new) {
                Some(Ok(slice)) => Some(slice),
                Some(Err(_)) => continue,
                None => None,
            };
            let moment = |milliseconds: u64| Duration::from_millis(milliseconds).min(now);
            let (key, fault, ending) = match held.xid {
                Some(xid) if self.policy.acts_on(xid) => {
                    let entry = self.policy.of(xid);
                    (Key { gpu, slice, what: What::Xid(xid) }, told(xid, entry), entry.recovery)
                }
                None if self.policy.acts_on_state(State::UncorrectableErrors) => {
                    let state = State::UncorrectableErrors;
                    let key = Key { gpu, slice: None, what: What::State(state) };
                    (key, state.fault(&Vitals::default()), Ending::Hardware)
                }
                _ => continue,
            };
            let mut cause = Cause::new(fault, Some(ending), moment(held.last_ms));
            cause.since = moment(held.since_ms);
            cause.returns = held.returns;
            cause.over = held.ended_ms.map(moment);
            // What has happened since is newer.
            self.causes.entry(key).or_insert(cause);
        }
        self.settle(now);
    }
}

/// What has happened, and what is to be done.
fn told(xid: u64, entry: &Entry) -> Fault {
    Fault { kind: "Xid", message: format!("XID {xid}: {} ({}); {}", entry.name, entry.blame, entry.action) }
}

/// What was taken for its end was none.
fn distrust(cause: &mut Cause) {
    if cause.ending == Some(Ending::Hardware) && cause.counts() {
        cause.fading = None;
    }
}

#[cfg(test)]
mod tests;
