//! Collecting the parts of a response from the cores that own them. Written once for all protocols: a UDP
//! scrape of several torrents, an HTTP announce and a WebTorrent scrape wait in the same way. Pure: time is
//! an argument.
//!
//! Invariants: each request that has begun ends exactly once: complete, cancelled or expired, and its waiter
//! is then given back. A response to a request that has ended is recognised by its id and dropped.

use std::fmt;
use std::time::Duration;

use slab::Slab;

/// Time the owners of the torrents have to respond. A core that takes longer is overloaded, and a client that
/// is told so tries again.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(2);

/// Maximum number of requests of one core without a response. Each takes some 100 bytes, and 16 per torrent.
pub const MAX_PENDING: usize = 65_536;

/// Buffers of finished requests that are kept for later ones.
const MAX_SPARE: usize = 256;

/// Why a request to an owner has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// Too much waits for an owner, or too many requests are pending: the tracker is overloaded.
    Overflow,
    /// An owner did not respond in time.
    Timeout,
}

impl RouteError {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Timeout => "timeout",
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn text(self) -> &'static str {
        "the tracker is overloaded, try again later"
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "too many requests wait for another core",
            Self::Timeout => "another core did not respond in time",
        })
    }
}

impl std::error::Error for RouteError {}

/// Names a pending request. The generation tells it from an earlier one in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    slot: u32,
    generation: u32,
}

impl RequestId {
    /// Returns the id as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        ((u64::from(self.slot) << 32) | u64::from(self.generation)).to_be_bytes()
    }

    /// Returns the id that bytes stand for. If they are no such id, no request has it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, generation @ ..] = bytes;
        Self { slot: u32::from_be_bytes([a, b, c, d]), generation: u32::from_be_bytes(generation) }
    }
}

struct Entry<W, C> {
    generation: u32,
    deadline: Duration,
    waiter: W,
    values: Vec<C>,
    missing: usize,
}

/// Pending requests of one core: for each a waiter, and a value per torrent that the owners fill in.
pub struct Gather<W, C> {
    entries: Slab<Entry<W, C>>,
    generation: u32,
    spare: Vec<Vec<C>>,
    /// Slot at which the search for late requests goes on.
    cursor: usize,
}

impl<W, C> fmt::Debug for Gather<W, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("pending", &self.entries.len()).finish_non_exhaustive()
    }
}

impl<W, C> Default for Gather<W, C> {
    fn default() -> Self {
        Self { entries: Slab::new(), generation: 0, spare: Vec::new(), cursor: 0 }
    }
}

impl<W, C: Copy + Default> Gather<W, C> {
    /// Number of pending requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no request is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An empty vector for the values of a request, from those given to [`recycle`](Self::recycle).
    #[must_use]
    pub fn spare(&mut self) -> Vec<C> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of a finished request's values for later ones.
    pub fn recycle(&mut self, mut values: Vec<C>) {
        if self.spare.len() < MAX_SPARE && values.capacity() > 0 {
            values.clear();
            self.spare.push(values);
        }
    }

    /// Begins a request that `missing` cores will respond to. `values` holds what is known already.
    ///
    /// # Errors
    /// The waiter, if there are [`MAX_PENDING`] requests.
    pub fn begin(
        &mut self,
        now: Duration,
        waiter: W,
        values: Vec<C>,
        missing: usize,
    ) -> Result<RequestId, W> {
        self.begin_until(now + RESPONSE_DEADLINE, waiter, values, missing)
    }

    /// Begins a request with another deadline, see [`begin`](Self::begin).
    ///
    /// # Errors
    /// The waiter, if there are [`MAX_PENDING`] requests.
    pub fn begin_until(
        &mut self,
        deadline: Duration,
        waiter: W,
        values: Vec<C>,
        missing: usize,
    ) -> Result<RequestId, W> {
        let slot = match u32::try_from(self.entries.vacant_key()) {
            Ok(slot) if self.entries.len() < MAX_PENDING => slot,
            _ => return Err(waiter),
        };
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.entries.insert(Entry { generation, deadline, waiter, values, missing });
        Ok(RequestId { slot, generation })
    }

    fn entry(&mut self, id: RequestId) -> Option<&mut Entry<W, C>> {
        self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    /// Takes in one core's response: values with their positions. Returns waiter and values once all cores
    /// have responded.
    pub fn respond(
        &mut self,
        id: RequestId,
        values: impl IntoIterator<Item = (u16, C)>,
    ) -> Option<(W, Vec<C>)> {
        let entry = self.entry(id)?;
        for (at, value) in values {
            if let Some(slot) = entry.values.get_mut(usize::from(at)) {
                *slot = value;
            }
        }
        entry.missing = entry.missing.saturating_sub(1);
        if entry.missing > 0 { None } else { self.remove(id) }
    }

    /// The waiter of a request that is pending.
    #[must_use]
    pub fn waiter(&self, id: RequestId) -> Option<&W> {
        let entry = self.entries.get(id.slot as usize)?;
        (entry.generation == id.generation).then_some(&entry.waiter)
    }

    fn remove(&mut self, id: RequestId) -> Option<(W, Vec<C>)> {
        self.entry(id)?;
        let Entry { waiter, values, .. } = self.entries.remove(id.slot as usize);
        Some((waiter, values))
    }

    /// The waiter of a request that is pending, to be changed.
    pub fn waiter_mut(&mut self, id: RequestId) -> Option<&mut W> {
        self.entry(id).map(|entry| &mut entry.waiter)
    }

    /// Ends a request before its time and returns its waiter, if it is still pending.
    pub fn cancel(&mut self, id: RequestId) -> Option<W> {
        let (waiter, values) = self.remove(id)?;
        self.recycle(values);
        Some(waiter)
    }

    /// Ends all requests whose deadline has passed, and returns their waiters.
    pub fn expire(&mut self, now: Duration) -> Vec<W> {
        self.cursor = 0;
        self.expire_some(now, usize::MAX).0
    }

    /// Ends some requests whose deadline has passed, and returns their waiters, and whether there may be
    /// more: the next call goes on after them.
    pub fn expire_some(&mut self, now: Duration, max: usize) -> (Vec<W>, bool) {
        let mut late = Vec::new();
        while self.cursor < self.entries.capacity() {
            if late.len() >= max {
                return (late, true);
            }
            if self.entries.get(self.cursor).is_some_and(|entry| entry.deadline <= now) {
                let Entry { waiter, values, .. } = self.entries.remove(self.cursor);
                self.recycle(values);
                late.push(waiter);
            }
            self.cursor += 1;
        }
        self.cursor = 0;
        (late, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    fn begin(gather: &mut Gather<&'static str, u32>, waiter: &'static str, missing: usize) -> RequestId {
        gather.begin(START, waiter, vec![0; 3], missing).unwrap()
    }

    #[test]
    fn a_request_ends_when_all_have_responded() {
        let mut gather = Gather::default();
        let id = begin(&mut gather, "one", 2);
        assert_eq!(gather.respond(id, [(2, 7)]), None);
        assert_eq!(gather.respond(id, [(0, 5), (9, 1)]), Some(("one", vec![5, 0, 7])));
        assert_eq!(gather.respond(id, []), None, "it is over");
        assert!(gather.is_empty());
    }

    #[test]
    fn late_responses_are_not_taken_for_another_requests() {
        let mut gather = Gather::default();
        let first = begin(&mut gather, "first", 1);
        assert!(gather.expire(RESPONSE_DEADLINE - Duration::from_millis(1)).is_empty());
        assert_eq!(gather.expire(RESPONSE_DEADLINE), ["first"]);
        let second = begin(&mut gather, "second", 1);
        assert_eq!(first.slot, second.slot);
        assert_eq!(gather.respond(first, [(0, 1)]), None);
        assert_eq!(gather.cancel(first), None);
        assert_eq!(gather.respond(second, [(0, 2)]), Some(("second", vec![2, 0, 0])));
    }

    #[test]
    fn a_cancelled_request_gives_its_waiter_back_once() {
        let mut gather = Gather::default();
        let id = begin(&mut gather, "one", 3);
        assert_eq!(gather.cancel(id), Some("one"));
        assert_eq!(gather.cancel(id), None);
        assert!(gather.spare().capacity() >= 3, "memory is kept");
    }

    #[test]
    fn late_requests_end_in_steps() {
        let mut gather = Gather::default();
        for waiter in ["a", "b", "c", "d", "e"] {
            begin(&mut gather, waiter, 1);
        }
        assert_eq!(gather.expire_some(RESPONSE_DEADLINE, 2), (vec!["a", "b"], true));
        let young = gather.begin(RESPONSE_DEADLINE, "young", Vec::new(), 1).unwrap();
        assert_eq!(gather.expire_some(RESPONSE_DEADLINE, 2), (vec!["c", "d"], true));
        assert_eq!(gather.expire_some(RESPONSE_DEADLINE, 2), (vec!["e"], false));
        assert_eq!(
            gather.expire_some(RESPONSE_DEADLINE * 2, 2),
            (vec!["young"], false),
            "from the beginning"
        );
        assert_eq!(gather.cancel(young), None);
    }

    #[test]
    fn pending_requests_are_limited() {
        let mut gather: Gather<usize, u32> = Gather::default();
        for waiter in 0..MAX_PENDING {
            gather.begin(START, waiter, Vec::new(), 1).unwrap();
        }
        assert_eq!(gather.begin(START, usize::MAX, Vec::new(), 1), Err(usize::MAX));
        assert_eq!(gather.expire(RESPONSE_DEADLINE).len(), MAX_PENDING);
    }
}
