//! What a test may set otherwise than the real kubelet has it.

use std::time::Duration;

/// Limits of the simulated kubelet. The defaults are the real one's where it has such a limit.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a resource whose plugin is gone stays known (with nothing allocatable) before it is removed.
    pub stop_grace: Duration,
    /// How long a registration waits for the plugin's socket to answer.
    pub dial_timeout: Duration,
    /// More lists than this for one resource within a second are a violation. The real kubelet takes any number, and
    /// writes its checkpoint for each.
    pub lists_per_second: usize,
    /// More registrations than this for one resource within a second, in one life of the kubelet, are a violation.
    pub registrations_per_second: usize,
    /// How the podresources API answers at first.
    pub podresources: crate::PodResourcesMode,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stop_grace: Duration::from_secs(5 * 60),
            dial_timeout: Duration::from_secs(10),
            lists_per_second: 50,
            registrations_per_second: 10,
            podresources: crate::PodResourcesMode::Answering,
        }
    }
}
