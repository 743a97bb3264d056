//! What is known of the devices' holders at one moment: two readings of podresources, and what was given out.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kubelet::SocketIdentity;
use mig_model::{Device, GivenOut, Holder, NodeInventory, Pods, ResourceDomain, uuid_of};
use tokio::time::Instant;

/// For how many settle times absence from podresources means nothing: after a kubelet was met, which may have started a
/// moment ago and not know its pods yet; and for a device that was given out and never seen there. Its pod may have lived
/// too briefly, or failed; or an init container has it, which podresources never lists.
pub(super) const UNSEEN: u32 = 12;

/// Reads what an earlier agent has noted of what it gave out: at the start, and when a resource is taken over.
#[derive(Clone)]
pub struct Earlier {
    first: Vec<GivenOut>,
    read: Arc<dyn Fn() -> Vec<GivenOut> + Send + Sync>,
}

impl Earlier {
    /// Reads at once. It may touch the disk.
    pub fn new(read: impl Fn() -> Vec<GivenOut> + Send + Sync + 'static) -> Self {
        Self { first: read(), read: Arc::new(read) }
    }

    /// What was there at the start.
    pub(super) fn take_first(&mut self) -> Vec<GivenOut> {
        std::mem::take(&mut self.first)
    }

    pub(super) fn read(&self) -> Vec<GivenOut> {
        (self.read)()
    }
}

impl fmt::Debug for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Earlier")
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// The kubelet that was met last, and when; before any, when this agent started.
    pub(super) kubelet: Option<SocketIdentity>,
    pub(super) met: Instant,
    pub(super) records: HashMap<String, Record>,
    /// The last two readings of podresources, newest last.
    pub(super) readings: Vec<Reading>,
    /// Of which GPU each device is that pods may hold, by its UUID: once it is destroyed nobody else knows.
    gpus: HashMap<String, String>,
    /// Podresources could not be read when it was last tried.
    pub(super) failing: bool,
    /// Whether some roster keeps ids only because they may be held.
    pub(super) wanted: bool,
    /// This agent has, or had, a resource. Until then what is given out is another's to note.
    pub(super) serves: bool,
}

/// One device that was given out.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) resource: String,
    pub(super) at: Instant,
    pub(super) sight: Sight,
    /// By an agent, and not only listed.
    pub(super) given: bool,
}

/// Whether podresources has listed a device since it was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Never,
    /// To this agent by an earlier kubelet, or to an earlier agent.
    Earlier,
    Listed,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) began: Instant,
    /// By resource, as the kubelet names it, other people's too.
    pub(super) held: HashMap<String, HashSet<String>>,
    /// By id, of whichever resource.
    pub(super) holders: HashMap<String, Vec<Holder>>,
    pub(super) mixtures: BTreeSet<(String, Vec<String>)>,
}

/// What pods hold in another way than as one of the ids that a resource offers: after a change of strategy, names, sharing
/// or MIG mode, what is held under the old name, or as another share, must not be given out under the new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// MIG devices and GPUs.
    uuids: HashSet<String>,
    /// GPUs of which they hold a part.
    in_part: HashSet<String>,
}

impl Elsewhere {
    /// Whether a pod has the device, the whole of which it is a part, or a part of it.
    pub(crate) fn has(&self, device: &Device) -> bool {
        let is_whole = device.uuid == device.gpu;
        let in_part = is_whole && self.in_part.contains(&device.uuid);
        self.uuids.contains(&device.uuid) || self.uuids.contains(&device.gpu) || in_part
    }
}

impl State {
    pub(super) fn new(before: Vec<GivenOut>, domain: &ResourceDomain) -> Self {
        let mut state = Self {
            kubelet: None,
            met: Instant::now(),
            records: HashMap::new(),
            readings: Vec::new(),
            gpus: HashMap::new(),
            failing: false,
            wanted: false,
            serves: false,
        };
        state.take_over(before, domain);
        state
    }

    /// Another agent had a resource until now, and has noted this. What it gave out counts as if it were given out now, and
    /// absence from podresources means nothing for as long as after a start.
    pub(super) fn take_over(&mut self, before: Vec<GivenOut>, domain: &ResourceDomain) {
        self.met = Instant::now();
        for given in before.into_iter().filter(|given| is_ours(&given.resource, &given.id, domain)) {
            self.place(&given.id, given.gpu.as_deref().unwrap_or_default());
            let sight = if given.seen { Sight::Earlier } else { Sight::Never };
            let record = Record { resource: given.resource, at: self.met, sight, given: given.given };
            match self.records.entry(given.id) {
                Entry::Vacant(place) => _ = place.insert(record),
                // It was given out again since it was seen here.
                Entry::Occupied(mut known) if sight == Sight::Never => _ = known.insert(record),
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Another kubelet is there. What the last one listed it may list, too, once it knows its pods.
    pub(super) fn meet(&mut self, kubelet: SocketIdentity, domain: &ResourceDomain) {
        self.kubelet = Some(kubelet);
        self.met = Instant::now();
        let listed: Vec<(String, String)> =
            self.listed(domain).map(|(id, of)| (id.to_owned(), of.to_owned())).collect();
        for record in self.records.values_mut().filter(|record| record.sight == Sight::Listed) {
            record.sight = Sight::Earlier;
        }
        for (id, resource) in listed {
            let record = Record { resource, at: self.met, sight: Sight::Earlier, given: false };
            self.records.entry(id).or_insert(record);
        }
    }

    /// What the last reading says pods hold of our resources.
    pub(super) fn listed<'s>(&'s self, domain: &'s ResourceDomain) -> impl Iterator<Item = (&'s str, &'s str)> {
        let held = self.readings.last().into_iter().flat_map(|reading| &reading.held);
        let ids = held.flat_map(|(resource, ids)| ids.iter().map(move |id| (id.as_str(), resource.as_str())));
        ids.filter(|(id, resource)| is_ours(resource, id, domain))
    }

    /// The pods that hold an id.
    pub(super) fn pods_with(&self, id: &str, settle: Duration) -> Pods {
        let listed = self.readings.last().and_then(|reading| reading.holders.get(id));
        let record = self.records.get(id);
        self.pods(listed.into_iter().flatten().cloned().collect(), record.map(|record| record.sight).as_slice(), settle)
    }

    /// The pods that hold one of these ids.
    pub(super) fn pods_where(&self, is_one: impl Fn(&str) -> bool, settle: Duration) -> Pods {
        let listed = self.readings.last().into_iter().flat_map(|reading| &reading.holders);
        let holders = listed.filter(|(id, _)| is_one(id)).flat_map(|(_, holders)| holders).cloned();
        let records = self.records.iter().filter(|(id, _)| is_one(id));
        let sights: Vec<Sight> = records.map(|(_, record)| record.sight).collect();
        self.pods(holders.collect(), &sights, settle)
    }

    /// That none does is known once podresources was read twice, the last time a settle time after the agent's start or its
    /// kubelet's.
    fn pods(&self, mut holders: Vec<Holder>, sights: &[Sight], settle: Duration) -> Pods {
        if !holders.is_empty() || sights.contains(&Sight::Never) {
            holders.sort();
            holders.dedup();
            return Pods::Hold(holders);
        }
        let is_known = !self.failing && self.is_settled(settle) && !sights.contains(&Sight::Earlier);
        if is_known { Pods::None } else { Pods::Unknown }
    }

    /// Whether what podresources does not list is nothing.
    pub(super) fn is_settled(&self, settle: Duration) -> bool {
        let late = |reading: &Reading| reading.began >= self.met + settle;
        self.readings.len() == 2 && self.readings.last().is_some_and(late)
    }

    /// Whether two readings in a row lack the id that mean something.
    pub(super) fn lacks(&self, id: &str, record: Option<&Record>, settle: Duration) -> bool {
        let wait = |record: &Record| if record.sight == Sight::Listed { settle } else { settle * UNSEEN };
        let given_out = record.map(|record| record.at + wait(record));
        let since = given_out.into_iter().fold(self.met + settle * UNSEEN, Instant::max);
        self.readings.len() == 2 && self.readings.iter().all(|reading| reading.began >= since && !reading.holds(id))
    }

    /// What is held, by this reading and the records, but not as one of these ids of this resource.
    pub(super) fn elsewhere(&self, reading: Option<&Reading>, resource: &str, own: &HashSet<String>) -> Elsewhere {
        let listed = reading.into_iter().flat_map(|reading| reading.otherwise(resource, own));
        let is_otherwise = |(id, record): &(&String, &Record)| record.resource != resource || !own.contains(*id);
        let given_out = self.records.iter().filter(is_otherwise).map(|(id, _)| id);
        let uuids: HashSet<String> = listed.chain(given_out).map(|id| uuid_of(id).to_owned()).collect();
        let in_part = uuids.iter().filter_map(|uuid| self.gpus.get(uuid)).cloned().collect();
        Elsewhere { uuids, in_part }
    }

    /// Ids of a resource that were given out before this agent was there, or before this kubelet was.
    pub(super) fn of_earlier<'s>(&'s self, resource: &'s str) -> impl Iterator<Item = &'s String> {
        let is_old = |record: &Record| record.sight != Sight::Listed && record.at <= self.met;
        let of_it = self.records.iter().filter(move |(_, record)| record.resource == resource && is_old(record));
        of_it.map(|(id, _)| id)
    }

    /// The GPU that a held device is a part of.
    pub(super) fn gpu_of(&self, id: &str) -> Option<&str> {
        self.gpus.get(uuid_of(id)).map(String::as_str)
    }

    pub(super) fn place(&mut self, id: &str, gpu: &str) {
        let uuid = uuid_of(id);
        if uuid != gpu && !gpu.is_empty() {
            self.gpus.insert(uuid.to_owned(), gpu.to_owned());
        }
    }

    /// Learns of which GPUs the held devices are, and forgets it of those that nobody holds any more.
    pub(super) fn locate(&mut self, inventory: Option<&NodeInventory>) {
        let listed = self.readings.last().into_iter().flat_map(|reading| reading.holders.keys());
        let held: HashSet<&str> = self.records.keys().chain(listed).map(|id| uuid_of(id)).collect();
        let is_missing = |uuid: &str| uuid.starts_with("MIG-") && !self.gpus.contains_key(uuid);
        let mut found = Vec::new();
        if held.iter().any(|uuid| is_missing(uuid)) {
            for gpu in inventory.into_iter().flat_map(|inventory| &inventory.gpus) {
                let parts = gpu.instances.iter().flat_map(|instance| &instance.compute_instances);
                let held = parts.map(|part| part.uuid.as_str()).filter(|uuid| held.contains(uuid));
                found.extend(held.map(|uuid| (uuid.to_owned(), gpu.uuid.to_string())));
            }
        }
        let mut gpus = std::mem::take(&mut self.gpus);
        gpus.retain(|uuid, _| held.contains(uuid.as_str()));
        gpus.extend(found);
        self.gpus = gpus;
    }

    /// What an agent that came after this one would have to know.
    pub(super) fn given_out(&self, domain: &ResourceDomain) -> Vec<GivenOut> {
        let listed = self.listed(domain).map(|(id, resource)| (id, (resource, true)));
        let recorded = self.records.iter().map(|(id, record)| {
            let seen = record.sight != Sight::Never;
            (id.as_str(), (record.resource.as_str(), seen))
        });
        let held: BTreeMap<&str, (&str, bool)> = recorded.chain(listed).collect();
        let given_out = held.into_iter().map(|(id, (resource, seen))| GivenOut {
            id: id.to_owned(),
            resource: resource.to_owned(),
            gpu: self.gpu_of(id).map(str::to_owned),
            seen,
            given: self.records.get(id).is_some_and(|record| record.given && record.resource == resource),
        });
        given_out.collect()
    }
}

impl Reading {
    /// All ids that are held, but not these of this resource.
    fn otherwise<'r>(&'r self, resource: &'r str, own: &'r HashSet<String>) -> impl Iterator<Item = &'r String> {
        let ids = self.held.iter().flat_map(|(name, ids)| ids.iter().map(move |id| (name, id)));
        ids.filter(move |(name, id)| *name != resource || !own.contains(*id)).map(|(_, id)| id)
    }

    pub(super) fn holds(&self, id: &str) -> bool {
        self.held.values().any(|ids| ids.contains(id))
    }
}

/// Whether it may be a GPU's or a MIG device's: of a cluster's many devices most are not.
pub(super) fn is_uuid(id: &str) -> bool {
    id.starts_with("MIG-") || id.starts_with("GPU-")
}

/// Whether it is a GPU or a MIG device under a name of this domain. A configuration may have given whichever name.
pub(crate) fn is_ours(resource: &str, id: &str, domain: &ResourceDomain) -> bool {
    is_uuid(uuid_of(id)) && resource.split_once('/').is_some_and(|(given, _)| given == domain.to_string())
}
