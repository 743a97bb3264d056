//! What the end-to-end suite is written in: a cluster with one node whose slices a scene tells, a namespace for each test, and
//! waiting for a condition with a deadline. The tests are in `tests/suite.rs`.

pub mod cluster;
pub mod command;
pub mod cutting;
mod diagnosis;
pub mod namespace;
pub mod pod;
pub mod scene;
mod wait;
