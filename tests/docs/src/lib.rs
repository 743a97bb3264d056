//! The documentation as the tests see it: pages with their links, tables and fences, and a place to run what they tell
//! people to type.
//!
//! How a fence says what is to be done with it: see `docs/contributing.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's tools fail as tests do")]

pub mod binaries;
pub mod fence;
pub mod page;
pub mod repository;
pub mod session;
