//! What NVML does, as statements that any `libnvidia-ml.so.1` can be held to: the fake one of this repository, or a
//! driver's. See docs/contract.md.
//!
//! `statements` holds them, chapter by chapter; `gpu` and `bench` are what they are made on; `nvml` is the calls;
//! `facts` what was measured on one H200. Each statement is tried in a process of its own (`harness`), because NVML
//! keeps its state per process, because a driver may crash or hang, and because the fake's scene is an environment
//! variable.

pub mod bench;
pub mod call;
pub mod code;
pub mod facts;
pub mod gpu;
pub mod harness;
pub mod nvml;
pub mod statements;
