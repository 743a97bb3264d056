//! From what is and what is wished for to the steps between them.
//!
//! ```text
//!   Geometry, instances, InUse --place--> where new instances go beside what is there
//!                              --plan---> what to destroy and create so that the wish, and no more, is there
//! ```
//! Both are exact: they say that something does not fit only if no arrangement fits. Among the plans that serve they take
//! the one that destroys the fewest GPU instances, then the fewest compute instances, then the one that leaves the most
//! room (see [`Room`]). Instances in use are never destroyed.

mod compute;
mod enumerate;
mod misfit;
mod packing;
mod room;
mod search;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

pub use compute::arrange_compute;
pub use enumerate::{Configuration, maximal_configurations};
pub use misfit::{Misfit, Reason};
pub use room::Room;
pub use search::{place, plan};
pub use whole::{GpuWish, plan_gpu};

use crate::identity::MigUuid;
use crate::inventory::{GpuInstance, Placement};
use crate::profile::Profile;

/// An instance that somebody wishes for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WantedInstance {
    /// The GPU instance's profile.
    pub profile: Profile,
    /// Its first memory slice, when it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// Its compute instances; nothing means one that takes all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compute: Vec<Profile>,
}

/// What must not be touched, by GPU instance id and, where it is known, compute instance id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse(BTreeSet<(u32, Option<u32>)>);

/// One change to a GPU. A step is done as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Turns MIG on or off; on some GPUs it takes a reset to come into force.
    SetMigMode {
        /// On.
        enabled: bool,
    },
    /// Destroys a compute instance; its GPU instance stays.
    DestroyComputeInstance {
        /// The GPU instance it is in.
        gpu_instance: u32,
        /// Which.
        compute_instance: u32,
        /// Its kind, for people.
        profile: Profile,
        /// Who it was.
        uuid: MigUuid,
    },
    /// Destroys a GPU instance with the compute instances that are left in it.
    DestroyGpuInstance {
        /// Which.
        gpu_instance: u32,
        /// Its kind, for people.
        profile: Profile,
        /// Where it lies, for people.
        placement: Option<Placement>,
        /// Its compute instances, by id and UUID.
        #[serde(serialize_with = "named")]
        compute_instances: Vec<(u32, MigUuid)>,
    },
    /// Creates a GPU instance with its compute instances. If one of them fails, nothing stays.
    CreateGpuInstance {
        /// Its kind.
        profile: Profile,
        /// Where.
        placement: Placement,
        /// Its compute instances, in the order in which they are created.
        compute: Vec<Profile>,
    },
    /// Creates a compute instance in a GPU instance that is there.
    CreateComputeInstance {
        /// In which.
        gpu_instance: u32,
        /// Its kind.
        profile: Profile,
    },
}

/// The way from what is to what is wished for, on one GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuPlan {
    /// GPU instances that stay, by id.
    pub kept: Vec<u32>,
    /// What to do, in order: what goes comes first.
    pub steps: Vec<Step>,
    /// What could still be placed when all is done.
    pub room: Room,
    /// Other ways that serve as well, but leave less room: where they would have put the new instances, best first.
    pub passed_over: Vec<PassedOver>,
}

/// A way not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The new instances and where they would have gone.
    pub created: Vec<(Profile, Placement)>,
    /// What it would leave.
    pub room: Room,
}

/// Why a wish cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// This GPU has no such profile.
    #[error("this GPU has no profile {wanted}; it has {}", list(known))]
    UnknownProfile {
        /// What was asked for.
        wanted: Profile,
        /// What there is, nearest first.
        known: Vec<Profile>,
    },
    /// The profile exists, but may not lie there.
    #[error("{profile} cannot lie at {start}; it can at {}", starts(possible))]
    IllegalPlacement {
        /// Which.
        profile: Profile,
        /// Where it was wished.
        start: u32,
        /// Where it may lie.
        possible: Vec<Placement>,
    },
    /// The GPU instance has no such part, or not so many together.
    #[error("{}", compute_misfit(instance, wanted, possible))]
    ComputeDoesNotFit {
        /// The GPU instance's profile.
        instance: Profile,
        /// The compute instances that were asked for.
        wanted: Vec<Profile>,
        /// What it can be cut into.
        possible: Vec<Profile>,
    },
    /// It fits nowhere, not even on an empty GPU; or, for [`place`], not beside what is there.
    #[error("{0}")]
    DoesNotFit(Box<Misfit>),
    /// It would fit if it were not for instances in use.
    #[error("{} in the way and in use", in_the_way(instances))]
    InTheWay {
        /// Which, by GPU instance id.
        instances: Vec<u32>,
        /// How much of the wish can be had around what is in use.
        possible: Vec<WantedInstance>,
    },
    /// It is to be cut, and cannot.
    #[error("{0} has no MIG")]
    NoMig(String),
    /// The driver does not say where an instance lies, so nothing can be planned around it.
    #[error("the driver does not say where GPU instance {0} lies (that needs the mig/monitor capability, or root)")]
    PlacementUnknown(u32),
}

/// Programs that read a step want names, not positions.
fn named<S: Serializer>(instances: &[(u32, MigUuid)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Named<'a> {
        id: u32,
        uuid: &'a MigUuid,
    }
    serializer.collect_seq(instances.iter().map(|(id, uuid)| Named { id: *id, uuid }))
}

fn list(profiles: &[Profile]) -> String {
    let names: Vec<String> = profiles.iter().map(Profile::to_string).collect();
    names.join(", ")
}

fn starts(placements: &[Placement]) -> String {
    let starts: Vec<String> = placements.iter().map(|at| at.start.to_string()).collect();
    starts.join(", ")
}

fn in_the_way(instances: &[u32]) -> String {
    let ids: Vec<String> = instances.iter().map(u32::to_string).collect();
    match ids.as_slice() {
        [id] => format!("GPU instance {id} is"),
        ids => format!("GPU instances {} are", ids.join(", ")),
    }
}

fn compute_misfit(instance: &Profile, wanted: &[Profile], possible: &[Profile]) -> String {
    match wanted.iter().find(|wanted| !possible.contains(wanted)) {
        Some(unknown) => format!("{instance} has no compute instance {unknown}; it has {}", list(possible)),
        None => format!("{} do not fit in one {instance} together", list(wanted)),
    }
}

// === impl WantedInstance ===

impl WantedInstance {
    /// One with a compute instance that takes all of it.
    pub fn whole(profile: Profile) -> Self {
        Self { profile, start: None, compute: Vec::new() }
    }

    /// What is there, wished for as it is.
    pub fn same_as(instance: &GpuInstance) -> Self {
        let mut compute: Vec<Profile> = instance.compute_instances.iter().map(|one| one.profile.clone()).collect();
        compute.sort();
        if compute == [instance.profile.clone()] {
            compute.clear();
        }
        Self { profile: instance.profile.clone(), start: instance.placement.map(|at| at.start), compute }
    }

    /// Its compute instances, spelt out and in order.
    pub fn compute_instances(&self) -> Vec<Profile> {
        let mut all = if self.compute.is_empty() { vec![self.profile.clone()] } else { self.compute.clone() };
        all.sort();
        all
    }
}

/// `3g.20gb`, `3g.20gb@4`, `3g.20gb@4 (1c.3g.20gb, 2c.3g.20gb)`.
impl fmt::Display for WantedInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.map(|start| format!("@{start}")).unwrap_or_default();
        let compute = if self.compute.is_empty() { String::new() } else { format!(" ({})", list(&self.compute)) };
        f.pad(&format!("{}{start}{compute}", self.profile))
    }
}

// === impl InUse ===

impl InUse {
    /// Marks a GPU instance, and where it is known which, one of its compute instances.
    pub fn insert(&mut self, gpu_instance: u32, compute_instance: Option<u32>) {
        self.0.insert((gpu_instance, compute_instance));
    }

    /// Everything that is there.
    pub fn all(instances: &[GpuInstance]) -> Self {
        let mut all = Self::default();
        for instance in instances {
            all.insert(instance.id, None);
        }
        all
    }

    /// Whether a GPU instance, or anything in it, is in use.
    pub fn holds(&self, gpu_instance: u32) -> bool {
        self.0.iter().any(|(instance, _)| *instance == gpu_instance)
    }

    /// Whether a compute instance is in use, or may be.
    pub fn holds_compute(&self, gpu_instance: u32, compute_instance: u32) -> bool {
        self.0.contains(&(gpu_instance, None)) || self.0.contains(&(gpu_instance, Some(compute_instance)))
    }
}

/// `+ create 3g.20gb at 4:4` and the like, a line each.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMigMode { enabled: true } => f.write_str("* enable MIG mode"),
            Self::SetMigMode { enabled: false } => f.write_str("* disable MIG mode"),
            Self::DestroyComputeInstance { gpu_instance, compute_instance, profile, uuid } => {
                write!(
                    f,
                    "- destroy compute instance {compute_instance} of GPU instance {gpu_instance} ({profile}, {uuid})"
                )
            }
            Self::DestroyGpuInstance { gpu_instance, profile, placement, .. } => {
                let place = placement.map(|at| format!(" at {at}")).unwrap_or_default();
                write!(f, "- destroy GPU instance {gpu_instance} ({profile}{place})")
            }
            Self::CreateGpuInstance { profile, placement, compute } => {
                let parts = match compute.as_slice() {
                    [] => " without compute instances".to_owned(),
                    [one] if one == profile => String::new(),
                    parts => format!(" with {}", list(parts)),
                };
                write!(f, "+ create {profile} at {placement}{parts}")
            }
            Self::CreateComputeInstance { gpu_instance, profile } => {
                write!(f, "+ create compute instance {profile} in GPU instance {gpu_instance}")
            }
        }
    }
}
