//! From what a node offers to what a container receives: one device-plugin server per resource.
//!
//! ```text
//!   watch<Offers> --> Fleet --> Roster per resource --> PluginService <--gRPC--> kubelet
//!                       ^            (ids that vanish stay, Unhealthy, until nobody can hold them)
//!                       +-- Usage: podresources and our own record of Allocate calls
//! ```
//!
//! Takes snapshots, never NVML, and never waits for one: Allocate is a lookup in the latest roster.

mod container;
mod fleet;
mod outlet;
mod preference;
mod roster;
mod server;
mod service;
mod status;
mod usage;

pub use container::ContainerSettings;
pub use fleet::{Settings, run};
pub use status::Status;
