use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mig_model::ResourceName;

/// What keeps each resource from being served, for those who ask whether the agent is ready.
#[derive(Debug, Default)]
pub struct Status {
    begun: AtomicBool,
    unprepared: Mutex<Option<String>>,
    obstacles: Mutex<BTreeMap<ResourceName, Option<String>>>,
}

impl Status {
    /// The GPUs have been read, and each resource has its server.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether serving has begun; before that there are no obstacles, and no resources either.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// A resource is registered and the kubelet watches its list.
    pub(crate) fn serving(&self, resource: &ResourceName) {
        let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        obstacles.insert(resource.clone(), None);
    }

    /// A resource is not served. Says whether this is news: what keeps all of them is told once.
    pub(crate) fn obstructed(&self, resource: &ResourceName, why: &str) -> bool {
        let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        let known = obstacles.values().any(|obstacle| obstacle.as_deref() == Some(why));
        obstacles.insert(resource.clone(), Some(why.to_owned()));
        !known
    }

    /// Each resource that is not served, and why.
    pub fn obstacles(&self) -> Vec<(ResourceName, String)> {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        obstacles.iter().filter_map(|(name, why)| Some((name.clone(), why.clone()?))).collect()
    }

    /// How many resources are served.
    pub fn served(&self) -> usize {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        obstacles.values().filter(|why| why.is_none()).count()
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
