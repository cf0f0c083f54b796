//! Times in which something is above a limit: whoever reads the log is told of their begin and their end, and
//! not of each request in between.

use std::time::Duration;

/// Time without anything above a limit after which an episode has ended.
const CALM: Duration = Duration::from_secs(10);

/// The episodes of one limit, of which at most one is under way. `T` is what is known of the first request
/// above the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episodes<T>(Option<Episode<T>>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Episode<T> {
    first: T,
    since: Duration,
    last: Duration,
    count: u64,
    is_told: bool,
}

/// What has to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EpisodeEvent<T> {
    /// Something is above the limit.
    Began {
        /// What is known of the first request.
        first: T,
        /// Number of requests above the limit so far.
        count: u64,
        /// Time in which they came.
        passed: Duration,
    },
    /// Nothing has been above the limit for some seconds.
    Ended {
        /// Number of requests that were above the limit.
        count: u64,
        /// Time in which they came.
        lasted: Duration,
    },
}

impl<T> Default for Episodes<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Episodes<T> {
    /// Counts a request above the limit.
    pub fn count(&mut self, request: T, now: Duration) {
        let episode =
            self.0.get_or_insert(Episode { first: request, since: now, last: now, count: 0, is_told: false });
        episode.last = now;
        episode.count += 1;
    }

    /// Whether an episode is under way.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// What has to be told now. To be asked about every second.
    pub fn event(&mut self, now: Duration) -> Option<EpisodeEvent<T>> {
        let episode = self.0.as_mut()?;
        if now.saturating_sub(episode.last) >= CALM {
            let (count, lasted) = (episode.count, episode.last.saturating_sub(episode.since));
            self.0 = None;
            return Some(EpisodeEvent::Ended { count, lasted });
        }
        if std::mem::replace(&mut episode.is_told, true) {
            return None;
        }
        let passed = now.saturating_sub(episode.since);
        Some(EpisodeEvent::Began { first: episode.first, count: episode.count, passed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_and_end_are_told_once() {
        let at = Duration::from_secs;
        let mut episodes = Episodes::default();
        assert_eq!((episodes.event(at(1)), episodes.is_under_way()), (None, false));
        episodes.count('a', at(1));
        episodes.count('b', at(2));
        assert_eq!(episodes.event(at(3)), Some(EpisodeEvent::Began { first: 'a', count: 2, passed: at(2) }));
        episodes.count('c', at(4));
        assert_eq!((episodes.event(at(13)), episodes.is_under_way()), (None, true));
        assert_eq!(episodes.event(at(14)), Some(EpisodeEvent::Ended { count: 3, lasted: at(3) }));
        assert_eq!((episodes.event(at(15)), episodes.is_under_way()), (None, false));
    }
}
