//! What is wrong with a node's GPUs and slices, and when it is over. Pure: no I/O, no clock; the time is passed in.
//!
//! ```text
//!   XidEvent  --------> Monitor --mark(time)--> the same inventory with faults
//!   NodeInventory ----^    ^  |
//!   Policy (xids.yaml, -----  +--record--> what has to outlive the process, and comes back by restore
//!           settings, DP_* switches)
//! ```
//! Two kinds of causes keep something from being well. A *state* is read from the driver: it is there or not. An *event*
//! (an XID, a rise of an error counter) happens, and is over when its [`Ending`] says so. Either way what was wrong has to
//! stay gone for a while, which grows if it returns.

mod cause;
mod changes;
mod monitor;
mod policy;
mod record;
mod states;
mod switches;
mod table;

use std::time::Duration;

pub use changes::{Change, changes};
pub use monitor::{LastXid, Monitor, Told};
pub use policy::{Policy, PolicyError, Recovery, Settings, parse};
pub use record::{Held, Record, VERSION};
pub use states::{State, faults};
pub use switches::Switches;
pub use table::{Blame, Ending, Entry, Line, Reaction, Scope, Table};

/// A point in time: how long after the machine's start.
pub type Moment = Duration;
