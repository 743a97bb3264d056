//! A `libnvidia-ml.so.1` without GPUs: a scene says which there are and how they are cut.
//!
//! Clients load the cdylib in the driver's place. `abi` holds the entry points, which say what each function answers;
//! `session` is the way each call takes; `world` is the machine, `store` where processes share it, `scene` and
//! `resolve` where it comes from. The `fake-nvml` command in this package changes it from outside.
#![allow(unsafe_code, reason = "a C library has to follow its callers' pointers and to map shared memory")]

mod abi;
mod arguments;
mod code;
mod events;
mod faults;
mod function;
mod handle;
mod layout;
mod lifecycle;
mod model;
mod outside;
mod place;
mod placing;
mod resolve;
mod scene;
mod session;
mod store;
mod structs;
mod uuid;
mod world;

pub use code::{CODES, Code};
pub use faults::{Delay, Fault, FaultPart, MAX_FAULTS, fault};
pub use function::NAMES;
pub use layout::{Layout, LayoutError, copy_library, lay_out, library_folder, take_away};
pub use model::{ComputeProfile, Mig, Model, Placements, Profile};
pub use outside::Refused;
pub use place::STATE;
pub use resolve::{SceneError, load};
pub use store::{Control, Store, StoreError};
pub use structs::{LAYOUTS, VERSIONS};
pub use world::{ComputeInstance, Event, Gpu, GpuInstance, PciAddress, Permission, Process, Recovery, Vitals, World};
