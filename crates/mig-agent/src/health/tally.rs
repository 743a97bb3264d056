//! Health in numbers.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use mig_health::Change;
use mig_model::{NodeInventory, XidEvent};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

/// NVIDIA's numbers are below this. A driver that invents others must not make a series for each.
const MOST: u64 = 999;

/// What is counted. Clones are the same numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    xids: Family<Labels, Counter>,
    last: Family<Labels, Gauge<f64, AtomicU64>>,
    last_at: Family<Labels, Gauge<f64, AtomicU64>>,
    transitions: Family<Labels, Counter>,
}

impl Tally {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "xids",
            "Errors that the driver has reported, those included that are ignored",
            self.xids.clone(),
        );
        registry.register("gpu_last_xid", "The XID that the driver reported last of the GPU", self.last.clone());
        registry.register(
            "gpu_last_xid_timestamp_seconds",
            "When the driver reported that, in Unix time",
            self.last_at.clone(),
        );
        registry.register(
            "health_transitions",
            "How often a slice, or a GPU as a whole, became unhealthy or well again, and for what reason it was unhealthy",
            self.transitions.clone(),
        );
    }

    /// The driver has reported an error.
    pub(crate) fn xid(&self, event: &XidEvent, inventory: Option<&NodeInventory>) {
        let mut gpu = Labels::new();
        let known = inventory.and_then(|inventory| inventory.gpus.iter().find(|gpu| gpu.uuid == event.gpu));
        gpu.extend(known.map(|known| ("gpu", known.index.to_string())));
        gpu.push(("UUID", event.gpu.to_string()));
        let number = if event.xid <= MOST { event.xid.to_string() } else { "other".to_owned() };
        // Exact up to 2^53, and there are not that many.
        self.last.get_or_create(&gpu).set(event.xid as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_at.get_or_create(&gpu).set(now.as_secs_f64());
        gpu.push(("xid", number));
        self.xids.get_or_create(&gpu).inc();
    }

    /// Something has become unhealthy, or well.
    pub(crate) fn count(&self, changes: &[Change]) {
        for change in changes {
            let of = if change.slice.is_some() { "slice" } else { "gpu" };
            let (to, fault) = match (&change.was, &change.now) {
                (None, Some(fault)) => ("unhealthy", fault),
                (Some(fault), None) => ("healthy", fault),
                _ => continue,
            };
            let labels = vec![("of", of.to_owned()), ("to", to.to_owned()), ("reason", fault.kind.to_owned())];
            self.transitions.get_or_create(&labels).inc();
        }
    }
}
