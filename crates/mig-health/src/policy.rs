//! What is done about what, and when it is over: the table, a person's settings, and NVIDIA's switches in one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};

use crate::states::State;
use crate::switches::Switches;
use crate::table::{Entry, Line, Reaction, Table};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is not of the form.
    #[error("{0}")]
    Text(String),
    /// A line of the table that is about nothing.
    #[error("a line of xids has no numbers: say which XIDs it is about, as in numbers: [94]")]
    NoNumbers,
    /// The line about everything else names numbers.
    #[error("unknown takes no numbers: it is about every XID that is in no line of xids")]
    NumbersOfUnknown,
    /// A time that is shorter than one it has to cover.
    #[error("recovery.longest must not be less than recovery.{0}")]
    Longest(&'static str),
}

/// What a person may set: in a file, or as a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Settings {
    /// Lines of the table, over those that are compiled in.
    pub xids: Vec<Line>,
    /// What holds for XIDs that are in no line.
    pub unknown: Option<Line>,
    /// What is done about states.
    pub states: BTreeMap<State, Reaction>,
    /// When what was wrong is over.
    pub recovery: Recovery,
    /// Whether GPUs are offered whose errors nobody would learn of.
    pub advertise_unwatched: Option<bool>,
}

/// When what was wrong is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Recovery {
    /// A program's error: after this time without another of its number.
    #[serde(deserialize_with = "time")]
    pub application: Duration,
    /// A fault of hardware: after the GPU was well for this long, and the driver says that it wants nothing done.
    #[serde(deserialize_with = "time")]
    pub hardware: Duration,
    /// The same, where the driver does not say what it wants.
    #[serde(deserialize_with = "time")]
    pub unconfirmed: Duration,
    /// What is read from the driver: after it has been gone for this long; and a fault of hardware, after a reset.
    #[serde(deserialize_with = "time")]
    pub state: Duration,
    /// Each time doubles when what was wrong returns. It grows to this, and what stays away for so long is forgotten.
    #[serde(deserialize_with = "time")]
    pub longest: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            application: Duration::from_secs(30),
            hardware: Duration::from_secs(60),
            unconfirmed: Duration::from_secs(300),
            state: Duration::from_secs(5),
            longest: Duration::from_secs(1800),
        }
    }
}

/// All that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    table: Table,
    switches: Switches,
    states: BTreeMap<State, Reaction>,
    pub(crate) recovery: Recovery,
    advertise_unwatched: bool,
}

impl Policy {
    /// Puts it together. `advertise_unwatched` holds where the settings don't say.
    pub fn new(settings: &Settings, switches: Switches, advertise_unwatched: bool) -> Result<Self, PolicyError> {
        let mut table = Table::built_in()?;
        table.merge(settings.unknown.as_ref(), &settings.xids)?;
        let recovery = settings.recovery;
        for (name, time) in [
            ("application", recovery.application),
            ("hardware", recovery.hardware),
            ("unconfirmed", recovery.unconfirmed),
            ("state", recovery.state),
        ] {
            if time > recovery.longest {
                return Err(PolicyError::Longest(name));
            }
        }
        Ok(Self {
            table,
            advertise_unwatched: settings.advertise_unwatched.unwrap_or(advertise_unwatched)
                || switches.watch_nothing(),
            switches,
            states: settings.states.clone(),
            recovery,
        })
    }

    /// What is known of an XID.
    pub fn of(&self, xid: u64) -> &Entry {
        self.table.of(xid)
    }

    /// Whether an XID makes something unhealthy. NVIDIA's switches win over the table.
    pub fn acts_on(&self, xid: u64) -> bool {
        self.switches.say(xid).unwrap_or_else(|| self.of(xid).policy == Reaction::Unhealthy)
    }

    /// Whether a state does.
    pub fn acts_on_state(&self, state: State) -> bool {
        !self.switches.look_at_nothing() && self.states.get(&state) != Some(&Reaction::Ignore)
    }

    /// Whether GPUs are offered whose errors nobody would learn of.
    pub fn advertises_unwatched(&self) -> bool {
        self.advertise_unwatched
    }

    /// The XIDs of the table that make nothing unhealthy.
    pub fn ignored(&self) -> Vec<u64> {
        self.table.entries().map(|(xid, _)| xid).filter(|xid| !self.acts_on(*xid)).collect()
    }
}

/// Reads settings from YAML. An empty text changes nothing.
pub fn parse(text: &str) -> Result<Settings, PolicyError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    parse_as(text)
}

pub(crate) fn parse_as<T: DeserializeOwned>(text: &str) -> Result<T, PolicyError> {
    mig_model::parse_yaml(text).map_err(PolicyError::Text)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time such as 30s, 5m or 500ms")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            let time = humantime::parse_duration(text).ok().filter(|time| *time <= DAY);
            time.ok_or_else(|| {
                E::custom(format!("unable to read {text:?} as a time, expected 30s, 5m or 500ms, at most 24h"))
            })
        }
    }
    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str, disable: &str, enable: &str) -> Policy {
        Policy::new(&parse(text).unwrap(), Switches::read(disable, enable).0, false).unwrap()
    }

    #[test]
    fn settings_are_read_and_what_they_leave_out_is_as_it_was() {
        let text = "# ours\nxids:\n- numbers: [31]\n  policy: unhealthy\nrecovery: {application: 500ms}\nstates: {rowRemapPending: ignore}\n";
        let ours = policy(text, "", "");
        assert!(ours.acts_on(31) && !ours.acts_on(13) && ours.acts_on(79));
        assert_eq!(ours.recovery.application, Duration::from_millis(500));
        assert_eq!(ours.recovery.hardware, Recovery::default().hardware);
        assert!(!ours.acts_on_state(State::RowRemapPending) && ours.acts_on_state(State::RowRemapFailed));
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("# nothing\n\n").unwrap(), Settings::default());
    }

    #[test]
    fn the_switches_win_over_the_table() {
        let text = "xids:\n- numbers: [31]\n  policy: unhealthy\n";
        assert!(!policy(text, "31", "").acts_on(31));
        assert!(policy("", "", "13").acts_on(13));
        assert!(!policy(text, "all", "").acts_on_state(State::RecoveryWanted));
        assert!(policy(text, "xids", "").acts_on_state(State::RecoveryWanted));
        for disable in ["all", "xids"] {
            assert!(policy("", disable, "").advertises_unwatched());
        }
        assert!(!policy("", "79", "").advertises_unwatched());
        assert!(policy("", "", "all").ignored().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("xids:\n- numbers: [94]\n  policy: sometimes\n", "line 3"),
            ("xids:\n- nummers: [94]\n", "nummers"),
            ("recovery: {application: 30}\n", "a time"),
            ("recovery: {application: soon}\n", "soon"),
            ("recovery: {hardware: 48h}\n", "24h"),
            ("states: {tired: ignore}\n", "tired"),
            ("states: [", "line "),
            ("health: {}\n", "health"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{text:?}: {error}");
        }
        for text in ["xids: [{policy: ignore}]", "unknown: {numbers: [1]}", "recovery: {longest: 1s}"] {
            assert!(Policy::new(&parse(text).unwrap(), Switches::default(), false).is_err(), "{text}");
        }
    }
}
