//! The only crate that speaks to the driver. Handles never leave it: what others get are UUIDs.
//!
//! For the agent, one thread owns NVML; it reads the node's GPUs again and again and publishes what it saw. For those who
//! change things, a [`Hardware`] looks thoroughly and takes the steps of a plan; the [`NodeLock`] lets one of them at a time.
//!
//! ```text
//!   libnvidia-ml.so.1 --Session--> read ----> NodeInventory --watch--> View
//!                        |         (one thread, each pass with a deadline that others watch over)
//!                        |           |
//!                        |           +-> details: what only some ask for, and only then --watch--> Described
//!                        +-- Hardware: survey --> NodeSurvey --plan--> Steps --execute--> Report
//! ```

mod cut;
mod describe;
mod details;
mod error;
mod events;
mod execute;
mod hardware;
mod library;
mod lock;
mod metrics;
mod names;
mod owner;
mod pulse;
mod read;
mod report;
#[allow(unsafe_code, reason = "NVML is a C library; what nvml-wrapper does not wrap is called there alone")]
mod session;
mod survey;

pub use details::{Described, Details};
pub use error::{DriverError, kind_of};
pub use hardware::{Hardware, ModelFacts, Roots};
pub use library::{Library, LibraryError};
pub use lock::{LockError, NodeLock};
pub use metrics::Metrics;
pub use owner::{DriverState, Feed, Settings, Supervision, View, start, supervise};
pub use report::{Activation, Done, Failed, Outcome, Progress, Report, StepError};
