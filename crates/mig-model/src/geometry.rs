//! How a GPU can be cut: the profiles that its driver offers, and where their instances may lie.

use std::borrow::Cow;

use serde::Serialize;

use crate::inventory::Placement;
use crate::profile::Profile;

/// Beyond any GPU's count of memory slices (12 at most so far): the planner keeps them as the bits of one number.
const MOST_MEMORY_SLICES: u32 = 64;

/// What a GPU offers, as its driver or a file in `models/` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Geometry {
    /// Into how many slices its memory is cut.
    pub memory_slices: u32,
    /// How many compute slices its instances may have in all.
    pub compute_slices: u32,
    /// What can be created, in the driver's order.
    pub profiles: Vec<InstanceProfile>,
}

/// A GPU instance profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceProfile {
    /// Its name.
    pub profile: Profile,
    /// NVML's id, which instances carry.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Engines.
    pub engines: Engines,
    /// How many of it a GPU takes at most.
    pub max_instances: u32,
    /// Where it may lie, by start.
    pub placements: Vec<Placement>,
    /// Into what its instances can be cut; empty where the driver has not said, which it does only of instances that
    /// exist.
    pub compute_profiles: Vec<ComputeProfile>,
}

/// A compute instance profile, within a GPU instance profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComputeProfile {
    /// Its name: the GPU instance's, or a part of it.
    pub profile: Profile,
    /// NVML's id.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// How many of it a GPU instance takes at most.
    pub max_instances: u32,
    /// Where it may lie, in compute slices of the GPU instance.
    pub placements: Vec<Placement>,
}

/// How many of each engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Engines {
    /// Copy engines.
    pub copy: u32,
    /// Video decoders.
    pub decoder: u32,
    /// Video encoders.
    pub encoder: u32,
    /// JPEG decoders.
    pub jpeg: u32,
    /// Optical-flow units.
    pub ofa: u32,
}

/// A description of a GPU that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Nothing to cut, or more than the planner can keep apart.
    #[error("a GPU has 1 to {MOST_MEMORY_SLICES} memory slices, not {0}")]
    MemorySlices(u32),
    /// More compute slices than any GPU could have, or none.
    #[error("{0} has {1} compute slices, expected 1 to {MOST_MEMORY_SLICES}")]
    ComputeSlices(Profile, u32),
    /// Two profiles of one name.
    #[error("there are two profiles {0}")]
    TwoOfAName(Profile),
    /// It could lie nowhere on this GPU.
    #[error("{profile} cannot lie at {start}:{size}: the GPU has {slices} memory slices", start = at.start, size = at.size)]
    Outside {
        /// Which.
        profile: Profile,
        /// Where it is said to lie.
        at: Placement,
        /// How many there are.
        slices: u32,
    },
}

impl Geometry {
    /// From the profiles that a driver lists: it does not state the GPU's slices, but its largest instances have all.
    pub fn of(profiles: Vec<InstanceProfile>) -> Result<Self, GeometryError> {
        let ends = profiles.iter().flat_map(|profile| &profile.placements).map(Placement::end);
        let memory_slices = ends.max().unwrap_or_default();
        let compute_slices = profiles.iter().map(|profile| profile.slices).max().unwrap_or_default();
        Self::new(memory_slices, compute_slices, profiles)
    }

    /// From a description that states everything.
    pub fn new(
        memory_slices: u32,
        compute_slices: u32,
        mut profiles: Vec<InstanceProfile>,
    ) -> Result<Self, GeometryError> {
        if !(1..=MOST_MEMORY_SLICES).contains(&memory_slices) {
            return Err(GeometryError::MemorySlices(memory_slices));
        }
        for (position, profile) in profiles.iter().enumerate() {
            if !(1..=MOST_MEMORY_SLICES).contains(&profile.slices) {
                return Err(GeometryError::ComputeSlices(profile.profile.clone(), profile.slices));
            }
            if profiles.iter().take(position).any(|other| other.profile == profile.profile) {
                return Err(GeometryError::TwoOfAName(profile.profile.clone()));
            }
            if let Some(at) = profile.placements.iter().find(|at| at.size == 0 || at.end() > memory_slices) {
                return Err(GeometryError::Outside {
                    profile: profile.profile.clone(),
                    at: *at,
                    slices: memory_slices,
                });
            }
        }
        for profile in &mut profiles {
            profile.placements.sort();
            profile.placements.dedup();
        }
        Ok(Self { memory_slices, compute_slices, profiles })
    }

    /// The profile of this name; a compute instance's name finds that of its GPU instance.
    pub fn find(&self, profile: &Profile) -> Option<&InstanceProfile> {
        let whole = profile.gpu_instance();
        self.profiles.iter().find(|known| known.profile == whole)
    }

    /// What instances of a profile can be cut into: the driver's word, or where it has not said, what every MIG GPU so far
    /// has had.
    pub fn compute_profiles<'g>(&self, of: &'g InstanceProfile) -> Cow<'g, [ComputeProfile]> {
        match of.compute_profiles.as_slice() {
            [] => Cow::Owned(self.usual_compute_profiles(of)),
            said => Cow::Borrowed(said),
        }
    }

    /// What is published for A100, carried over to any GPU: one slice anywhere, two on even slices, three and four only
    /// in the instance of seven, and all of it. Unverified elsewhere; the driver's own word goes before it.
    fn usual_compute_profiles(&self, of: &InstanceProfile) -> Vec<ComputeProfile> {
        let whole = of.slices;
        let per_slice = |profile: &InstanceProfile| profile.multiprocessors.checked_div(profile.slices);
        let one = self.profiles.iter().filter_map(per_slice).min().unwrap_or_default();
        let part = |slices: u32, starts: &[u32]| {
            let profile = of.profile.with_compute_slices(u8::try_from(slices).ok()?).ok()?;
            let starts = starts.iter().filter(|start| **start + slices <= whole);
            let placements: Vec<Placement> = starts.map(|start| Placement { start: *start, size: slices }).collect();
            let multiprocessors = if slices == whole { of.multiprocessors } else { one * slices };
            let id = match slices {
                1..=4 => slices - 1,
                7 => 4,
                _ => 5,
            };
            let max_instances = u32::try_from(placements.len()).unwrap_or(u32::MAX);
            Some(ComputeProfile { profile, id, slices, multiprocessors, max_instances, placements })
        };
        let every: Vec<u32> = (0..whole).collect();
        let mut profiles = Vec::new();
        if whole > 1 {
            profiles.extend(part(1, &every));
        }
        if whole > 2 {
            profiles.extend(part(2, &[0, 2, 4]));
        }
        if whole == 7 {
            profiles.extend(part(3, &[0, 4]));
            profiles.extend(part(4, &[0]));
        }
        profiles.extend(part(whole, &[0]));
        profiles
    }

    /// The names of all profiles, nearest to `wanted` first: same compute slices, then near in slices and memory.
    pub fn nearest(&self, wanted: &Profile) -> Vec<Profile> {
        let mut names: Vec<&Profile> = self.profiles.iter().map(|known| &known.profile).collect();
        names.sort_by_key(|known| known.distance(wanted));
        names.into_iter().cloned().collect()
    }
}
