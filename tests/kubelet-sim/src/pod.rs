//! Pods as far as devices are concerned.

use std::collections::BTreeMap;

/// A pod: a name and containers with their limits.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name and, in place of a UID, identity.
    pub name: String,
    /// Namespace, `default` unless set.
    pub namespace: String,
    /// Run to their end one after the other before the containers start; what they hold is reused.
    pub init_containers: Vec<Container>,
    /// Run side by side.
    pub containers: Vec<Container>,
}

/// One container and what it asks for.
#[derive(Clone, Debug)]
pub struct Container {
    /// Unique in its pod.
    pub name: String,
    /// Resource to count.
    pub limits: BTreeMap<String, usize>,
}

impl Pod {
    /// A pod without containers in the namespace `default`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: "default".into(), init_containers: Vec::new(), containers: Vec::new() }
    }

    /// Puts the pod in another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Adds a container with its limits.
    #[must_use]
    pub fn container<R: Into<String>>(
        mut self,
        name: impl Into<String>,
        limits: impl IntoIterator<Item = (R, usize)>,
    ) -> Self {
        self.containers.push(Container::new(name, limits));
        self
    }

    /// Adds an init container with its limits.
    #[must_use]
    pub fn init_container<R: Into<String>>(
        mut self,
        name: impl Into<String>,
        limits: impl IntoIterator<Item = (R, usize)>,
    ) -> Self {
        self.init_containers.push(Container::new(name, limits));
        self
    }

    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }
}

impl Container {
    /// A container with its limits.
    pub fn new<R: Into<String>>(name: impl Into<String>, limits: impl IntoIterator<Item = (R, usize)>) -> Self {
        Self {
            name: name.into(),
            limits: limits.into_iter().map(|(resource, count)| (resource.into(), count)).collect(),
        }
    }
}
