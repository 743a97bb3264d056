//! The way from what is there to what is wished for.

use std::ops::ControlFlow;

use super::compute::{Recut, arrange_compute, recut};
use super::misfit;
use super::packing::{Board, Score, State, Want};
use super::{GpuPlan, InUse, PassedOver, PlanError, Step, WantedInstance};
use crate::geometry::Geometry;
use crate::inventory::{GpuInstance, Placement};
use crate::profile::Profile;

/// How many other ways a plan tells of.
const TOLD: usize = 4;

/// A wish, checked: the instance can exist, at its place if one is given, and be cut as wanted.
struct Wish<'w> {
    wanted: &'w WantedInstance,
    want: Want,
    /// In order of name.
    compute: Vec<Profile>,
    /// In order of creation.
    creation: Vec<Profile>,
}

/// An instance that is there.
struct Held<'n> {
    instance: &'n GpuInstance,
    /// Unless the GPU no longer offers its profile, or not at this place.
    own: Option<(usize, usize)>,
    at: Placement,
    pinned: bool,
}

/// Where `new` instances go beside what is there, all of which stays as it is.
pub fn place(geometry: &Geometry, now: &[GpuInstance], new: &[WantedInstance]) -> Result<GpuPlan, PlanError> {
    let board = Board::new(geometry);
    let wishes = check(&board, new)?;
    let held = held(&board, now, &InUse::default())?;
    let state = state_of(&board, held.iter());
    let wants: Vec<Want> = wishes.iter().map(|wish| wish.want).collect();
    let mut ways = Ways::default();
    if board.excess(&state, &wants).is_empty() {
        ways.collect(&board, &state, &wants);
    }
    let Some((best, others)) = ways.ranked() else {
        return Err(PlanError::DoesNotFit(Box::new(misfit::explain(&board, &state, &wants, new))));
    };
    let kept = now.iter().map(|instance| instance.id).collect();
    let mut steps = Vec::new();
    let all: Vec<&Wish<'_>> = wishes.iter().collect();
    create(&board, &all, &best, &mut steps);
    Ok(GpuPlan { kept, steps, room: board.room(&best.after), passed_over: told(&board, &all, &best, others) })
}

/// The steps after which the GPU has what is wanted, and nothing else.
pub fn plan(
    geometry: &Geometry,
    now: &[GpuInstance],
    in_use: &InUse,
    want: &[WantedInstance],
) -> Result<GpuPlan, PlanError> {
    let board = Board::new(geometry);
    let wishes = check(&board, want)?;
    let held = held(&board, now, in_use)?;
    let wants: Vec<Want> = wishes.iter().map(|wish| wish.want).collect();
    let empty = board.empty();
    if let Some(best) = (Search { board: &board, in_use, wishes: &wishes, held: &held }).best() {
        return Ok(best);
    }
    if !board.fits(&empty, &wants) {
        return Err(PlanError::DoesNotFit(Box::new(misfit::explain(&board, &empty, &wants, want))));
    }
    Err(obstacles(&board, in_use, &wishes, held))
}

fn check<'w>(board: &Board<'_>, wanted: &'w [WantedInstance]) -> Result<Vec<Wish<'w>>, PlanError> {
    wanted.iter().map(|wanted| check_one(board, wanted)).collect()
}

fn check_one<'w>(board: &Board<'_>, wanted: &'w WantedInstance) -> Result<Wish<'w>, PlanError> {
    let unknown =
        || PlanError::UnknownProfile { wanted: wanted.profile.clone(), known: board.geometry.nearest(&wanted.profile) };
    let piece = board.find(&wanted.profile).ok_or_else(unknown)?;
    let profile = board.profile(piece).ok_or_else(unknown)?;
    let place = match wanted.start {
        None => None,
        Some(start) => Some(profile.placements.iter().position(|at| at.start == start).ok_or_else(|| {
            PlanError::IllegalPlacement {
                profile: profile.profile.clone(),
                start,
                possible: profile.placements.clone(),
            }
        })?),
    };
    let compute = wanted.compute_instances();
    let creation = arrange_compute(board.geometry, profile, &compute).ok_or_else(|| PlanError::ComputeDoesNotFit {
        instance: profile.profile.clone(),
        wanted: compute.clone(),
        possible: board.geometry.compute_profiles(profile).iter().map(|known| known.profile.clone()).collect(),
    })?;
    Ok(Wish { wanted, want: Want { piece, place }, compute, creation })
}

fn held<'n>(board: &Board<'_>, now: &'n [GpuInstance], in_use: &InUse) -> Result<Vec<Held<'n>>, PlanError> {
    now.iter()
        .map(|instance| {
            let at = instance.placement.ok_or(PlanError::PlacementUnknown(instance.id))?;
            let own = board.find(&instance.profile).and_then(|piece| {
                let place = (0..board.places(piece)).find(|place| board.placement(piece, *place) == Some(at))?;
                Some((piece, place))
            });
            Ok(Held { instance, own, at, pinned: in_use.holds(instance.id) })
        })
        .collect()
}

fn state_of<'h, 'n: 'h>(board: &Board<'_>, held: impl Iterator<Item = &'h Held<'n>>) -> State {
    let mut state = board.empty();
    for one in held {
        board.occupy(&mut state, one.own.map(|(piece, _)| piece), one.at);
    }
    state
}

/// Ways to place new instances, one for each set of slices they can end up taking.
#[derive(Default)]
struct Ways(Vec<Way>);

struct Way {
    score: Score,
    after: State,
    /// The placement of each want.
    places: Vec<Placement>,
}

impl Ways {
    fn collect(&mut self, board: &Board<'_>, state: &State, wants: &[Want]) {
        let mut after = state.clone();
        wants.iter().for_each(|want| board.count(&mut after, want.piece));
        board.ways(state.mask, wants, |mask, places| {
            let after = State { mask, ..after.clone() };
            let at = wants.iter().zip(places).filter_map(|(want, place)| board.placement(want.piece, *place));
            self.0.push(Way { score: board.score(&after), places: at.collect(), after });
            ControlFlow::Continue(())
        });
    }

    /// The best, and the rest from good to bad. Of equals the one that was found first, which begins furthest left.
    fn ranked(mut self) -> Option<(Way, Vec<Way>)> {
        self.0.sort_by_key(|way| std::cmp::Reverse(way.score));
        let mut all = self.0.into_iter();
        Some((all.next()?, all.collect()))
    }
}

fn create(board: &Board<'_>, wishes: &[&Wish<'_>], way: &Way, steps: &mut Vec<Step>) {
    let mut created: Vec<(Placement, &Wish<'_>)> = way.places.iter().copied().zip(wishes.iter().copied()).collect();
    created.sort_by_key(|(at, _)| *at);
    for (placement, wish) in created {
        let Some(profile) = board.profile(wish.want.piece) else { continue };
        let compute = wish.creation.clone();
        steps.push(Step::CreateGpuInstance { profile: profile.profile.clone(), placement, compute });
    }
}

fn told(board: &Board<'_>, wishes: &[&Wish<'_>], best: &Way, others: Vec<Way>) -> Vec<PassedOver> {
    let other = |way: Way| {
        let created = wishes.iter().zip(&way.places);
        let mut created: Vec<(Profile, Placement)> =
            created.filter_map(|(wish, at)| Some((board.profile(wish.want.piece)?.profile.clone(), *at))).collect();
        created.sort_by_key(|(_, at)| *at);
        PassedOver { created, room: board.room(&way.after) }
    };
    others.into_iter().filter(|way| way.after.mask != best.after.mask).take(TOLD).map(other).collect()
}

/// Looks for the fewest instances to destroy.
struct Search<'a, 'w, 'n> {
    board: &'a Board<'a>,
    in_use: &'a InUse,
    wishes: &'a [Wish<'w>],
    held: &'a [Held<'n>],
}

/// Which held instances stay, and as which wish.
struct Matching {
    /// Position of the held instance, of its wish, and what changes within.
    kept: Vec<(usize, usize, Recut)>,
    destroyed_compute: usize,
}

struct Candidate {
    matching: Matching,
    best: Way,
    others: Vec<Way>,
}

impl Search<'_, '_, '_> {
    fn best(&self) -> Option<GpuPlan> {
        (0..=self.held.len()).find_map(|gone| {
            let mut best: Option<Candidate> = None;
            self.choose(gone, 0, &mut Vec::new(), &mut best);
            best.map(|candidate| self.written(candidate))
        })
    }

    /// Tries every set of held instances that leaves out `gone` of those from `position` on.
    fn choose(&self, gone: usize, position: usize, kept: &mut Vec<usize>, best: &mut Option<Candidate>) {
        if self.held.len() - position < gone {
            return;
        }
        let Some(held) = self.held.get(position) else {
            self.try_keeping(kept, best);
            return;
        };
        if self.may_stay(kept, held) {
            kept.push(position);
            self.choose(gone, position + 1, kept, best);
            kept.pop();
        }
        if gone > 0 && !held.pinned {
            self.choose(gone - 1, position + 1, kept, best);
        }
    }

    /// Whether the wish has one more of its kind than are kept already.
    fn may_stay(&self, kept: &[usize], held: &Held<'_>) -> bool {
        let Some((piece, place)) = held.own else { return false };
        let asked_here = |wish: &&Wish<'_>| wish.want == Want { piece, place: Some(place) };
        if self.wishes.iter().any(|wish| asked_here(&wish)) {
            return true;
        }
        let free = self.wishes.iter().filter(|wish| wish.want == Want { piece, place: None }).count();
        let used = kept.iter().filter_map(|position| self.held.get(*position)?.own).filter(|(other, at)| {
            *other == piece && !self.wishes.iter().any(|wish| wish.want == Want { piece, place: Some(*at) })
        });
        used.count() < free
    }

    fn try_keeping(&self, kept: &[usize], best: &mut Option<Candidate>) {
        let held = || kept.iter().filter_map(|position| self.held.get(*position));
        let state = state_of(self.board, held());
        let Some(matching) = self.matched(kept) else { return };
        if best.as_ref().is_some_and(|best| best.matching.destroyed_compute < matching.destroyed_compute) {
            return;
        }
        let taken = |wish: usize| matching.kept.iter().any(|(_, other, _)| *other == wish);
        let wants = self.wishes.iter().enumerate().filter(|(wish, _)| !taken(*wish));
        let wants: Vec<Want> = wants.map(|(_, wish)| wish.want).collect();
        if !self.board.excess(&state, &wants).is_empty() {
            return;
        }
        let mut ways = Ways::default();
        ways.collect(self.board, &state, &wants);
        let Some((way, others)) = ways.ranked() else { return };
        let rank = |matching: &Matching, way: &Way| (std::cmp::Reverse(matching.destroyed_compute), way.score);
        if best.as_ref().is_none_or(|best| rank(&matching, &way) > rank(&best.matching, &best.best)) {
            *best = Some(Candidate { matching, best: way, others });
        }
    }

    /// Which kept instance becomes which wish, with the fewest compute instances destroyed.
    fn matched(&self, kept: &[usize]) -> Option<Matching> {
        let mut best = None;
        self.pair(kept, Matching { kept: Vec::new(), destroyed_compute: 0 }, &mut best);
        best
    }

    fn pair(&self, kept: &[usize], so_far: Matching, best: &mut Option<Matching>) {
        if best.as_ref().is_some_and(|best| best.destroyed_compute <= so_far.destroyed_compute) {
            return;
        }
        let Some((first, rest)) = kept.split_first() else {
            *best = Some(so_far);
            return;
        };
        let Some((held, (piece, place))) = self.held.get(*first).and_then(|held| Some((held, held.own?))) else {
            return;
        };
        let here = Want { piece, place: Some(place) };
        let asked_here = self.wishes.iter().any(|wish| wish.want == here);
        let want = if asked_here { here } else { Want { piece, place: None } };
        let free = |wish: &usize| !so_far.kept.iter().any(|(_, other, _)| other == wish);
        let mut ways: Vec<(usize, Recut)> = Vec::new();
        let mut seen: Vec<&[Profile]> = Vec::new();
        for (position, wish) in self.wishes.iter().enumerate().filter(|(position, _)| free(position)) {
            // Wishes that are the same are one.
            if wish.want != want || seen.contains(&wish.compute.as_slice()) {
                continue;
            }
            seen.push(&wish.compute);
            let must_stay = |id| self.in_use.holds_compute(held.instance.id, id);
            let Some(profile) = self.board.profile(piece) else { continue };
            ways.extend(
                recut(self.board.geometry, profile, &held.instance.compute_instances, must_stay, &wish.compute)
                    .map(|cut| (position, cut)),
            );
        }
        ways.sort_by_key(|(_, cut)| (cut.destroy.len(), cut.create.len()));
        for (wish, cut) in ways {
            let mut next = Matching { kept: so_far.kept.clone(), destroyed_compute: so_far.destroyed_compute };
            next.destroyed_compute += cut.destroy.len();
            next.kept.push((*first, wish, cut));
            self.pair(rest, next, best);
        }
    }

    fn written(&self, candidate: Candidate) -> GpuPlan {
        let Candidate { matching, best, others } = candidate;
        let (mut going, mut within, mut coming) = (Vec::new(), Vec::new(), Vec::new());
        let stays = |position: usize| matching.kept.iter().find(|(held, _, _)| *held == position);
        let mut kept = Vec::new();
        for (position, held) in self.held.iter().enumerate() {
            let instance = held.instance;
            let Some((_, _, cut)) = stays(position) else {
                going.push(gone(instance));
                continue;
            };
            kept.push(instance.id);
            for one in instance.compute_instances.iter().filter(|one| cut.destroy.contains(&one.id)) {
                within.push(Step::DestroyComputeInstance {
                    gpu_instance: instance.id,
                    compute_instance: one.id,
                    profile: one.profile.clone(),
                    uuid: one.uuid.clone(),
                });
            }
            let create = cut.create.iter().cloned();
            coming.extend(create.map(|profile| Step::CreateComputeInstance { gpu_instance: instance.id, profile }));
        }
        let taken = |wish: usize| matching.kept.iter().any(|(_, other, _)| *other == wish);
        let new: Vec<&Wish<'_>> =
            self.wishes.iter().enumerate().filter(|(wish, _)| !taken(*wish)).map(|(_, wish)| wish).collect();
        let mut steps = within;
        steps.append(&mut going);
        create(self.board, &new, &best, &mut steps);
        steps.append(&mut coming);
        GpuPlan { kept, steps, room: self.board.room(&best.after), passed_over: told(self.board, &new, &best, others) }
    }
}

pub(super) fn gone(instance: &GpuInstance) -> Step {
    Step::DestroyGpuInstance {
        gpu_instance: instance.id,
        profile: instance.profile.clone(),
        placement: instance.placement,
        compute_instances: instance.compute_instances.iter().map(|one| (one.id, one.uuid.clone())).collect(),
    }
}

/// The fewest instances in use that would have to go, and how much of the wish can be had while they stay.
fn obstacles(board: &Board<'_>, in_use: &InUse, wishes: &[Wish<'_>], mut held: Vec<Held<'_>>) -> PlanError {
    let pinned: Vec<usize> = held.iter().enumerate().filter(|(_, held)| held.pinned).map(|(at, _)| at).collect();
    let mut instances = Vec::new();
    for count in 1..=pinned.len() {
        if first_subset(&pinned, count, &mut |subset| {
            subset.iter().for_each(|at| set_pinned(&mut held, *at, false));
            let serves = Search { board, in_use, wishes, held: &held }.best().is_some();
            if serves {
                instances = subset.iter().filter_map(|at| held.get(*at)).map(|held| held.instance.id).collect();
            }
            subset.iter().for_each(|at| set_pinned(&mut held, *at, true));
            serves
        }) {
            break;
        }
    }
    let stays = state_of(board, held.iter().filter(|held| held.pinned));
    // What stays and was wished for is had already.
    let mut left: Vec<usize> = (0..wishes.len()).collect();
    let mut had = Vec::new();
    for (piece, place) in held.iter().filter(|held| held.pinned).filter_map(|held| held.own) {
        let is = |want: Want| left.iter().position(|wish| wishes.get(*wish).is_some_and(|wish| wish.want == want));
        let found = is(Want { piece, place: Some(place) }).or_else(|| is(Want { piece, place: None }));
        had.extend(found.map(|position| left.remove(position)));
    }
    let wants: Vec<Want> = left.iter().filter_map(|wish| wishes.get(*wish)).map(|wish| wish.want).collect();
    let part = misfit::largest_parts(board, &stays, &wants).into_iter().next().unwrap_or_default();
    had.extend(part.into_iter().filter_map(|index| left.get(index).copied()));
    had.sort_unstable();
    let possible = had.into_iter().filter_map(|wish| wishes.get(wish)).map(|wish| wish.wanted.clone()).collect();
    PlanError::InTheWay { instances, possible }
}

fn set_pinned(held: &mut [Held<'_>], at: usize, pinned: bool) {
    if let Some(held) = held.get_mut(at) {
        held.pinned = pinned;
    }
}

/// Whether `serves` says yes to a subset of this size; stops at the first.
fn first_subset(all: &[usize], count: usize, serves: &mut impl FnMut(&[usize]) -> bool) -> bool {
    fn go(all: &[usize], count: usize, chosen: &mut Vec<usize>, serves: &mut impl FnMut(&[usize]) -> bool) -> bool {
        if count == 0 {
            return serves(chosen);
        }
        all.iter().enumerate().any(|(position, one)| {
            chosen.push(*one);
            let found = go(all.get(position + 1..).unwrap_or_default(), count - 1, chosen, serves);
            chosen.pop();
            found
        })
    }
    go(all, count, &mut Vec::new(), serves)
}
