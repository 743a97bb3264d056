//! What the agent of a node writes down there: for the agent that comes after it, and for `migctl`.

use serde::{Deserialize, Serialize};

/// Of the form of a [`Note`].
pub const NOTE_VERSION: u32 = 1;
/// The file of the [`GivenOut`].
pub const GIVEN_OUT: &str = "given-out.json";
/// The file of the [`Unhealthy`].
pub const UNHEALTHY: &str = "unhealthy.json";

/// A file. Nothing in it is true after the machine's next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note<T> {
    /// [`NOTE_VERSION`], or it is not understood.
    pub version: u32,
    /// Of which start of the machine, by the kernel's id.
    pub boot_id: String,
    /// Of the agent of which kubelet.
    pub kubelet_root: String,
    /// Of what it tells.
    pub devices: Vec<T>,
}

/// A device that a pod may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenOut {
    /// What the kubelet calls it.
    pub id: String,
    /// Under which name it was given out.
    pub resource: String,
    /// The UUID of the GPU that it is, or was, a part of; nothing if that was never known.
    pub gpu: Option<String>,
    /// A pod was listed with it.
    pub seen: bool,
    /// An agent gave it out; else nobody but podresources has said so, and the name may be another plugin's.
    #[serde(default)]
    pub given: bool,
}

/// A device that the kubelet is told is Unhealthy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unhealthy {
    /// The UUID of the slice, or of the GPU that is offered whole.
    pub uuid: String,
    /// The UUID of its GPU, if it is known.
    pub gpu: String,
    /// A word.
    pub reason: String,
    /// For people.
    pub message: String,
}
