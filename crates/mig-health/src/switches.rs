//! `DP_DISABLE_HEALTHCHECKS` and `DP_ENABLE_HEALTHCHECKS`, as NVIDIA's plugin reads them (`internal/rm/health.go`).

use std::collections::BTreeSet;

/// Which XIDs somebody has switched off or on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    disabled: List,
    enabled: List,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    /// `all` or `xids` is in it, whatever else is.
    every: bool,
    /// `all` is in it.
    all: bool,
    numbers: BTreeSet<u64>,
}

impl Switches {
    /// Reads both variables; what is not set is empty. What is no number and none of the two words is passed over, and
    /// given back for the log.
    pub fn read(disable: &str, enable: &str) -> (Self, Vec<String>) {
        let mut strange = Vec::new();
        let switches = Self { disabled: List::read(disable, &mut strange), enabled: List::read(enable, &mut strange) };
        (switches, strange)
    }

    /// What is said of one XID, if something is. Enabling wins over disabling.
    pub(crate) fn say(&self, xid: u64) -> Option<bool> {
        match (self.enabled.has(xid), self.disabled.has(xid)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Whether no XID counts, so that nobody has to watch for any.
    pub fn watch_nothing(&self) -> bool {
        self.disabled.every && !self.enabled.every && self.enabled.numbers.is_empty()
    }

    /// Whether the vitals don't count either.
    pub fn look_at_nothing(&self) -> bool {
        self.disabled.all && !self.enabled.all
    }
}

impl List {
    fn read(text: &str, strange: &mut Vec<String>) -> Self {
        let mut list = Self::default();
        for word in text.split(',').map(|word| word.trim().to_lowercase()) {
            match word.as_str() {
                "" => {}
                "all" => (list.every, list.all) = (true, true),
                "xids" => list.every = true,
                // Theirs keeps `all` under the number 0.
                _ => match number(&word) {
                    Some(0) => (list.every, list.all) = (true, true),
                    Some(number) => _ = list.numbers.insert(number),
                    None => strange.push(word),
                },
            }
        }
        list
    }

    fn has(&self, xid: u64) -> bool {
        self.every || self.numbers.contains(&xid)
    }
}

/// Digits only: a plus sign is no part of a number to theirs.
fn number(word: &str) -> Option<u64> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(disable: &str, enable: &str, xid: u64) -> Option<bool> {
        Switches::read(disable, enable).0.say(xid)
    }

    #[test]
    fn lists_are_read_as_theirs() {
        for (text, numbers) in [
            ("", &[][..]),
            (",", &[]),
            ("not-an-int", &[]),
            ("68", &[68]),
            ("-68", &[]),
            ("+68", &[]),
            ("68  ", &[68]),
            ("68,", &[68]),
            (",68", &[68]),
            ("68,67", &[67, 68]),
            ("68,not-an-int,67", &[67, 68]),
            ("99999999999999999999", &[]),
        ] {
            let list = List::read(text, &mut Vec::new());
            assert_eq!(list.numbers.into_iter().collect::<Vec<_>>(), numbers, "{text:?}");
            assert!(!list.every, "{text:?}");
        }
        let (_, strange) = Switches::read("68,sixty-nine", "");
        assert_eq!(strange, ["sixty-nine"]);
    }

    #[test]
    fn all_and_xids_switch_everything_off_in_any_case_and_anywhere() {
        for text in ["all", "xids", " ALL ", "Xids", "31,all", "xids,31", "0"] {
            let switches = Switches::read(text, "").0;
            assert!(switches.watch_nothing(), "{text}");
            assert_eq!((switches.say(79), switches.say(555)), (Some(false), Some(false)), "{text}");
        }
        assert!(Switches::read("all", "").0.look_at_nothing());
        assert!(!Switches::read("xids", "").0.look_at_nothing());
        assert!(Switches::read("all", "48").0.look_at_nothing(), "an XID that counts is no vital");
        assert!(Switches::read("all", "xids").0.look_at_nothing());
        assert!(!Switches::read("all", "all").0.look_at_nothing());
        assert!(!Switches::default().watch_nothing());
    }

    #[test]
    fn enabling_wins() {
        assert_eq!(said("", "31", 31), Some(true));
        assert_eq!(said("11", "11", 11), Some(true));
        assert_eq!(said("11", "31", 11), Some(false));
        assert_eq!(said("", "", 31), None);
        assert_eq!(said("11,31", "all", 31), Some(true));
        // The comment on theirs says that single XIDs can be chosen while all are off; here they can.
        assert_eq!((said("all", "79", 79), said("all", "79", 80)), (Some(true), Some(false)));
        assert!(!Switches::read("all", "79").0.watch_nothing());
    }
}
