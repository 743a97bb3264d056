//! How long to wait before a resource is registered again.

use std::time::Duration;

/// A socket file appears a moment before its kubelet listens.
const FIRST: Duration = Duration::from_millis(2);
/// What happened, as far as it matters for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setback {
    /// There is nothing to wait for.
    None,
    /// The kubelet has a socket, and nobody answers there yet.
    Absence,
    /// It can be tried again at little cost.
    Failure,
    /// Somebody else has the resource.
    Taken,
    /// The kubelet had it, and let go of it though nothing has happened to the kubelet.
    Expelled,
}

impl Setback {
    /// The longest pause. Who is expelled again and again has an adversary that is none of the known ones, and each
    /// attempt takes the resource from the node's pods for a moment.
    const fn longest(self) -> Duration {
        match self {
            Self::None => FIRST,
            Self::Absence => Duration::from_millis(500),
            Self::Failure => Duration::from_secs(2),
            Self::Taken => Duration::from_secs(60),
            Self::Expelled => Duration::from_secs(300),
        }
    }

    const fn shortest(self) -> Duration {
        match self {
            Self::Taken => Duration::from_millis(250),
            _ => FIRST,
        }
    }

    /// How long a registration has to hold for the pauses to begin anew.
    const fn calm(self) -> Duration {
        match self {
            Self::Expelled => Duration::from_secs(600),
            _ => Duration::from_secs(10),
        }
    }
}

/// Grows with each setback.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    last: Duration,
    expulsions: u32,
}

impl Pause {
    /// The pause after this, which came when the registration was so old.
    pub(crate) fn after(&mut self, setback: Setback, held: Duration) -> Duration {
        let calm = held >= setback.calm();
        if calm || setback == Setback::None {
            *self = Self::default();
        }
        self.expulsions += u32::from(setback == Setback::Expelled);
        self.last = (self.last * 2).clamp(setback.shortest(), setback.longest());
        self.last
    }

    /// Whether this has happened too often for it to be chance.
    pub(crate) fn is_a_fight(&self) -> bool {
        self.expulsions >= 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    fn pauses(setback: Setback, held: Duration, count: usize) -> Vec<Duration> {
        let mut pause = Pause::default();
        (0..count).map(|_| pause.after(setback, held)).collect()
    }

    #[test]
    fn pauses_grow_to_the_longest_of_their_kind() {
        for setback in [Setback::Absence, Setback::Failure, Setback::Taken, Setback::Expelled] {
            let pauses = pauses(setback, AT_ONCE, 40);
            assert!(pauses.is_sorted() && pauses[0] < Duration::from_secs(1), "{pauses:?}");
            assert_eq!(*pauses.last().unwrap(), setback.longest());
        }
    }

    #[test]
    fn a_fight_is_a_handful_of_attempts_and_no_loop() {
        // Another that takes the resource back within a second, or within a minute, every time.
        for held in [1, 60] {
            let held = Duration::from_secs(held);
            let mut pause = Pause::default();
            let mut day = Duration::ZERO;
            let mut attempts = 0;
            while day < Duration::from_secs(86_400) {
                day += held + pause.after(Setback::Expelled, held);
                attempts += 1;
            }
            assert!(pause.is_a_fight());
            assert!(attempts < 350, "{attempts}");
        }
    }

    #[test]
    fn what_held_for_long_starts_anew() {
        let mut pause = Pause::default();
        for _ in 0..20 {
            pause.after(Setback::Expelled, AT_ONCE);
        }
        assert!(pause.is_a_fight());
        assert_eq!(pause.after(Setback::Expelled, Duration::from_secs(3600)), FIRST);
        assert!(!pause.is_a_fight());
        pause.after(Setback::Failure, AT_ONCE);
        assert_eq!(pause.after(Setback::None, AT_ONCE), FIRST, "a new kubelet is worth an attempt at once");
    }
}
