//! What is counted and timed of the kubelet's requests and of our registrations.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use mig_model::ResourceName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::Code;

/// An answer is a lookup in memory. What takes longer than a millisecond waits for the CPU.
const ALLOCATE_BUCKETS: [f64; 8] = [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.01, 0.1];

/// What Allocate is usually refused with. These count from zero, so that a rule sees the first one.
const USUAL_REFUSALS: [Code; 3] = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition];

/// The numbers of all resources. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    allocations: Family<Of, Counter>,
    refusals: Family<Refused, Counter>,
    allocate: Family<Of, Histogram, fn() -> Histogram>,
    lists: Family<Of, Counter>,
    streams: Family<Of, Gauge<i64, AtomicI64>>,
    registrations: Family<Of, Counter>,
    obstacles: Family<Obstructed, Counter>,
    podresources: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    resource: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Obstructed {
    resource: String,
    reason: &'static str,
}

/// The numbers of one resource, at hand: an Allocate looks nothing up.
#[derive(Debug)]
pub(crate) struct Meter {
    resource: String,
    allocations: Counter,
    refusals: Family<Refused, Counter>,
    allocate: Histogram,
    obstacles: Family<Obstructed, Counter>,
    registrations: Counter,
    pub(crate) lists: Counter,
    pub(crate) streams: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            allocations: Family::default(),
            refusals: Family::default(),
            allocate: Family::new_with_constructor(|| Histogram::new(ALLOCATE_BUCKETS)),
            lists: Family::default(),
            streams: Family::default(),
            registrations: Family::default(),
            obstacles: Family::default(),
            podresources: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes all of it part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("allocations", "Allocate calls that were answered with devices", self.allocations.clone());
        registry.register(
            "allocation_errors",
            "Allocate calls that were refused, by gRPC code: the pod fails with UnexpectedAdmissionError",
            self.refusals.clone(),
        );
        registry.register(
            "allocate_duration_seconds",
            "Time to answer an Allocate call, refused ones included",
            self.allocate.clone(),
        );
        registry.register("lists_sent", "Device lists sent to the kubelet", self.lists.clone());
        registry.register(
            "list_streams",
            "ListAndWatch streams that are open; the kubelet holds one",
            self.streams.clone(),
        );
        registry.register(
            "registrations",
            "Registrations that the kubelet followed up by opening its ListAndWatch stream",
            self.registrations.clone(),
        );
        registry.register(
            "registration_obstacles",
            "What kept a resource from being registered, or ended its registration, by reason",
            self.obstacles.clone(),
        );
        registry.register(
            "podresources_readable",
            "Whether the last attempt to read the kubelet's podresources succeeded; without it states stay unknown",
            self.podresources.clone(),
        );
    }

    pub(crate) fn of(&self, resource: &ResourceName) -> Meter {
        let resource = resource.to_string();
        let of = Of { resource: resource.clone() };
        let meter = Meter {
            allocations: self.allocations.get_or_create_owned(&of),
            refusals: self.refusals.clone(),
            allocate: self.allocate.get_or_create_owned(&of),
            obstacles: self.obstacles.clone(),
            registrations: self.registrations.get_or_create_owned(&of),
            lists: self.lists.get_or_create_owned(&of),
            streams: self.streams.get_or_create_owned(&of),
            resource,
        };
        for code in USUAL_REFUSALS {
            drop(meter.refusals.get_or_create(&meter.refused(code)));
        }
        meter
    }

    /// An attempt to read podresources is over.
    pub(crate) fn podresources_read(&self, succeeded: bool) {
        self.podresources.set(succeeded.into());
    }
}

// === impl Meter ===

impl Meter {
    /// An Allocate call was answered, or refused with a code.
    pub(crate) fn answered(&self, took: Duration, refusal: Option<Code>) {
        self.allocate.observe(took.as_secs_f64());
        match refusal {
            None => {
                self.allocations.inc();
            }
            Some(code) => {
                self.refusals.get_or_create(&self.refused(code)).inc();
            }
        }
    }

    /// The kubelet has opened its stream.
    pub(crate) fn registered(&self) {
        self.registrations.inc();
    }

    /// Something keeps the resource from being registered, or has ended its registration.
    pub(crate) fn obstructed(&self, reason: &'static str) {
        self.obstacles.get_or_create(&Obstructed { resource: self.resource.clone(), reason }).inc();
    }

    fn refused(&self, code: Code) -> Refused {
        Refused { resource: self.resource.clone(), code: format!("{code:?}") }
    }
}
