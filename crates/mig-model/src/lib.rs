//! What MIG is, as plain values: profiles, placements, the inventory of a node, and the resource names under which its
//! devices are offered. Pure: no I/O, no clock, no async; the same inputs give the same answer.
//!
//! ```text
//!   NodeInventory --assign(Strategy)--> Offers: ResourceName -> devices, and what was left out and why
//! ```

mod identity;
mod inventory;
mod profile;
mod resource;
mod strategy;

pub use identity::{GpuUuid, IdentityError, MigUuid};
pub use inventory::{
    ComputeInstance, Driver, Fault, Gpu, GpuInstance, MigMode, NodeInventory, Placement, UnreadableGpu,
};
pub use profile::{Profile, ProfileError};
pub use resource::{ResourceDomain, ResourceError, ResourceName};
pub use strategy::{Device, LeftOut, Offers, Strategy, StrategyError, assign};
