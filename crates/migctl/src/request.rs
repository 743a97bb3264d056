//! Instances as users ask for them, `3g.20gb`, `3g.20gb@4`, `1c.3g.20gb`, `19`, and where they go beside what is there.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mig_model::plan::{GpuPlan, place, plan};
use mig_model::{Geometry, GpuInstance, InUse, InstanceProfile, PlanError, Profile, Step, WantedInstance};

use crate::failure::{Exit, Failure};
use crate::misfit;

/// No GPU takes more.
pub(crate) const MOST: u32 = 64;

/// One word of `--type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeName {
    kind: Kind,
    /// The first memory slice, when it matters.
    pub(crate) start: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Profile(Profile),
    /// NVML's id of a GPU instance profile, as `nvidia-smi mig -cgi` takes it.
    Id(u32),
}

impl FromStr for TypeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, start) = match text.split_once('@') {
            Some((name, start)) => {
                let start = start.parse().map_err(|_| format!("{start:?} is no memory slice, expected a number"))?;
                (name, Some(start))
            }
            None => (text, None),
        };
        let kind = match name.parse() {
            Ok(id) => Kind::Id(id),
            Err(_) => Kind::Profile(name.parse().map_err(|error: mig_model::ProfileError| error.to_string())?),
        };
        Ok(Self { kind, start })
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.map(|start| format!("@{start}")).unwrap_or_default();
        match &self.kind {
            Kind::Profile(profile) => write!(f, "{profile}{start}"),
            Kind::Id(id) => write!(f, "{id}{start}"),
        }
    }
}

/// What shall be created on a GPU.
#[derive(Debug)]
pub(crate) struct Request<'r> {
    pub(crate) types: &'r [TypeName],
    /// The GPU instance in which compute instances shall be created.
    pub(crate) within: Option<u32>,
    /// GPU instances without compute instances.
    pub(crate) bare: bool,
}

/// A GPU as a request sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'t> {
    /// For messages: `GPU 0`, or a model's name.
    pub(crate) label: &'t str,
    pub(crate) geometry: &'t Geometry,
    pub(crate) now: &'t [GpuInstance],
}

impl Request<'_> {
    /// The steps that create all of it; nothing that is there is touched.
    pub(crate) fn plan(&self, target: Target<'_>) -> Result<GpuPlan, Failure> {
        let mut new: Vec<WantedInstance> = Vec::new();
        let mut added: BTreeMap<u32, Vec<Profile>> = BTreeMap::new();
        for name in self.types {
            let profile = name.profile(target)?;
            let is_part = profile != profile.gpu_instance();
            if let Some(id) = self.within {
                let instance = in_which(target, id, &profile)?;
                let parts = added.entry(id).or_default();
                parts.push(profile);
                if cut(target.geometry, instance, parts).is_err() {
                    return Err(no_room_within(target, instance, parts));
                }
            } else if !is_part {
                new.push(WantedInstance { profile, start: name.start, compute: Vec::new() });
            } else if !self.bare {
                put_part(target, name, profile, &mut new, &mut added);
            } else {
                let message = format!("{name} is a compute instance: --no-compute leaves nothing of it");
                return Err(Failure::usage(message));
            }
        }
        for wanted in &new {
            refuse_if_taken(target, wanted)?;
        }
        let mut answer = place(target.geometry, target.now, &new).map_err(|error| misfit::failure(target, &error))?;
        if self.bare {
            for step in &mut answer.steps {
                if let Step::CreateGpuInstance { compute, .. } = step {
                    compute.clear();
                }
            }
        }
        for (id, parts) in &added {
            let Some(instance) = target.now.iter().find(|instance| instance.id == *id) else { continue };
            let steps = cut(target.geometry, instance, parts).map_err(|error| misfit::failure(target, &error))?;
            answer.steps.extend(steps);
        }
        Ok(answer)
    }
}

impl TypeName {
    fn profile(&self, target: Target<'_>) -> Result<Profile, Failure> {
        let known =
            |matches: &dyn Fn(&InstanceProfile) -> bool| target.geometry.profiles.iter().find(|one| matches(one));
        match &self.kind {
            Kind::Profile(profile) => match known(&|one| one.profile == profile.gpu_instance()) {
                Some(_) => Ok(profile.clone()),
                None => Err(misfit::unknown_type(target.label, profile, target.geometry)),
            },
            Kind::Id(id) => known(&|one| one.id == *id).map(|one| one.profile.clone()).ok_or_else(|| {
                let all = target.geometry.profiles.iter().map(|one| format!("{} ({})", one.id, one.profile));
                let message = format!("{} has no instance type of id {id}", target.label);
                Failure::new(Exit::NotFound, "UnknownType", message)
                    .hint(format!("it has {}", all.collect::<Vec<_>>().join(", ")))
            }),
        }
    }
}

/// A compute instance goes where there is room already: into the fullest GPU instance of its kind that takes it, into one
/// that is about to be created, and only then into one of its own.
fn put_part(
    target: Target<'_>,
    name: &TypeName,
    part: Profile,
    new: &mut Vec<WantedInstance>,
    added: &mut BTreeMap<u32, Vec<Profile>>,
) {
    let whole = part.gpu_instance();
    let is_there = |start: Option<u32>| name.start.is_none() || name.start == start;
    let mut hosts: Vec<&GpuInstance> = target.now.iter().filter(|instance| instance.profile == whole).collect();
    hosts.sort_by_key(|instance| {
        let slices = instance.compute_instances.iter().map(|one| u32::from(one.profile.compute_slices())).sum::<u32>();
        (std::cmp::Reverse(slices), instance.id)
    });
    for host in hosts.into_iter().filter(|host| is_there(host.placement.map(|at| at.start))) {
        let mut parts = added.get(&host.id).cloned().unwrap_or_default();
        parts.push(part.clone());
        if cut(target.geometry, host, &parts).is_ok() {
            added.insert(host.id, parts);
            return;
        }
    }
    for wanted in new.iter_mut().filter(|one| one.profile == whole && !one.compute.is_empty() && is_there(one.start)) {
        wanted.compute.push(part.clone());
        let alone = WantedInstance { start: None, ..wanted.clone() };
        if place(target.geometry, &[], &[alone]).is_ok() {
            return;
        }
        wanted.compute.pop();
    }
    new.push(WantedInstance { profile: whole, start: name.start, compute: vec![part] });
}

fn in_which<'t>(target: Target<'t>, id: u32, profile: &Profile) -> Result<&'t GpuInstance, Failure> {
    let Some(instance) = target.now.iter().find(|instance| instance.id == id) else {
        return Err(misfit::unknown_instance(target.label, id, target.now));
    };
    if instance.profile != profile.gpu_instance() {
        let message = format!("GPU instance {id} is a {}: {profile} is no part of it", instance.profile);
        return Err(Failure::new(Exit::DoesNotFit, "DoesNotFit", message));
    }
    Ok(instance)
}

fn no_room_within(target: Target<'_>, instance: &GpuInstance, parts: &[Profile]) -> Failure {
    let names = |profiles: Vec<&Profile>| profiles.into_iter().map(Profile::to_string).collect::<Vec<_>>().join(", ");
    let wanted = names(parts.iter().collect());
    let message = format!("{}: {} has no room for {wanted}", target.label, misfit::instance_name(instance));
    let failure = Failure::new(Exit::DoesNotFit, "DoesNotFit", message);
    let held = names(instance.compute_instances.iter().map(|one| &one.profile).collect());
    let failure = if held.is_empty() { failure } else { failure.hint(format!("in it are {held}")) };
    let Some(known) = target.geometry.find(&instance.profile) else { return failure };
    let known = target.geometry.compute_profiles(known);
    failure.hint(format!("it can be cut into {}", names(known.iter().map(|one| &one.profile).collect())))
}

/// The steps that add compute instances to a GPU instance.
fn cut(geometry: &Geometry, instance: &GpuInstance, added: &[Profile]) -> Result<Vec<Step>, PlanError> {
    let mut compute: Vec<Profile> = instance.compute_instances.iter().map(|one| one.profile.clone()).collect();
    compute.extend_from_slice(added);
    let start = instance.placement.map(|at| at.start);
    let wanted = WantedInstance { profile: instance.profile.clone(), start, compute };
    let now = std::slice::from_ref(instance);
    plan(geometry, now, &InUse::all(now), &[wanted]).map(|plan| plan.steps)
}

fn refuse_if_taken(target: Target<'_>, wanted: &WantedInstance) -> Result<(), Failure> {
    let Some(start) = wanted.start else { return Ok(()) };
    let Some(known) = target.geometry.find(&wanted.profile) else { return Ok(()) };
    let Some(at) = known.placements.iter().find(|at| at.start == start) else { return Ok(()) };
    let overlaps =
        |at: &mig_model::Placement, instance: &GpuInstance| instance.placement.is_some_and(|place| place.overlaps(at));
    let mut taken = target.now.iter().filter(|instance| overlaps(at, instance)).peekable();
    if taken.peek().is_none() {
        return Ok(());
    }
    let names: Vec<String> = taken.map(misfit::instance_name).collect();
    let message = format!("{}: {} at {at} is taken by {}", target.label, wanted.profile, names.join(" and "));
    let free: Vec<String> = known
        .placements
        .iter()
        .filter(|place| !target.now.iter().any(|instance| overlaps(place, instance)))
        .map(|place| place.start.to_string())
        .collect();
    let failure = Failure::new(Exit::DoesNotFit, "PlacementTaken", message);
    Err(match free.as_slice() {
        [] => failure.hint(format!("no placement of {} is free", wanted.profile)),
        free => failure.hint(format!("free for it: {}", free.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_type_is_read() {
        for text in ["3g.20gb", "3g.20gb@4", "1c.3g.20gb", "19", "19@2", "1g.24gb-me"] {
            assert_eq!(text.parse::<TypeName>().unwrap().to_string(), text);
        }
        for text in ["", "3g", "@4", "3g.20gb@", "3g.20gb@-1", "99999999999", "3g.20gb@4@4"] {
            assert!(text.parse::<TypeName>().is_err(), "{text:?}");
        }
    }
}
