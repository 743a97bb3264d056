//! Everything the kubelet knows, behind one lock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kubelet::deviceplugin as wire;
use tokio::sync::watch;

use crate::{
    allocations::Allocations,
    checkpoint,
    connection::{Connection, Plugin},
    devices::{Endpoint, Known, Lists},
    event::{Event, What},
    list,
    options::Options,
    pod::Pod,
    podresources::PodResourcesMode,
    rate::Rate,
    registration::RegistrationMode,
    violation::{Violation, ViolationKind},
};

/// What a node's status says of a resource, and what stands behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Devices in the latest list.
    pub capacity: usize,
    /// Healthy ones among them; 0 while the plugin is away.
    pub allocatable: usize,
    /// The latest list, sorted by id. Their health is what the plugin said last.
    pub devices: Vec<Device>,
    /// Held by pods, or being given to one.
    pub allocated: BTreeSet<String>,
    /// Whether a plugin is connected.
    pub registered: bool,
    /// Registrations so far that succeeded, over all lives of the kubelet.
    pub registrations: usize,
    /// Lists received so far, over all lives of the kubelet.
    pub lists: usize,
}

/// A device as the plugin lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// For slices: the MIG UUID.
    pub id: String,
    /// `Healthy` or `Unhealthy`.
    pub health: String,
    /// NUMA nodes, if the plugin names any.
    pub numa: Vec<i64>,
}

/// An Allocate that has not been answered yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) number: u64,
    pub(crate) resource: String,
}

/// What has come from the plugin of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    registrations: usize,
    lists: usize,
}

/// See the fields.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) resources: BTreeMap<String, Known>,
    /// The plugin's connection by resource, as the real kubelet's server keeps it: the newest registration, whether or
    /// not it has got as far as an endpoint.
    pub(crate) clients: HashMap<String, Arc<Connection>>,
    /// Every connection whose stream may be open; more than `clients` when a plugin registers over an open stream.
    pub(crate) streams: Vec<(String, Arc<Connection>)>,
    /// The API server's side: pods of this node that have not ended.
    pub(crate) pods: BTreeMap<String, Pod>,
    /// Pods that have ended, which an older checkpoint may still name.
    pub(crate) deleted: HashSet<String>,
    pub(crate) allocations: Allocations,
    /// What `allocations` holds, and what is being allocated.
    pub(crate) allocated: HashMap<String, HashSet<String>>,
    /// What init containers of the pod under admission leave to its later containers.
    pub(crate) reusable: (String, HashMap<String, HashSet<String>>),
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) calls: u64,
    /// Which kubelet runs, by its number; none between two.
    pub(crate) life: Option<u64>,
    /// How many there have been.
    pub(crate) lives: u64,
    /// By resource, over all lives of the kubelet.
    pub(crate) counts: HashMap<String, Counts>,
    pub(crate) list_rates: HashMap<String, Rate>,
    pub(crate) registration_rates: HashMap<String, Rate>,
    pub(crate) podresources: PodResourcesMode,
    pub(crate) registration: RegistrationMode,
    pub(crate) events: Vec<Event>,
    pub(crate) violations: Vec<Violation>,
}

/// The node: survives the kubelet's restarts, as a machine does.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    state: Mutex<State>,
    /// Grows with each event.
    changed: watch::Sender<usize>,
}

impl Node {
    pub(crate) fn new(root: &Path, options: Options) -> Self {
        let state = State { podresources: options.podresources, ..State::default() };
        Self { root: root.to_owned(), options, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    pub(crate) fn device_plugins(&self) -> PathBuf {
        self.root.join("device-plugins")
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registration(&self) -> RegistrationMode {
        self.lock().registration
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<usize> {
        self.changed.subscribe()
    }

    /// Adds to the log.
    pub(crate) fn note(&self, state: &mut State, what: What) {
        state.events.push(Event::now(what));
        self.changed.send_replace(state.events.len());
    }

    /// Adds to the violations; one that repeats the last word for word is not news.
    pub(crate) fn accuse(&self, state: &mut State, violation: Violation) {
        if state.violations.last() != Some(&violation) {
            let Violation { kind, resource, detail } = violation.clone();
            state.violations.push(violation);
            self.note(state, What::Violation { kind, resource, detail });
        }
    }

    /// GetDevicePluginOptions has answered: the endpoint replaces an older one, whose devices stay until the first list.
    pub(crate) fn plugin_connected(
        &self,
        resource: &str,
        plugin: Plugin,
        options: wire::DevicePluginOptions,
        connection: &Connection,
    ) {
        let mut state = self.lock();
        let known = state.resources.entry(resource.to_owned()).or_default();
        let closed = connection.closed.clone();
        known.endpoint = Some(Endpoint { plugin: Some(plugin), options, stopped: None, closed });
        state.counts.entry(resource.to_owned()).or_default().registrations += 1;
    }

    /// The connection is over: nothing of the resource can be allocated any more.
    pub(crate) fn plugin_disconnected(&self, state: &mut State, resource: &str) {
        let Some(known) = state.resources.get_mut(resource) else { return };
        let Some(endpoint) = known.endpoint.as_mut() else { return };
        endpoint.stopped = Some(Instant::now());
        endpoint.plugin = None;
        known.lists.get_or_insert_default().mark_unhealthy();
        self.note(state, What::PluginDisconnected { resource: resource.to_owned() });
    }

    /// A list replaces the one before.
    pub(crate) fn list_received(&self, resource: &str, devices: Vec<wire::Device>, first: bool) {
        let mut state = self.lock();
        let healthy = devices.iter().filter(|device| device.health == "Healthy").count();
        let resource_name = resource.to_owned();
        self.note(&mut state, What::List { resource: resource_name, devices: devices.len(), healthy, first });
        for violation in list::judge(&state, resource, &devices) {
            self.accuse(&mut state, violation);
        }
        let limit = self.options.lists_per_second;
        if state.list_rates.entry(resource.to_owned()).or_default().passes(limit) {
            let detail = format!("more than {limit} lists within a second");
            let kind = ViolationKind::TooManyLists;
            self.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
        }
        let known = state.resources.entry(resource.to_owned()).or_default();
        known.lists = Some(Lists::new(devices));
        state.counts.entry(resource.to_owned()).or_default().lists += 1;
        self.write_checkpoint(&mut state);
    }

    /// Forgets resources whose grace is over. The real kubelet does so whenever it reports the node's status.
    pub(crate) fn expire(&self, state: &mut State) {
        let now = Instant::now();
        let grace = self.options.stop_grace;
        let expired = |known: &Known| known.expires(grace).is_some_and(|expires| expires < now);
        let gone = state.resources.iter().filter(|(_, known)| expired(known)).map(|(name, _)| name.clone());
        let gone = gone.collect::<Vec<_>>();
        for resource in &gone {
            state.resources.remove(resource);
            self.note(state, What::ResourceRemoved { resource: resource.clone() });
        }
        if !gone.is_empty() {
            self.write_checkpoint(state);
        }
    }

    /// As the real kubelet, goes on when the file cannot be written.
    pub(crate) fn write_checkpoint(&self, state: &mut State) {
        if let Err(error) = checkpoint::write(&self.device_plugins(), state) {
            self.note(state, What::CheckpointNotWritten { reason: error.to_string() });
        }
    }
}

impl State {
    /// Whether the kubelet that ran then runs still.
    pub(crate) fn lasts(&self, life: Option<u64>) -> bool {
        life.is_some() && self.life == life
    }

    /// What the node's status would say.
    pub(crate) fn resources(&self) -> BTreeMap<String, Resource> {
        let seen = self.resources.iter().filter_map(|(name, known)| {
            let lists = known.lists.as_ref()?;
            let counts = self.counts.get(name).copied().unwrap_or_default();
            let device = |device: &wire::Device| Device {
                id: device.id.clone(),
                health: device.health.clone(),
                numa: device.topology.iter().flat_map(|topology| &topology.nodes).map(|node| node.id).collect(),
            };
            let resource = Resource {
                capacity: lists.healthy.len() + lists.unhealthy.len(),
                allocatable: lists.healthy.len(),
                devices: lists.all.values().map(device).collect(),
                allocated: self.allocated.get(name).into_iter().flatten().cloned().collect(),
                registered: known.endpoint.as_ref().is_some_and(|endpoint| endpoint.stopped.is_none()),
                registrations: counts.registrations,
                lists: counts.lists,
            };
            Some((name.clone(), resource))
        });
        seen.collect()
    }

    /// Forgets what was being allocated and has failed.
    pub(crate) fn restore_allocated(&mut self) {
        self.allocated = self.allocations.by_resource();
    }

    /// The pod has ended.
    pub(crate) fn remove_pod(&mut self, pod: &str) -> bool {
        self.allocations.remove(pod);
        self.restore_allocated();
        self.pods.remove(pod).is_some()
    }
}
