//! The only crate that speaks to the driver. One thread owns NVML; it reads the node's GPUs again and again and publishes
//! what it saw. Handles never leave it: what others get are UUIDs.
//!
//! ```text
//!   libnvidia-ml.so.1 --Session--> read --> NodeInventory --watch--> View
//!                     (one thread, each pass with a deadline that others watch over)
//! ```

#![allow(unsafe_code, reason = "NVML is a C library; what nvml-wrapper does not wrap is called in session.rs alone")]

mod error;
mod library;
mod lock;
mod names;
mod owner;
mod read;
mod session;

pub use error::{DriverError, kind_of};
pub use library::{Library, LibraryError};
pub use lock::{LockError, NodeLock};
pub use owner::{DriverState, Settings, Supervision, View, start, supervise};
