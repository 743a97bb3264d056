//! What happened, and when.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// One line of the kubelet's log.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// `CLOCK_MONOTONIC` in nanoseconds: comparable with other processes of the machine.
    pub monotonic_ns: u64,
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// For arithmetic inside this process.
    #[serde(skip)]
    pub at: Instant,
}

/// What can happen. A resource is named in full, e.g. `nvidia.com/mig-1g.5gb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum What {
    /// The kubelet serves.
    Started,
    /// The kubelet is gone, with or without having closed its streams in order.
    Stopped { in_order: bool },
    /// A plugin asks to be registered.
    RegisterReceived { resource: String, endpoint: String },
    /// The registration was accepted, after the plugin was dialled back.
    Registered { resource: String, endpoint: String, preferred_allocation: bool, pre_start: bool },
    /// The registration was refused.
    RegistrationFailed { resource: String, endpoint: String, reason: String },
    /// ListAndWatch is open.
    StreamOpened { resource: String },
    /// A list has arrived. `first` tells the first of its stream from later ones.
    List { resource: String, devices: usize, healthy: usize, first: bool },
    /// ListAndWatch has ended.
    StreamEnded { resource: String, reason: String },
    /// The plugin is disconnected: capacity stays for the grace, nothing is allocatable.
    PluginDisconnected { resource: String },
    /// The end of an old stream took a newer registration with it (kubernetes#135437).
    NewRegistrationKilled { resource: String },
    /// The grace is over and the resource forgotten.
    ResourceRemoved { resource: String },
    /// GetPreferredAllocation was answered.
    Preferred { resource: String, available: usize, size: usize, chosen: Vec<String> },
    /// Allocate was answered with success.
    Allocated { resource: String, ids: Vec<String>, nanoseconds: u64 },
    /// Allocate was answered with an error.
    AllocateFailed { resource: String, ids: Vec<String>, reason: String },
    /// All containers of the pod have their devices.
    PodAdmitted { pod: String },
    /// The pod has failed; whatever it held is free.
    PodRejected { pod: String, reason: String },
    /// The pod is gone, its devices are free.
    PodDeleted { pod: String },
    /// Somebody asked podresources; `answered` is false where it was made to fail.
    PodResourcesListed { pods: usize, answered: bool },
    /// Two answers for one container disagree; the real kubelet logs this and keeps the value that came first.
    Conflict { pod: String, container: String, kind: &'static str, key: String, kept: String, dropped: String },
    /// The checkpoint could not be written (the directory may be gone).
    CheckpointNotWritten { reason: String },
    /// The checkpoint could not be read; the kubelet starts as if there were none.
    CheckpointNotRead { reason: String },
    /// A plugin did what would harm a real kubelet.
    Violation { kind: crate::ViolationKind, resource: String, detail: String },
}

impl Event {
    pub(crate) fn now(what: What) -> Self {
        let monotonic = clock_gettime(ClockId::Monotonic);
        let monotonic = Duration::new(
            u64::try_from(monotonic.tv_sec).unwrap_or_default(),
            u32::try_from(monotonic.tv_nsec).unwrap_or_default(),
        );
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { monotonic_ns: nanoseconds(monotonic), unix_ns: nanoseconds(unix), what, at: Instant::now() }
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => write!(out, "the kubelet serves"),
            Self::Stopped { in_order: true } => write!(out, "the kubelet has stopped"),
            Self::Stopped { in_order: false } => write!(out, "the kubelet was killed"),
            Self::RegisterReceived { resource, endpoint } => {
                write!(out, "{resource}: asks to be registered at {endpoint}")
            }
            Self::Registered { resource, endpoint, preferred_allocation, pre_start } => {
                let preferred = if *preferred_allocation { ", has preferences" } else { "" };
                let start = if *pre_start { ", wants to know of starts" } else { "" };
                write!(out, "{resource}: registered at {endpoint}{preferred}{start}")
            }
            Self::RegistrationFailed { resource, endpoint, reason } => {
                write!(out, "{resource}: not registered at {endpoint}: {reason}")
            }
            Self::StreamOpened { resource } => write!(out, "{resource}: its list is open"),
            Self::List { resource, devices, healthy, .. } => {
                write!(out, "{resource}: {healthy} of {devices} devices healthy")
            }
            Self::StreamEnded { resource, reason } => write!(out, "{resource}: its list has ended: {reason}"),
            Self::PluginDisconnected { resource } => write!(out, "{resource}: disconnected, nothing is allocatable"),
            Self::NewRegistrationKilled { resource } => {
                write!(out, "{resource}: the end of an old list takes the new registration with it")
            }
            Self::ResourceRemoved { resource } => write!(out, "{resource}: forgotten"),
            Self::Preferred { resource, available, size, chosen } => {
                write!(out, "{resource}: prefers {} as {size} of {available}", chosen.join(", "))
            }
            Self::Allocated { resource, ids, nanoseconds } => {
                let took = Duration::from_nanos(*nanoseconds);
                write!(out, "{resource}: allocated {} in {took:.0?}", ids.join(", "))
            }
            Self::AllocateFailed { resource, ids, reason } => {
                write!(out, "{resource}: refused to allocate {}: {reason}", ids.join(", "))
            }
            Self::PodAdmitted { pod } => write!(out, "pod {pod}: admitted"),
            Self::PodRejected { pod, reason } => write!(out, "pod {pod}: failed: {reason}"),
            Self::PodDeleted { pod } => write!(out, "pod {pod}: deleted"),
            Self::PodResourcesListed { pods, answered: true } => write!(out, "podresources: told of {pods} pods"),
            Self::PodResourcesListed { answered: false, .. } => write!(out, "podresources: failed, as it was told to"),
            Self::Conflict { pod, container, kind, key, kept, dropped } => {
                write!(out, "pod {pod}, container {container}: {kind} {key} is {kept} and not {dropped}")
            }
            Self::CheckpointNotWritten { reason } => write!(out, "checkpoint not written: {reason}"),
            Self::CheckpointNotRead { reason } => write!(out, "checkpoint not read: {reason}"),
            Self::Violation { kind, resource, detail } => write!(out, "VIOLATION {kind:?}: {resource}: {detail}"),
        }
    }
}

/// 64 bits of nanoseconds last until the year 2554.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
