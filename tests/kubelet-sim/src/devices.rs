//! What the kubelet believes about the devices of one resource.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use kubelet::deviceplugin::{self as wire, DevicePluginOptions};
use tokio_util::sync::CancellationToken;

use crate::connection::Plugin;

/// The latest list. As in the real kubelet, an id stands in both sets if a list names it twice with both healths.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) all: BTreeMap<String, wire::Device>,
    pub(crate) healthy: HashSet<String>,
    pub(crate) unhealthy: HashSet<String>,
}

impl Lists {
    pub(crate) fn new(devices: Vec<wire::Device>) -> Self {
        let mut lists = Self::default();
        for device in devices {
            let health = if device.health == "Healthy" { &mut lists.healthy } else { &mut lists.unhealthy };
            health.insert(device.id.clone());
            lists.all.insert(device.id.clone(), device);
        }
        lists
    }

    /// Nothing may be allocated any more; capacity stays.
    pub(crate) fn mark_unhealthy(&mut self) {
        self.unhealthy.extend(self.healthy.drain());
    }

    /// NUMA nodes of a device, -1 for a device without.
    pub(crate) fn numa(&self, id: &str) -> Vec<i64> {
        let topology = self.all.get(id).and_then(|device| device.topology.as_ref());
        match topology.map(|topology| topology.nodes.as_slice()) {
            None | Some([]) => vec![-1],
            Some(nodes) => nodes.iter().map(|node| node.id).collect(),
        }
    }
}

/// How the plugin of a resource is reached.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// None for a resource known from the checkpoint only.
    pub(crate) plugin: Option<Plugin>,
    /// What GetDevicePluginOptions answered; the options in the registration are not looked at.
    pub(crate) options: DevicePluginOptions,
    /// Since when the plugin has been gone.
    pub(crate) stopped: Option<Instant>,
    /// Cuts calls short when the kubelet closes the connection.
    pub(crate) closed: CancellationToken,
}

impl Endpoint {
    /// Stands in for a resource of the checkpoint until its plugin registers again.
    pub(crate) fn remembered() -> Self {
        Self {
            plugin: None,
            options: DevicePluginOptions::default(),
            stopped: Some(Instant::now()),
            closed: CancellationToken::new(),
        }
    }
}

/// One resource. Lists and endpoint come and go separately: a plugin may be connected before its first list.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) lists: Option<Lists>,
    pub(crate) endpoint: Option<Endpoint>,
}

impl Known {
    /// When the resource is to be forgotten.
    pub(crate) fn expires(&self, grace: Duration) -> Option<Instant> {
        self.lists.as_ref()?;
        self.endpoint.as_ref()?.stopped.map(|stopped| stopped + grace)
    }
}
