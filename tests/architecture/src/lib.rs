//! Nothing here: see `tests/dependencies.rs`.
