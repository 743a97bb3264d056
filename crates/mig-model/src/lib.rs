//! What MIG is, as plain values: profiles, placements, the inventory of a node, and the resource names under which its
//! devices are offered. Pure: no I/O, no clock, no async; the same inputs give the same answer.
//!
//! ```text
//!   NodeInventory --assign(Terms)--> Offers: ResourceName -> devices, and what was left out and why
//!   NodeInventory + NodeDetails --labels(Terms)--> what the node's labels say
//!   Pods + what runs on a GPU --Use::of--> who uses a slice
//!   NodeSurvey + Layout --plan--> Steps for each GPU, or why the wish cannot be met
//! ```

mod details;
mod geometry;
mod identity;
mod inventory;
mod labels;
pub mod layout;
pub mod model;
mod notes;
pub mod plan;
mod profile;
mod resource;
mod sharing;
mod strategy;
mod survey;
mod usage;
mod vitals;
mod yaml;

pub use details::{GpuDetails, NodeDetails, PartDetails};
pub use geometry::{ComputeProfile, Engines, Geometry, GeometryError, InstanceProfile};
pub use identity::{GpuUuid, IdentityError, MigUuid};
pub use inventory::{
    ComputeInstance, Driver, Fault, Gpu, GpuInstance, MigMode, NodeInventory, Placement, UnreadableGpu, Watched,
};
pub use labels::{Labels, labels};
pub use notes::{GIVEN_OUT, GivenOut, NOTE_VERSION, Note, UNHEALTHY, Unhealthy};
pub use plan::{GpuPlan, GpuWish, InUse, PlanError, Step, WantedInstance};
pub use profile::{Profile, ProfileError};
pub use resource::{ResourceDomain, ResourceError, ResourceName};
pub use sharing::{
    DeviceReference, MOST_REPLICAS, NamePattern, Replica, SharedDevices, SharedResource, Terms, TimeSlicing, uuid_of,
};
pub use strategy::{Address, Device, LeftOut, MigAddress, Offers, Strategy, StrategyError, assign};
pub use survey::{GpuSurvey, NodeSurvey, Process};
pub use usage::{Holder, Pods, Running, Use};
pub use vitals::{Recovery, RemappedRows, Vitals, XidEvent};
pub use yaml::parse as parse_yaml;
