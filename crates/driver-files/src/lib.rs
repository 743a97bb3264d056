//! NVIDIA's driver as files: its libraries and programs below a driver root, the numbers of its device nodes in `/proc`,
//! and the nodes themselves below `/dev`.
//!
//! Roots are other people's directories. Whatever a link in one of them says, nothing outside of it is reached.

mod capabilities;
mod driver;
mod nodes;
mod root;

pub use capabilities::{Majors, MigMinors, NumbersError};
pub use driver::{Driver, DriverError, LIBRARY_FOLDERS, OPERATOR_ROOT, Provided, shown};
pub use nodes::{Node, NodeError, present, provide};
pub use root::{Found, Root};
