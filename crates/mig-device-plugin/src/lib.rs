//! From what a node offers to what a container receives: one device-plugin server per resource.
//!
//! ```text
//!   watch<Wanted> --> Prepare --> Fleet --> Roster per resource --> PluginService <--gRPC--> kubelet
//!                       |           ^            (ids that vanish stay, Unhealthy, until nobody can hold them)
//!                       |           +-- Usage: podresources and our own record of Allocate calls
//!                       +-- CDI spec, device nodes: whatever a container needs is there before it is offered
//! ```
//!
//! Takes snapshots, never NVML, and never waits for one: Allocate is a lookup in the latest roster.

mod authority;
mod callers;
mod cdi;
mod claim;
mod container;
mod fleet;
mod follow;
mod ground;
mod metrics;
mod mixture;
mod outlet;
mod pause;
mod preference;
mod prepare;
mod rival;
mod roster;
mod server;
mod service;
mod socket;
mod status;
mod usage;

pub use container::extra::Extra;
pub use container::strategy::{
    DeviceIdStrategy, DeviceListStrategy, PreferredAllocation, SharedAllocation, UnknownWord,
};
pub use container::{ContainerSettings, Files};
pub use fleet::{Settings, Wanted, run};
pub use metrics::Metrics;
pub use outlet::Listed;
pub use status::{ResourceStatus, Status};
pub use usage::Earlier;
