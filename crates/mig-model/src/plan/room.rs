//! How much can still be placed.

use serde::Serialize;

use crate::profile::Profile;

/// What a GPU still takes: for each profile, how many more if nothing else were added. Of two ways to place the same
/// instances the one with the greater sum is better; then the one that still takes the larger instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Room(pub Vec<(Profile, u32)>);

impl Room {
    /// How many more in all: the figure that ways are compared by.
    pub fn sum(&self) -> u32 {
        self.0.iter().map(|(_, more)| more).sum()
    }
}

/// `4 x 1g.5gb, 2 x 2g.10gb or 1 x 4g.20gb`, or `nothing`.
impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> =
            self.0.iter().filter(|(_, more)| *more > 0).map(|(profile, more)| format!("{more} x {profile}")).collect();
        match all.split_last() {
            None => f.write_str("nothing"),
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
        }
    }
}
