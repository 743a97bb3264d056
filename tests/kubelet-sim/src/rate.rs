//! Notices a loop without pause.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Counts what happened within the last second.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    recent: VecDeque<Instant>,
    told: bool,
}

impl Rate {
    /// Counts one more; true when the limit is passed, once for each burst.
    pub(crate) fn passes(&mut self, limit: usize) -> bool {
        let now = Instant::now();
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.duration_since(*first) > Duration::from_secs(1)) {
            self.recent.pop_front();
        }
        let above = self.recent.len() > limit;
        let news = above && !self.told;
        self.told = above;
        news
    }
}
