//! A GPU's memory slices as the bits of one number, and the search for places in them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::room::Room;
use crate::geometry::{Geometry, InstanceProfile};
use crate::inventory::Placement;
use crate::profile::Profile;

/// How many states a search visits before it is content with the ways it has found. No GPU that there is comes near it;
/// whether there is a way at all is always searched to the end.
const ENOUGH_STATES: usize = 50_000;

/// A geometry, made ready for searching.
pub(super) struct Board<'g> {
    pub(super) geometry: &'g Geometry,
    pieces: Vec<Piece>,
}

/// A profile on the board; its position is that in the geometry.
struct Piece {
    slices: u32,
    memory_mib: u64,
    most: u32,
    size: u32,
    media: Media,
    /// The slices that each of its placements takes, in the geometry's order.
    places: Vec<u64>,
}

/// How a profile's name says that it shares the GPU's media engines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    /// Its share.
    Plain,
    /// `+me`: those that exist once; one instance per GPU can have them.
    One,
    /// `+me.all`: all of them; only instances without any can be beside it.
    All,
    /// `-me`.
    None,
}

/// One instance to place: which piece, and at which of its placements, if it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Want {
    pub(super) piece: usize,
    pub(super) place: Option<usize>,
}

/// What a board holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Taken slices.
    pub(super) mask: u64,
    /// Compute slices in use.
    pub(super) compute: u32,
    /// How many of each piece.
    pub(super) counts: Vec<u32>,
}

/// How good a way is, best is greatest: see [`Room`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    more: u32,
    largest_mib: u64,
    free_places: u32,
}

/// Why a set of instances cannot be on one GPU, placements aside.
pub(super) enum Excess {
    Memory { wanted: u32, available: u32 },
    Compute { wanted: u32, available: u32 },
    TooMany { piece: usize, wanted: u32, most: u32 },
    Media { pieces: [usize; 2] },
}

fn bits(at: Placement) -> u64 {
    let ones = if at.size >= u64::BITS { u64::MAX } else { (1 << at.size) - 1 };
    ones.checked_shl(at.start).unwrap_or_default()
}

fn media(profile: &Profile) -> Media {
    let mut rest = profile.attributes();
    while let Some(sign) = rest.chars().next() {
        let after = rest.get(1..).unwrap_or_default();
        let end = after.find(['+', '-']).unwrap_or(after.len());
        match (sign, after.get(..end)) {
            ('+', Some("me.all")) => return Media::All,
            ('+', Some("me")) => return Media::One,
            ('-', Some("me")) => return Media::None,
            _ => {}
        }
        rest = after.get(end..).unwrap_or_default();
    }
    Media::Plain
}

impl<'g> Board<'g> {
    pub(super) fn new(geometry: &'g Geometry) -> Self {
        let piece = |profile: &InstanceProfile| Piece {
            slices: profile.slices,
            memory_mib: profile.memory_mib,
            most: profile.max_instances,
            size: profile.placements.iter().map(|at| at.size).min().unwrap_or_default(),
            media: media(&profile.profile),
            places: profile.placements.iter().map(|at| bits(*at)).collect(),
        };
        Self { geometry, pieces: geometry.profiles.iter().map(piece).collect() }
    }

    pub(super) fn empty(&self) -> State {
        State { mask: 0, compute: 0, counts: vec![0; self.pieces.len()] }
    }

    /// The position of a GPU instance's profile.
    pub(super) fn find(&self, profile: &Profile) -> Option<usize> {
        let whole = profile.gpu_instance();
        self.geometry.profiles.iter().position(|known| known.profile == whole)
    }

    pub(super) fn profile(&self, piece: usize) -> Option<&'g InstanceProfile> {
        self.geometry.profiles.get(piece)
    }

    pub(super) fn placement(&self, piece: usize, place: usize) -> Option<Placement> {
        self.profile(piece)?.placements.get(place).copied()
    }

    pub(super) fn memory_mib(&self, piece: usize) -> u64 {
        self.pieces.get(piece).map_or(0, |piece| piece.memory_mib)
    }

    /// Adds an instance that is there, wherever it lies and whatever it is.
    pub(super) fn occupy(&self, state: &mut State, piece: Option<usize>, at: Placement) {
        state.mask |= bits(at);
        if let Some(piece) = piece {
            self.count(state, piece);
        }
    }

    pub(super) fn count(&self, state: &mut State, piece: usize) {
        if let (Some(count), Some(piece)) = (state.counts.get_mut(piece), self.pieces.get(piece)) {
            *count += 1;
            state.compute += piece.slices;
        }
    }

    /// Everything that forbids `wants` beside what the state holds, whatever their places.
    pub(super) fn excess(&self, state: &State, wants: &[Want]) -> Vec<Excess> {
        let mut after = state.clone();
        let mut size = 0;
        for want in wants {
            self.count(&mut after, want.piece);
            size += self.pieces.get(want.piece).map_or(0, |piece| piece.size);
        }
        let mut found = Vec::new();
        let free = self.geometry.memory_slices.saturating_sub(state.mask.count_ones());
        if size > free {
            found.push(Excess::Memory { wanted: size, available: free });
        }
        let left = self.geometry.compute_slices.saturating_sub(state.compute);
        if after.compute > self.geometry.compute_slices && after.compute > state.compute {
            found.push(Excess::Compute { wanted: after.compute - state.compute, available: left });
        }
        for (position, (piece, count)) in self.pieces.iter().zip(&after.counts).enumerate() {
            let grew = state.counts.get(position) != Some(count);
            if *count > piece.most && grew {
                found.push(Excess::TooMany { piece: position, wanted: *count, most: piece.most });
            }
        }
        if let Some(pieces) = self.media_conflict(&after).filter(|_| !wants.is_empty()) {
            found.push(Excess::Media { pieces });
        }
        found
    }

    /// Two that cannot be together because of media engines.
    fn media_conflict(&self, state: &State) -> Option<[usize; 2]> {
        let there = || {
            let all = self.pieces.iter().zip(&state.counts).enumerate();
            all.filter(|(_, (_, count))| **count > 0).map(|(position, (piece, count))| (position, piece.media, *count))
        };
        there().find_map(|(position, media, count)| {
            let bars = |(at, other, _): &(usize, Media, u32)| {
                *at != position && (media == Media::All && *other != Media::None || *other == Media::One)
            };
            match media {
                Media::One | Media::All if count > 1 => Some([position, position]),
                Media::One | Media::All => there().find(bars).map(|(other, _, _)| [position, other]),
                Media::Plain | Media::None => None,
            }
        })
    }

    /// Whether all of `wants` can be beside what the state holds.
    pub(super) fn fits(&self, state: &State, wants: &[Want]) -> bool {
        if !self.excess(state, wants).is_empty() {
            return false;
        }
        let mut found = false;
        self.ways(state.mask, wants, |_, _| {
            found = true;
            ControlFlow::Break(())
        });
        found
    }

    /// Visits ways to place all of `wants` in what `taken` leaves free: one for each set of slices that they can end up
    /// taking. A way is the place of each want, in the order of `wants`.
    pub(super) fn ways(&self, taken: u64, wants: &[Want], mut visit: impl FnMut(u64, &[usize]) -> ControlFlow<()>) {
        // What must lie somewhere first, then the bulky; equals side by side, so that their order can be fixed.
        let mut order: Vec<usize> = (0..wants.len()).collect();
        let key = |index: usize| {
            let want = wants.get(index).copied().unwrap_or(Want { piece: 0, place: None });
            let size = self.pieces.get(want.piece).map_or(0, |piece| piece.size);
            (want.place.is_none(), u32::MAX - size, want.piece, want.place)
        };
        order.sort_by_key(|index| key(*index));
        let ordered: Vec<Want> = order.iter().filter_map(|index| wants.get(*index).copied()).collect();
        let mut left: Vec<u32> = ordered
            .iter()
            .rev()
            .scan(0, |sum, want| {
                *sum += self.pieces.get(want.piece).map_or(0, |piece| piece.size);
                Some(*sum)
            })
            .collect();
        left.reverse();
        let mut search = Search { board: self, wants: &ordered, left, seen: HashSet::new(), places: Vec::new() };
        let mut found = 0_usize;
        let mut placed = vec![0; wants.len()];
        let _ = search.go(taken, 0, &mut |mask, places, states| {
            for (index, place) in order.iter().zip(places) {
                if let Some(slot) = placed.get_mut(*index) {
                    *slot = *place;
                }
            }
            found += 1;
            visit(mask, &placed)?;
            if states > ENOUGH_STATES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// How many more of a piece the state takes, if nothing else is added, and how many of its places are free.
    fn more(&self, state: &State, position: usize) -> (u32, u32) {
        let Some(piece) = self.pieces.get(position) else { return (0, 0) };
        let mut after = state.clone();
        self.count(&mut after, position);
        let count = state.counts.get(position).copied().unwrap_or_default();
        let by_compute = match self.geometry.compute_slices.checked_sub(state.compute) {
            Some(left) => left.checked_div(piece.slices).unwrap_or(u32::MAX),
            None => 0,
        };
        let alone = !matches!(piece.media, Media::One | Media::All);
        let limit = piece.most.saturating_sub(count).min(by_compute).min(if alone { u32::MAX } else { 1 });
        if limit == 0 || self.media_conflict(&after).is_some() {
            return (0, 0);
        }
        // Placements are in order of start; of those that overlap the one that ends first leaves most, so this is exact.
        let mut by_end: Vec<u64> = piece.places.iter().copied().filter(|place| place & state.mask == 0).collect();
        let free = u32::try_from(by_end.len()).unwrap_or(u32::MAX);
        by_end.sort_by_key(|place| u64::BITS - place.leading_zeros());
        let mut taken = state.mask;
        let mut fit = 0;
        for place in by_end {
            if place & taken == 0 {
                taken |= place;
                fit += 1;
            }
        }
        (limit.min(fit), free)
    }

    pub(super) fn room(&self, state: &State) -> Room {
        let all = self.geometry.profiles.iter().enumerate();
        Room(all.map(|(position, profile)| (profile.profile.clone(), self.more(state, position).0)).collect())
    }

    pub(super) fn score(&self, state: &State) -> Score {
        let mut score = Score { more: 0, largest_mib: 0, free_places: 0 };
        for (position, piece) in self.pieces.iter().enumerate() {
            let (more, free) = self.more(state, position);
            score.more += more;
            if more > 0 {
                score.largest_mib = score.largest_mib.max(piece.memory_mib);
                score.free_places += free;
            }
        }
        score
    }

    /// The bits of one place of a piece.
    pub(super) fn bits(&self, piece: usize, place: usize) -> u64 {
        self.pieces.get(piece).and_then(|piece| piece.places.get(place)).copied().unwrap_or_default()
    }

    pub(super) fn places(&self, piece: usize) -> usize {
        self.pieces.get(piece).map_or(0, |piece| piece.places.len())
    }

    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

/// Depth first; what was seen once is not searched again.
struct Search<'b, 'g> {
    board: &'b Board<'g>,
    wants: &'b [Want],
    /// Slices that the wants from each on take.
    left: Vec<u32>,
    /// Depth, the lowest place that an equal may take, and the slices taken.
    seen: HashSet<(usize, usize, u64)>,
    places: Vec<usize>,
}

impl Search<'_, '_> {
    fn go(
        &mut self,
        mask: u64,
        from: usize,
        visit: &mut impl FnMut(u64, &[usize], usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let depth = self.places.len();
        if !self.seen.insert((depth, from, mask)) {
            return ControlFlow::Continue(());
        }
        let Some(want) = self.wants.get(depth).copied() else {
            return visit(mask, &self.places, self.seen.len());
        };
        let free = self.board.geometry.memory_slices.saturating_sub(mask.count_ones());
        if self.left.get(depth).is_some_and(|needed| *needed > free) {
            return ControlFlow::Continue(());
        }
        let (first, end) = match want.place {
            Some(place) => (place, place + 1),
            None => (from, self.board.places(want.piece)),
        };
        for place in first..end {
            let bits = self.board.bits(want.piece, place);
            if bits == 0 || bits & mask != 0 {
                continue;
            }
            // Of equals the next one lies further on: every other order is the same way again.
            let equal = want.place.is_none() && self.wants.get(depth + 1) == Some(&want);
            self.places.push(place);
            let flow = self.go(mask | bits, if equal { place + 1 } else { 0 }, visit);
            self.places.pop();
            flow?;
        }
        ControlFlow::Continue(())
    }
}
