//! Every way to fill a GPU.

use serde::Serialize;

use super::packing::{Board, State, Want};
use crate::geometry::Geometry;
use crate::inventory::Placement;
use crate::profile::Profile;

/// A GPU that takes nothing more: its instances, by place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration(pub Vec<(Profile, Placement)>);

/// Every set of placed instances to which none can be added, using no profiles but `only` (all, when it is empty).
///
/// There are 19 for the five plain profiles of an A100, and thousands where media and double-memory profiles come in.
pub fn maximal_configurations(geometry: &Geometry, only: &[Profile]) -> Vec<Configuration> {
    let board = Board::new(geometry);
    let pieces: Vec<usize> = (0..board.pieces())
        .filter(|piece| only.is_empty() || board.profile(*piece).is_some_and(|known| only.contains(&known.profile)))
        .collect();
    let mut places: Vec<Want> = Vec::new();
    for piece in &pieces {
        places.extend((0..board.places(*piece)).map(|place| Want { piece: *piece, place: Some(place) }));
    }
    // By start, the large before the small, so that the list reads from left to right.
    places.sort_by_key(|want| {
        let at = want.place.and_then(|place| board.placement(want.piece, place));
        at.map(|at| (at.start, u32::MAX - at.size, want.piece))
    });
    let mut found = Vec::new();
    fill(&board, &places, 0, &mut board.empty(), &mut Vec::new(), &mut found);
    found
}

/// Every set is met once: its members are taken in the order of `places`.
fn fill(
    board: &Board<'_>,
    places: &[Want],
    from: usize,
    state: &mut State,
    chosen: &mut Vec<Want>,
    found: &mut Vec<Configuration>,
) {
    let takes = |state: &State, want: &Want| {
        let free = want.place.is_some_and(|place| board.bits(want.piece, place) & state.mask == 0);
        free && board.excess(state, std::slice::from_ref(want)).is_empty()
    };
    for (offset, want) in places.iter().enumerate().skip(from) {
        if !takes(state, want) {
            continue;
        }
        let Some(at) = want.place.and_then(|place| board.placement(want.piece, place)) else { continue };
        let before = state.clone();
        board.occupy(state, Some(want.piece), at);
        chosen.push(*want);
        fill(board, places, offset + 1, state, chosen, found);
        chosen.pop();
        *state = before;
    }
    if !chosen.is_empty() && !places.iter().any(|want| takes(state, want)) {
        let one = |want: &Want| {
            let at = want.place.and_then(|place| board.placement(want.piece, place))?;
            Some((board.profile(want.piece)?.profile.clone(), at))
        };
        found.push(Configuration(chosen.iter().filter_map(one).collect()));
    }
}
