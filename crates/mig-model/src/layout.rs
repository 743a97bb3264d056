//! Layouts: how a node's GPUs shall be cut, as files say it. mig-parted's `version: v1` is read as it is; ours,
//! `version: mig-agent/v1`, adds placements, compute instances and more ways to say which GPU is meant.
//!
//! ```text
//!   text --parse--> LayoutFile --select(name)--> Layout --resolve(GPUs)--> a GpuWish for each GPU that it speaks of
//! ```

mod ours;
mod parted;
mod selector;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use selector::{GpuIdentity, GpuSelector};

use crate::geometry::{Geometry, InstanceProfile};
use crate::plan::{GpuWish, WantedInstance, arrange_compute};
use crate::profile::Profile;
use crate::yaml;

/// The longest file that is read. Those that list every model of every cloud have some ten thousand characters.
pub const LONGEST_FILE: usize = 4 << 20;

/// More instances than any GPU takes, so that a slip of the finger in a count is said to be one.
const MOST_INSTANCES: u32 = 64;
/// So many GPUs are listed when one is not found.
const LISTED: usize = 16;

/// A file: one or more layouts, each under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutFile {
    layouts: BTreeMap<String, Layout>,
}

/// How GPUs shall be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// As the file calls it.
    pub name: String,
    entries: Vec<Entry>,
}

/// What some of the GPUs shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    line: u64,
    gpus: Gpus,
    filters: Vec<Filter>,
    /// Whether a GPU that is named and filtered out is a mistake; in mig-parted's files it is usual.
    strict: bool,
    mig: bool,
    instances: Vec<EntryInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Gpus {
    All,
    Named(Vec<GpuSelector>),
}

/// A condition on a GPU: one of the alternatives has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    /// Product names; `*` stands for anything.
    Product(Vec<String>),
    /// PCI device and vendor, and perhaps the subsystem's.
    PciIds(Vec<(u32, Option<u32>)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EntryInstance {
    line: u64,
    /// A GPU instance's name, or a part's, which is put into a GPU instance with others of its kind.
    profile: Profile,
    start: Option<u32>,
    count: u32,
    compute: Vec<Profile>,
}

/// What is wrong with a layout, or with its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is no YAML, or of another shape.
    #[error("{0}")]
    Syntax(String),
    /// It is too long to be a layout.
    #[error("longer than {} MiB: this is no layout", LONGEST_FILE >> 20)]
    TooLong,
    /// It has no layout of that name.
    #[error("there is no layout {name:?}; the file has {}", quoted(known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is, nearest first.
        known: Vec<String>,
    },
    /// It has several, and nobody said which.
    #[error("which layout? the file has {}", quoted(.0))]
    Which(Vec<String>),
    /// It names a GPU that is not there.
    #[error("line {line}: there is no GPU {selector}; {}", inhabitants(known))]
    NoSuchGpu {
        /// Where.
        line: u64,
        /// As the file names it.
        selector: String,
        /// The indices of those that there are.
        known: Vec<u32>,
    },
    /// It names a GPU and rules it out in one breath.
    #[error("line {line}: GPU {gpu} is named here, but is {is}, which the same entry rules out")]
    RuledOut {
        /// Where.
        line: u64,
        /// NVML's index.
        gpu: u32,
        /// Its product name or PCI ids.
        is: String,
    },
    /// Two entries want different things of one GPU.
    #[error("lines {first} and {second} both speak of GPU {gpu}, and want different things of it")]
    Contradiction {
        /// Where.
        first: u64,
        /// Where else.
        second: u64,
        /// NVML's index.
        gpu: u32,
    },
    /// Parts of a GPU instance that no GPU instance holds.
    #[error("line {line}: {reason}")]
    Parts {
        /// Where.
        line: u64,
        /// Which, and why.
        reason: String,
    },
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

fn inhabitants(known: &[u32]) -> String {
    let listed: Vec<String> = known.iter().take(LISTED).map(u32::to_string).collect();
    let more = if known.len() > LISTED { ", ..." } else { "" };
    match known {
        [] => "there are none".to_owned(),
        [only] => format!("there is one, GPU {only}"),
        _ => format!("there are {}{more}", listed.join(", ")),
    }
}

/// What every version of the file says first.
#[derive(Deserialize)]
struct Header {
    version: String,
}

impl LayoutFile {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        if text.len() > LONGEST_FILE {
            return Err(LayoutError::TooLong);
        }
        let header: Header = yaml::parse(text).map_err(LayoutError::Syntax)?;
        let layouts = match header.version.as_str() {
            "v1" => parted::parse(text),
            "mig-agent/v1" => ours::parse(text),
            other => Err(format!(
                "unknown version {other:?}: expected v1 (mig-parted's) or mig-agent/v1 (with placements and selectors)"
            )),
        };
        let layouts = layouts.map_err(LayoutError::Syntax)?;
        let named = |(name, entries): (String, Vec<Entry>)| (name.clone(), Layout { name, entries });
        Ok(Self { layouts: layouts.into_iter().map(named).collect() })
    }

    /// The names of its layouts.
    pub fn names(&self) -> Vec<String> {
        self.layouts.keys().cloned().collect()
    }

    /// The layout of this name; without one, the only one there is.
    pub fn select(&self, name: Option<&str>) -> Result<&Layout, LayoutError> {
        match name {
            Some(name) => self.layouts.get(name).ok_or_else(|| {
                let mut known = self.names();
                known.sort_by_key(|known| std::cmp::Reverse(alike(known, name)));
                LayoutError::Unknown { name: name.to_owned(), known }
            }),
            None if self.layouts.len() == 1 => self.layouts.values().next().ok_or(LayoutError::Which(Vec::new())),
            None => Err(LayoutError::Which(self.names())),
        }
    }
}

/// How long the beginning is that two names share: enough to put the likely one first.
fn alike(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
}

impl Layout {
    /// What it wants of each GPU that it speaks of, by position in `gpus`. The others are to be left as they are.
    pub fn resolve(&self, gpus: &[GpuIdentity<'_>]) -> Result<Vec<(usize, GpuWish)>, LayoutError> {
        let mut wishes: BTreeMap<usize, (u64, GpuWish)> = BTreeMap::new();
        for entry in &self.entries {
            for position in entry.gpus(gpus)? {
                let Some(gpu) = gpus.get(position) else { continue };
                let wish = entry.wish(gpu.geometry)?;
                match wishes.get(&position) {
                    Some((_, known)) if alike_wishes(known, &wish) => {}
                    Some((first, _)) => {
                        let (first, second) = (*first, entry.line);
                        return Err(LayoutError::Contradiction { first, second, gpu: gpu.index });
                    }
                    None => {
                        wishes.insert(position, (entry.line, wish));
                    }
                }
            }
        }
        Ok(wishes.into_iter().map(|(position, (_, wish))| (position, wish)).collect())
    }
}

/// Whether two entries want the same, in whatever order.
fn alike_wishes(one: &GpuWish, other: &GpuWish) -> bool {
    let sorted = |wish: &GpuWish| {
        let mut instances = wish.instances.clone();
        instances.sort();
        instances
    };
    one.mig == other.mig && sorted(one) == sorted(other)
}

impl Entry {
    /// Positions of the GPUs that it speaks of.
    fn gpus(&self, gpus: &[GpuIdentity<'_>]) -> Result<Vec<usize>, LayoutError> {
        let passes = |gpu: &GpuIdentity<'_>| self.filters.iter().all(|filter| filter.lets_through(gpu));
        let named = match &self.gpus {
            Gpus::All => {
                return Ok((0..gpus.len()).filter(|at| gpus.get(*at).is_some_and(passes)).collect());
            }
            Gpus::Named(named) => named,
        };
        let mut found = Vec::new();
        for selector in named {
            let Some(position) = gpus.iter().position(|gpu| selector.names(gpu)) else {
                let selector = selector.to_string();
                return Err(LayoutError::NoSuchGpu {
                    line: self.line,
                    selector,
                    known: gpus.iter().map(|gpu| gpu.index).collect(),
                });
            };
            let Some(gpu) = gpus.get(position) else { continue };
            if passes(gpu) {
                found.push(position);
            } else if self.strict {
                let ids = gpu.pci_ids.map(|(device, _)| format!(" (0x{device:08X})")).unwrap_or_default();
                let is = format!("{}{ids}", gpu.name);
                return Err(LayoutError::RuledOut { line: self.line, gpu: gpu.index, is });
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn wish(&self, geometry: Option<&Geometry>) -> Result<GpuWish, LayoutError> {
        let mut instances = Vec::new();
        let mut parts: BTreeMap<Profile, (u64, Vec<Profile>)> = BTreeMap::new();
        for one in &self.instances {
            let whole = one.profile.gpu_instance();
            for _ in 0..one.count {
                if one.profile == whole {
                    let wanted =
                        WantedInstance { profile: whole.clone(), start: one.start, compute: one.compute.clone() };
                    instances.push(wanted);
                } else {
                    parts.entry(whole.clone()).or_insert((one.line, Vec::new())).1.push(one.profile.clone());
                }
            }
        }
        for (whole, (line, parts)) in parts {
            // A GPU that has no such profile says so when it is planned for.
            let known = geometry.and_then(|geometry| Some((geometry, geometry.find(&whole)?)));
            let Some((geometry, profile)) = known else {
                instances.push(WantedInstance { profile: whole, start: None, compute: parts });
                continue;
            };
            let packed = pack(geometry, profile, parts).map_err(|part| {
                let all = geometry.compute_profiles(profile);
                let known: Vec<String> = all.iter().map(|known| known.profile.to_string()).collect();
                let reason = format!("{whole} has no compute instance {part}; it has {}", known.join(", "));
                LayoutError::Parts { line, reason }
            })?;
            let instance = |compute| WantedInstance { profile: whole.clone(), start: None, compute };
            instances.extend(packed.into_iter().map(instance));
        }
        Ok(GpuWish { mig: self.mig, instances })
    }
}

/// Puts parts into as few GPU instances as they fit in, the largest first; the part that fits in none is the error.
pub fn pack(
    geometry: &Geometry,
    within: &InstanceProfile,
    mut parts: Vec<Profile>,
) -> Result<Vec<Vec<Profile>>, Profile> {
    parts.sort_by_key(|part| std::cmp::Reverse(part.compute_slices()));
    let mut packed: Vec<Vec<Profile>> = Vec::new();
    for part in parts {
        let with = |held: &Vec<Profile>| held.iter().cloned().chain([part.clone()]).collect::<Vec<Profile>>();
        let found = packed.iter_mut().find_map(|held| {
            let together = with(held);
            arrange_compute(geometry, within, &together).is_some().then_some((held, together))
        });
        match found {
            Some((held, together)) => *held = together,
            None if arrange_compute(geometry, within, std::slice::from_ref(&part)).is_some() => packed.push(vec![part]),
            None => return Err(part),
        }
    }
    Ok(packed)
}
