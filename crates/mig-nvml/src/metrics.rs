//! How long the driver takes, and what it refuses.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nvml_wrapper::error::NvmlError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::kind_of;

/// A real driver answers in some microseconds; the first call after a while, or one that wakes a GPU, takes seconds.
const CALL_BUCKETS: [f64; 8] = [0.000_005, 0.000_01, 0.000_025, 0.000_1, 0.001, 0.01, 0.1, 1.0];
/// Some hundred calls make a reading.
const READING_BUCKETS: [f64; 8] = [0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];

/// What is counted and timed of the driver's answers. Clones are the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<Called, Histogram, fn() -> Histogram>,
    errors: Family<Refused, Counter>,
    readings: Histogram,
    failures: Counter,
    last: Gauge<f64, AtomicU64>,
    last_success: Arc<Mutex<Option<Instant>>>,
}

// By function: there are some twenty that the agent calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    function: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    function: &'static str,
    error: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            errors: Family::default(),
            readings: Histogram::new(READING_BUCKETS),
            failures: Counter::default(),
            last: Gauge::default(),
            last_success: Arc::default(),
        }
    }
}

impl Metrics {
    /// Makes all of it part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nvml_call_duration_seconds",
            "Time that NVML took to answer, by function",
            self.calls.clone(),
        );
        registry.register(
            "nvml_call_errors",
            "Calls that NVML answered by an error; some belong to a healthy look, such as NotFound for a MIG index that is not in use",
            self.errors.clone(),
        );
        registry.register(
            "driver_reading_duration_seconds",
            "Time that one reading of all GPUs took, whether it succeeded or failed",
            self.readings.clone(),
        );
        registry.register(
            "driver_reading_failures",
            "Readings of all GPUs that failed as a whole, attempts to start NVML included",
            self.failures.clone(),
        );
        registry.register(
            "driver_last_reading_timestamp_seconds",
            "When the GPUs were last read with success, in Unix time; 0 before the first time",
            self.last.clone(),
        );
    }

    /// NVML has answered by an error.
    pub(crate) fn refused(&self, function: &'static str, error: &NvmlError) {
        self.errors.get_or_create(&Refused { function, error: kind_of(error) }).inc();
    }

    /// NVML has answered.
    pub(crate) fn answered(&self, function: &'static str, took: Duration, error: Option<&NvmlError>) {
        match error {
            // The library has no such function: nothing was called.
            Some(NvmlError::FunctionNotFound) => return,
            Some(error) => self.refused(function, error),
            None => {}
        }
        self.calls.get_or_create(&Called { function }).observe(took.as_secs_f64());
    }

    /// When the GPUs were last read with success. A view that stays the same does not tell.
    pub fn last_success(&self) -> Option<Instant> {
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass over all GPUs is over.
    pub(crate) fn took(&self, time: Duration) {
        self.readings.observe(time.as_secs_f64());
    }

    /// A pass that began then has succeeded, and its view is out.
    pub(crate) fn read(&self, began: Instant) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.set(now.as_secs_f64());
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
    }

    /// A pass, or NVML's start, has failed.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}
