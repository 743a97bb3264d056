//! A kubelet in a temporary directory, for tests of device plugins.
//!
//! It speaks the device-plugin API (v1beta1) and podresources (v1) over the same sockets below a root of your choice, and
//! does what kubelet 1.36.2 does with what a plugin tells it, its faults included. What would harm a real kubelet is
//! recorded as a [`Violation`], and a [`Kubelet`] that is dropped with violations nobody asked for panics, so that the
//! test fails.
//!
//! ```text
//!   plugin --Register--> registration: dial back, options, ListAndWatch --lists--> Devices (capacity, allocatable)
//!                                                                                      |
//!   plugin <--GetPreferredAllocation, Allocate-- admission <---- Kubelet::admit(Pod) --+--> checkpoint, podresources
//! ```
//!
//! Everything lives in one [`Node`](node::Node) behind one lock; a start of the kubelet is a [`Life`](life::Life) with a
//! runtime of its own, so that killing it closes every connection at once, as the death of a process does.
//! `docs/simulated-kubelet.md` says what is simulated and what is not.

mod admission;
mod allocations;
mod checkpoint;
mod connection;
mod devices;
mod event;
mod kubelet;
mod life;
mod list;
mod merge;
mod node;
mod options;
mod pod;
mod podresources;
mod rate;
mod registration;
mod resource_name;
mod violation;

pub use crate::{
    admission::AdmissionError,
    event::{Event, What},
    kubelet::{Kubelet, NotInTime, StartError},
    merge::{Conflict, ContainerAllocation, PodAllocation},
    node::{Device, Resource},
    options::Options,
    pod::{Container, Pod},
    podresources::PodResourcesMode,
    registration::RegistrationMode,
    violation::{Violation, ViolationKind},
};
