//! What the tests of the images are written in: an archive as `make image` leaves it, and containers made from it by runc, with no
//! more rights than the chart gives.

mod archive;
mod container;

pub use archive::{Archive, Config, Entry, Settings};
pub use container::{Container, Ended, Running, User};
