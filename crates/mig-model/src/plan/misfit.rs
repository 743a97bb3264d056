//! Why instances do not fit on a GPU, whatever else it held.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::packing::{Board, Excess, State, Want};
use crate::inventory::Placement;
use crate::plan::WantedInstance;
use crate::profile::Profile;

/// A wish that does not fit, and what does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// What was wished for, in all.
    pub wanted: Vec<WantedInstance>,
    /// Every reason found; never empty.
    pub reasons: Vec<Reason>,
    /// The largest parts of the wish that fit, none of which contains another; the best first.
    pub parts_that_fit: Vec<Vec<WantedInstance>>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// More memory slices than the GPU has.
    MemorySlices {
        /// What the wish takes.
        wanted: u32,
        /// What there is.
        available: u32,
    },
    /// More compute slices than the GPU has.
    ComputeSlices {
        /// What the wish takes.
        wanted: u32,
        /// What there is.
        available: u32,
    },
    /// More of a profile than the driver allows on one GPU.
    TooMany {
        /// Which.
        profile: Profile,
        /// How many are wished for, together with those that stay.
        wanted: u32,
        /// How many there may be.
        most: u32,
    },
    /// Media engines cannot be given twice.
    MediaEngines {
        /// The instance that has them, and the one that can't be beside it.
        profiles: [Profile; 2],
    },
    /// The counts would do, but no arrangement of the placements does.
    Arrangement {
        /// Where each profile of the wish may lie, apart from what stays.
        free: Vec<(Profile, Vec<Placement>)>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemorySlices { wanted, available } => {
                write!(f, "{} needed, and {available} free", slices("memory", *wanted))
            }
            Self::ComputeSlices { wanted, available } => {
                write!(f, "{} needed, and {available} free", slices("compute", *wanted))
            }
            Self::TooMany { profile, wanted, most } => {
                write!(f, "a GPU takes at most {most} of {profile}, not {wanted}")
            }
            Self::MediaEngines { profiles: [one, other] } => {
                write!(f, "{one} has media engines that leave no room for {other} on the same GPU")
            }
            Self::Arrangement { free } => {
                f.write_str("no arrangement has room for all of them")?;
                for (position, (profile, places)) in free.iter().enumerate() {
                    let starts: Vec<String> = places.iter().map(|at| at.start.to_string()).collect();
                    let size = places.first().map_or(0, |at| at.size);
                    let lead = if position == 0 { ": " } else { ", " };
                    match starts.as_slice() {
                        [] => write!(f, "{lead}{profile} has no place left")?,
                        starts => write!(f, "{lead}{profile} takes {size} slices from {}", starts.join(" or "))?,
                    }
                }
                Ok(())
            }
        }
    }
}

fn slices(of: &str, count: u32) -> String {
    if count == 1 { format!("1 {of} slice is") } else { format!("{count} {of} slices are") }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.reasons.iter().map(Reason::to_string).collect();
        write!(
            f,
            "{} {} not fit: {}",
            counted(&self.wanted),
            if self.wanted.len() == 1 { "does" } else { "do" },
            reasons.join("; ")
        )
    }
}

/// `2 x 3g.20gb + 1g.5gb@6`.
pub(super) fn counted(instances: &[WantedInstance]) -> String {
    let mut counts: BTreeMap<&WantedInstance, usize> = BTreeMap::new();
    let mut order = Vec::new();
    for one in instances {
        let count = counts.entry(one).or_insert_with(|| {
            order.push(one);
            0
        });
        *count += 1;
    }
    let parts: Vec<String> = order
        .into_iter()
        .map(|one| match counts.get(one).copied().unwrap_or_default() {
            1 => one.to_string(),
            count => format!("{count} x {one}"),
        })
        .collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(" + ") }
}

/// Why `wants` cannot be beside what `state` holds, and how much of them can.
pub(super) fn explain(board: &Board<'_>, state: &State, wants: &[Want], wanted: &[WantedInstance]) -> Misfit {
    let name = |piece: usize| board.profile(piece).map(|known| known.profile.clone());
    let mut reasons: Vec<Reason> = board
        .excess(state, wants)
        .into_iter()
        .filter_map(|excess| {
            Some(match excess {
                Excess::Memory { wanted, available } => Reason::MemorySlices { wanted, available },
                Excess::Compute { wanted, available } => Reason::ComputeSlices { wanted, available },
                Excess::TooMany { piece, wanted, most } => Reason::TooMany { profile: name(piece)?, wanted, most },
                Excess::Media { pieces: [one, other] } => Reason::MediaEngines { profiles: [name(one)?, name(other)?] },
            })
        })
        .collect();
    if reasons.is_empty() {
        let mut pieces: Vec<usize> = wants.iter().map(|want| want.piece).collect();
        pieces.sort_unstable();
        pieces.dedup();
        let free = |piece: usize| {
            let places = (0..board.places(piece)).filter(|place| board.bits(piece, *place) & state.mask == 0);
            places.filter_map(|place| board.placement(piece, place)).collect()
        };
        let all = pieces.into_iter().filter_map(|piece| Some((name(piece)?, free(piece))));
        reasons.push(Reason::Arrangement { free: all.collect() });
    }
    let parts = largest_parts(board, state, wants);
    let parts_that_fit = parts.iter().map(|part| part.iter().filter_map(|index| wanted.get(*index).cloned()).collect());
    Misfit { wanted: wanted.to_vec(), reasons, parts_that_fit: parts_that_fit.collect() }
}

/// How many different parts are looked at, and how many are told of.
const ENOUGH_PARTS: usize = 20_000;
const TOLD: usize = 4;

/// The largest parts of `wants` that fit beside what `state` holds, by index: the most memory first, then the most
/// instances. What does not fit makes nothing larger fit, so parts are grown from nothing.
pub(super) fn largest_parts(board: &Board<'_>, state: &State, wants: &[Want]) -> Vec<Vec<usize>> {
    let mut kinds: Vec<(Want, Vec<usize>)> = Vec::new();
    for (index, want) in wants.iter().enumerate() {
        match kinds.iter_mut().find(|(kind, _)| kind == want) {
            Some((_, indices)) => indices.push(index),
            None => kinds.push((*want, vec![index])),
        }
    }
    let mut parts = Vec::new();
    grow(board, state, &kinds, &mut vec![0; kinds.len()], 0, &mut parts);
    let chosen = |counts: &[usize]| -> Vec<Want> {
        kinds.iter().zip(counts).flat_map(|((want, _), count)| std::iter::repeat_n(*want, *count)).collect()
    };
    parts.retain(|counts: &Vec<usize>| {
        !kinds.iter().enumerate().any(|(kind, (want, indices))| {
            let more = counts.get(kind).is_some_and(|count| *count < indices.len());
            more && {
                let mut larger = chosen(counts);
                larger.push(*want);
                board.fits(state, &larger)
            }
        })
    });
    let worth = |counts: &Vec<usize>| {
        let part = chosen(counts);
        (part.iter().map(|want| board.memory_mib(want.piece)).sum::<u64>(), part.len())
    };
    parts.sort_by_key(|counts| std::cmp::Reverse(worth(counts)));
    parts.truncate(TOLD);
    let indices = |counts: &Vec<usize>| -> Vec<usize> {
        let all = kinds.iter().zip(counts).flat_map(|((_, indices), count)| indices.iter().take(*count).copied());
        let mut all: Vec<usize> = all.collect();
        all.sort_unstable();
        all
    };
    parts.iter().map(indices).filter(|part| !part.is_empty()).collect()
}

fn grow(
    board: &Board<'_>,
    state: &State,
    kinds: &[(Want, Vec<usize>)],
    counts: &mut Vec<usize>,
    kind: usize,
    parts: &mut Vec<Vec<usize>>,
) {
    let Some((_, indices)) = kinds.get(kind) else {
        parts.push(counts.clone());
        return;
    };
    for count in 0..=indices.len() {
        if let Some(slot) = counts.get_mut(kind) {
            *slot = count;
        }
        let part: Vec<Want> =
            kinds.iter().zip(counts.iter()).flat_map(|((want, _), count)| std::iter::repeat_n(*want, *count)).collect();
        if parts.len() >= ENOUGH_PARTS || !board.fits(state, &part) {
            break;
        }
        grow(board, state, kinds, counts, kind + 1, parts);
    }
    if let Some(slot) = counts.get_mut(kind) {
        *slot = 0;
    }
}
