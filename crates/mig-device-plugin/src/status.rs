use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mig_model::{Pods, ResourceName};

use crate::outlet::{Listed, Outlet};

/// How each resource does, for those who ask whether the agent is ready, and for those who look at it.
#[derive(Default)]
pub struct Status {
    begun: AtomicBool,
    unprepared: Mutex<Option<String>>,
    resources: Mutex<BTreeMap<ResourceName, Standing>>,
}

struct Standing {
    outlet: Arc<Outlet>,
    /// What keeps it from being served.
    obstacle: Option<String>,
    registered: Option<SystemTime>,
}

/// A resource as it is at one moment.
#[derive(Debug, Clone)]
pub struct ResourceStatus {
    /// Which.
    pub resource: ResourceName,
    /// Why it is not served; nothing if it is.
    pub obstacle: Option<String>,
    /// When the kubelet last took its registration and opened its stream.
    pub registered: Option<SystemTime>,
    /// Its list, in the list's order.
    pub devices: Vec<Listed>,
}

impl Status {
    fn standings(&self) -> MutexGuard<'_, BTreeMap<ResourceName, Standing>> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The GPUs have been read, and each resource has its server.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether serving has begun; before that there are no obstacles, and no resources either.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// A resource is new, and not served yet.
    pub(crate) fn add(&self, outlet: Arc<Outlet>, why: &str) {
        let standing = Standing { outlet, obstacle: Some(why.to_owned()), registered: None };
        self.standings().insert(standing.outlet.resource.clone(), standing);
    }

    /// A resource has no server any more.
    pub(crate) fn remove(&self, resource: &ResourceName) {
        self.standings().remove(resource);
    }

    /// The resources that have a server, registered or not.
    pub fn names(&self) -> BTreeSet<ResourceName> {
        self.standings().keys().cloned().collect()
    }

    /// A resource is registered and the kubelet watches its list.
    pub(crate) fn serving(&self, resource: &ResourceName) {
        if let Some(standing) = self.standings().get_mut(resource) {
            standing.obstacle = None;
            standing.registered = Some(SystemTime::now());
        }
    }

    /// A resource is not served. Says whether this is news: what keeps all of them is told once.
    pub(crate) fn obstructed(&self, resource: &ResourceName, why: &str) -> bool {
        let mut standings = self.standings();
        let known = standings.values().any(|standing| standing.obstacle.as_deref() == Some(why));
        if let Some(standing) = standings.get_mut(resource) {
            standing.obstacle = Some(why.to_owned());
        }
        !known
    }

    /// Each resource that is not served, and why.
    pub fn obstacles(&self) -> Vec<(ResourceName, String)> {
        self.standings()
            .iter()
            .filter_map(|(name, standing)| Some((name.clone(), standing.obstacle.clone()?)))
            .collect()
    }

    /// How many resources are served.
    pub fn served(&self) -> usize {
        self.standings().values().filter(|standing| standing.obstacle.is_none()).count()
    }

    /// Every resource with its devices, from memory.
    pub fn resources(&self) -> Vec<ResourceStatus> {
        let report = |(resource, standing): (&ResourceName, &Standing)| ResourceStatus {
            resource: resource.clone(),
            obstacle: standing.obstacle.clone(),
            registered: standing.registered,
            devices: standing.outlet.devices(),
        };
        self.standings().iter().map(report).collect()
    }

    /// The pods that hold the slice of that UUID, under whatever name.
    pub fn pods_on(&self, uuid: &str) -> Pods {
        let usage = self.standings().values().next().map(|standing| Arc::clone(&standing.outlet.usage));
        usage.map_or(Pods::Unknown, |usage| usage.pods_on(uuid))
    }

    /// What keeps every device of the node from being given to containers, if something does.
    pub(crate) fn unprepared(&self, why: Option<String>) {
        *self.unprepared.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why no device of the node can be given to a container, if so.
    pub fn container_problem(&self) -> Option<String> {
        self.unprepared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("begun", &self.has_begun()).finish_non_exhaustive()
    }
}
