//! The table of XIDs: `xids.yaml`, and what overrides it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::policy::{PolicyError, parse_as};

const BUILT_IN: &str = include_str!("xids.yaml");

/// Where the cause of an error usually lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The program that ran.
    Application,
    /// NVIDIA's driver.
    Driver,
    /// Programs inside the GPU.
    Firmware,
    /// The GPU's memory.
    Memory,
    /// PCIe.
    Bus,
    /// NVLink, or the link to the CPU.
    Link,
    /// The supply of power.
    Power,
    /// Something else in the GPU.
    Hardware,
    /// There is nothing to blame.
    Nothing,
}

/// Whom an error concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The slice that the event names; every slice if it names none.
    Slice,
    /// Every slice of the GPU, whatever the event names.
    Gpu,
}

/// What is done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// The kubelet is told.
    Unhealthy,
    /// It is counted.
    Ignore,
}

/// When an error is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// After a quiet time.
    Application,
    /// When the GPU answers and the driver wants nothing, for a while; or after a reset.
    Hardware,
}

/// What is known of an XID, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What has happened, in a few words.
    pub name: String,
    /// Where the cause usually lies.
    pub blame: Blame,
    /// Whom it concerns.
    pub scope: Scope,
    /// What is done about it.
    pub policy: Reaction,
    /// When it is over.
    pub recovery: Ending,
    /// What it is to a GPU that is cut.
    pub means: String,
    /// What a person can do.
    pub action: String,
    /// Who says so.
    pub source: String,
}

/// One line of the file: some numbers, and what is said of them. In an override what is left out stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// Which XIDs.
    pub numbers: Vec<u64>,
    /// See [`Entry`], as the rest.
    pub name: Option<String>,
    /// See [`Entry`].
    pub blame: Option<Blame>,
    /// See [`Entry`].
    pub scope: Option<Scope>,
    /// See [`Entry`].
    pub policy: Option<Reaction>,
    /// See [`Entry`].
    pub recovery: Option<Ending>,
    /// See [`Entry`].
    pub means: Option<String>,
    /// See [`Entry`].
    pub action: Option<String>,
    /// See [`Entry`].
    pub source: Option<String>,
}

/// Every XID that is known, and what holds for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    entries: BTreeMap<u64, Entry>,
    unknown: Entry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    unknown: Line,
    xids: Vec<Line>,
}

impl Table {
    /// The table that is compiled in.
    pub fn built_in() -> Result<Self, PolicyError> {
        let file: File = parse_as(BUILT_IN)?;
        let nothing = Entry {
            name: String::new(),
            blame: Blame::Nothing,
            scope: Scope::Slice,
            policy: Reaction::Unhealthy,
            recovery: Ending::Hardware,
            means: String::new(),
            action: String::new(),
            source: String::new(),
        };
        let mut table = Self { entries: BTreeMap::new(), unknown: file.unknown.over(&nothing) };
        table.merge(None, &file.xids)?;
        Ok(table)
    }

    /// What a person says otherwise.
    pub(crate) fn merge(&mut self, unknown: Option<&Line>, xids: &[Line]) -> Result<(), PolicyError> {
        if let Some(line) = unknown {
            if !line.numbers.is_empty() {
                return Err(PolicyError::NumbersOfUnknown);
            }
            self.unknown = line.over(&self.unknown);
        }
        for line in xids {
            if line.numbers.is_empty() {
                return Err(PolicyError::NoNumbers);
            }
            for number in &line.numbers {
                let entry = line.over(self.of(*number));
                self.entries.insert(*number, entry);
            }
        }
        Ok(())
    }

    /// What is known of one.
    pub fn of(&self, xid: u64) -> &Entry {
        self.entries.get(&xid).unwrap_or(&self.unknown)
    }

    /// All that are listed, by number.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }
}

impl Line {
    fn over(&self, entry: &Entry) -> Entry {
        let text = |new: &Option<String>, old: &String| new.clone().unwrap_or_else(|| old.clone());
        Entry {
            name: text(&self.name, &entry.name),
            blame: self.blame.unwrap_or(entry.blame),
            scope: self.scope.unwrap_or(entry.scope),
            policy: self.policy.unwrap_or(entry.policy),
            recovery: self.recovery.unwrap_or(entry.recovery),
            means: text(&self.means, &entry.means),
            action: text(&self.action, &entry.action),
            source: text(&self.source, &entry.source),
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Application => "application",
            Self::Driver => "driver",
            Self::Firmware => "firmware",
            Self::Memory => "memory",
            Self::Bus => "bus",
            Self::Link => "link",
            Self::Power => "power",
            Self::Hardware => "hardware",
            Self::Nothing => "nothing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_nvidia_lists_has_one_line_and_each_line_says_everything() {
        let file: File = parse_as(BUILT_IN).unwrap();
        let mut numbers: Vec<u64> = file.xids.iter().flat_map(|line| line.numbers.clone()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=172).collect::<Vec<u64>>());
        for line in file.xids.iter().chain([&file.unknown]) {
            let texts = [&line.name, &line.means, &line.action, &line.source];
            assert!(texts.iter().all(|text| text.as_ref().is_some_and(|text| text.len() > 3)), "{line:?}");
            let words = (line.blame, line.scope, line.policy, line.recovery);
            assert!(matches!(words, (Some(_), Some(_), Some(_), Some(_))), "{line:?}");
        }
    }

    #[test]
    fn what_nvidias_plugin_ignores_is_ignored() {
        let table = Table::built_in().unwrap();
        for xid in [13, 31, 43, 45, 68, 109] {
            assert_eq!(table.of(xid).policy, Reaction::Ignore, "{xid}");
        }
    }

    #[test]
    fn what_concerns_the_gpu_says_so() {
        let table = Table::built_in().unwrap();
        for xid in [62, 64, 74, 79, 95, 119, 120, 140, 143] {
            let entry = table.of(xid);
            assert_eq!((entry.scope, entry.policy), (Scope::Gpu, Reaction::Unhealthy), "{xid}");
        }
        assert_eq!(table.of(94).scope, Scope::Slice);
        assert_eq!(table.of(u64::MAX).policy, Reaction::Unhealthy);
    }

    #[test]
    fn an_override_changes_what_it_says_and_nothing_else() {
        let mut table = Table::built_in().unwrap();
        let before = table.of(94).clone();
        let line = Line { numbers: vec![94, 1000], policy: Some(Reaction::Ignore), ..Line::default() };
        table.merge(None, &[line]).unwrap();
        assert_eq!(*table.of(94), Entry { policy: Reaction::Ignore, ..before });
        assert_eq!((table.of(1000).policy, table.of(1001).policy), (Reaction::Ignore, Reaction::Unhealthy));
        let unknown = Line { policy: Some(Reaction::Ignore), ..Line::default() };
        table.merge(Some(&unknown), &[]).unwrap();
        assert_eq!((table.of(1001).policy, table.of(95).policy), (Reaction::Ignore, Reaction::Unhealthy));
        assert!(table.merge(None, &[Line::default()]).is_err());
    }
}
