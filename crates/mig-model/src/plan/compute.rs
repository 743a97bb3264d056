//! How a GPU instance is cut into compute instances.

use crate::geometry::{ComputeProfile, Geometry, InstanceProfile};
use crate::inventory::{ComputeInstance, Placement};
use crate::profile::Profile;

/// What becomes of a GPU instance that stays, but shall have other compute instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recut {
    /// Ids of those that go.
    pub(super) destroy: Vec<u32>,
    /// Those that come, in the order in which they are created.
    pub(super) create: Vec<Profile>,
}

/// The order in which to create these compute instances in an empty GPU instance, so that the driver, which takes the
/// first free place, has room for each; none where they do not fit together.
pub fn arrange_compute(geometry: &Geometry, within: &InstanceProfile, wanted: &[Profile]) -> Option<Vec<Profile>> {
    let profiles = geometry.compute_profiles(within);
    let mut pieces: Vec<&ComputeProfile> =
        wanted.iter().map(|name| profiles.iter().find(|known| known.profile == *name)).collect::<Option<_>>()?;
    pieces.sort_by(|a, b| b.slices.cmp(&a.slices).then_with(|| a.profile.cmp(&b.profile)));
    let mut order = Vec::new();
    in_some_order(within.slices, &mut Vec::new(), &mut pieces, &mut order).then_some(order)
}

/// Places one after the other where a driver would, the largest first; if that fails, in any other order.
fn in_some_order(
    slices: u32,
    taken: &mut Vec<Placement>,
    left: &mut Vec<&ComputeProfile>,
    order: &mut Vec<Profile>,
) -> bool {
    if left.is_empty() {
        return true;
    }
    let held: u32 = taken.iter().map(|at| at.size).sum();
    if left.iter().map(|piece| piece.slices).sum::<u32>() > slices.saturating_sub(held) {
        return false;
    }
    for position in 0..left.len() {
        let Some(piece) = left.get(position).copied() else { continue };
        // An equal was tried at this place already.
        if left.iter().take(position).any(|other| other.profile == piece.profile) {
            continue;
        }
        let Some(at) = first_free(piece, taken) else { continue };
        left.remove(position);
        taken.push(at);
        order.push(piece.profile.clone());
        if in_some_order(slices, taken, left, order) {
            return true;
        }
        order.pop();
        taken.pop();
        left.insert(position, piece);
    }
    false
}

fn first_free(piece: &ComputeProfile, taken: &[Placement]) -> Option<Placement> {
    piece.placements.iter().copied().find(|at| !taken.iter().any(|other| other.overlaps(at)))
}

/// The least change after which a GPU instance has the wanted compute instances and no other; none where those that must
/// stay leave no way.
pub(super) fn recut(
    geometry: &Geometry,
    within: &InstanceProfile,
    have: &[ComputeInstance],
    must_stay: impl Fn(u32) -> bool,
    wanted: &[Profile],
) -> Option<Recut> {
    let profiles = geometry.compute_profiles(within);
    // Fewest destroyed first. There are seven compute instances at most in any GPU instance so far.
    let mut subsets: Vec<u32> = (0..1_u32 << have.len().min(16)).collect();
    subsets.sort_by_key(|subset| subset.count_ones());
    subsets.into_iter().find_map(|gone| {
        let goes = |position: usize| gone & (1 << position) != 0;
        let mut missing = wanted.to_vec();
        let mut taken = Vec::new();
        let mut destroy = Vec::new();
        for (position, one) in have.iter().enumerate() {
            if goes(position) {
                if must_stay(one.id) {
                    return None;
                }
                destroy.push(one.id);
                continue;
            }
            missing.remove(missing.iter().position(|name| *name == one.profile)?);
            taken.push(one.placement.unwrap_or_else(|| unknown_place(&profiles, one)));
        }
        let mut pieces: Vec<&ComputeProfile> =
            missing.iter().map(|name| profiles.iter().find(|known| known.profile == *name)).collect::<Option<_>>()?;
        pieces.sort_by(|a, b| b.slices.cmp(&a.slices).then_with(|| a.profile.cmp(&b.profile)));
        let mut create = Vec::new();
        in_some_order(within.slices, &mut taken, &mut pieces, &mut create).then_some(Recut { destroy, create })
    })
}

/// Where a driver does not say: nothing overlaps it, but its slices count.
fn unknown_place(profiles: &[ComputeProfile], one: &ComputeInstance) -> Placement {
    let size = profiles.iter().find(|known| known.profile == one.profile).map_or(1, |known| known.slices);
    Placement { start: u32::MAX - 64, size }
}
