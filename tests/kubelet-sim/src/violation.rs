//! What a plugin must not do.

use std::fmt;

use serde::Serialize;

/// Something that would harm a real kubelet, or its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which rule was broken.
    pub kind: ViolationKind,
    /// The resource that it was about; may be the invalid name itself.
    pub resource: String,
    /// The particulars.
    pub detail: String,
}

/// The rules. The comment says what a real kubelet would have suffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// A list lacks a device that a pod holds or is being given: the kubelet can panic (topology hints, Allocate).
    AllocatedDeviceDropped,
    /// A list lost a device while an Allocate was in flight: the kubelet panics if it was the one.
    ListShrankDuringAllocate,
    /// A list names a device twice: capacity is counted wrongly.
    DuplicateDevice,
    /// A device id is empty or longer than 63 bytes.
    BadDeviceId,
    /// A health that is neither `Healthy` nor `Unhealthy`: read as unhealthy.
    BadHealth,
    /// Not exactly one answer per container request: devices leak until the next clean-up.
    WrongResponseCount,
    /// GetPreferredAllocation failed: the pod fails, although any choice would have done.
    PreferredAllocationFailed,
    /// GetPreferredAllocation chose devices that were not offered, left out required ones, or the wrong number.
    BadPreferredAllocation,
    /// Registered while an earlier ListAndWatch of the same resource was open: its end kills the new registration.
    RegisteredOverOpenStream,
    /// Registered a socket that did not answer: every plugin of the node may wait behind it.
    SocketDidNotAnswer,
    /// The endpoint is not the plain name of a file beside kubelet.sock.
    BadEndpoint,
    /// Not a valid name of an extended resource.
    BadResourceName,
    /// A version other than v1beta1.
    BadVersion,
    /// Lists without pause: each one makes the kubelet write its checkpoint.
    TooManyLists,
    /// Registrations without pause.
    TooManyRegistrations,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} ({}): {}", self.kind, self.resource, self.detail)
    }
}
