//! Requests in flight, by transaction id.

use aquatic_load_engine::clock::Nanos;
use aquatic_udp_protocol::TransactionId;

use crate::counters::Kind;

/// Request without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    /// Index of the socket.
    pub(crate) source: u32,
    /// Peer of an announce, or index of torrents of a scrape.
    pub(crate) subject: u32,
    /// Number of earlier attempts.
    pub(crate) attempt: u8,
    /// Intended send time, from which the latency is measured.
    pub(crate) intended: Nanos,
    /// Send time, from which the timeout is measured.
    pub(crate) sent: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Number of requests that used this entry before, so that late replies to those are recognised.
    generation: u16,
    pending: Option<Pending>,
}

/// Table of requests in flight. A transaction id consists of the index of the entry and its generation.
#[derive(Debug)]
pub(crate) struct InFlight {
    entries: Vec<Entry>,
    /// Free entries. The one freed last is reused first, so that few entries are in use.
    free: Vec<u16>,
    /// Index above the last used entry, where the search for timed-out requests ends.
    end: usize,
}

impl InFlight {
    /// Creates a table; its size is limited to 65,536.
    pub(crate) fn new(entries: usize) -> Self {
        let entries = entries.min(crate::config::MAX_IN_FLIGHT);
        Self {
            entries: vec![Entry { generation: 0, pending: None }; entries],
            free: (0..entries).rev().filter_map(|entry| u16::try_from(entry).ok()).collect(),
            end: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Inserts a request, unless the table is full.
    pub(crate) fn insert(&mut self, pending: Pending) -> Option<TransactionId> {
        let index = self.free.pop()?;
        let entry = &mut self.entries[usize::from(index)];
        entry.generation = entry.generation.wrapping_add(1);
        entry.pending = Some(pending);
        self.end = self.end.max(usize::from(index) + 1);
        Some(TransactionId::from_number(u32::from(entry.generation) << 16 | u32::from(index)))
    }

    /// Removes and returns the request that a reply on this socket belongs to.
    pub(crate) fn take(&mut self, id: TransactionId, source: u32) -> Option<Pending> {
        let index = id.number() as u16;
        let generation = (id.number() >> 16) as u16;
        let entry = self.entries.get_mut(usize::from(index))?;
        let belongs = entry.generation == generation && entry.pending.is_some_and(|p| p.source == source);
        if !belongs {
            return None;
        }
        self.free.push(index);
        entry.pending.take()
    }

    /// Removes all requests that were sent before a time.
    pub(crate) fn expire(&mut self, sent_before: Nanos, mut lost: impl FnMut(Pending)) {
        let mut end = 0;
        for index in 0..self.end {
            match self.entries[index].pending {
                Some(pending) if pending.sent < sent_before => {
                    self.entries[index].pending = None;
                    // The table has at most 65,536 entries.
                    self.free.push(index as u16);
                    lost(pending);
                }
                Some(_) => end = index + 1,
                None => {}
            }
        }
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(source: u32, sent: Nanos) -> Pending {
        Pending { kind: Kind::Announce, source, subject: 7, attempt: 0, intended: 0, sent }
    }

    #[test]
    fn replies_match_their_request_once_and_on_its_socket_only() {
        let mut table = InFlight::new(2);
        let id = table.insert(pending(3, 0)).unwrap();
        assert_eq!((table.len(), table.room()), (1, 1));
        assert_eq!(table.take(id, 4), None);
        assert_eq!(table.take(id, 3), Some(pending(3, 0)));
        assert_eq!(table.take(id, 3), None);
        let again = table.insert(pending(3, 0)).unwrap();
        assert_ne!(id, again);
        assert_eq!(table.take(id, 3), None, "a late reply");
        assert_eq!(table.take(TransactionId::from_number(u32::MAX), 3), None);
    }

    #[test]
    fn a_full_table_rejects_requests_until_some_expire() {
        let mut table = InFlight::new(2);
        let old = table.insert(pending(1, 10)).unwrap();
        table.insert(pending(1, 20)).unwrap();
        assert_eq!(table.insert(pending(1, 30)), None);
        let mut lost = Vec::new();
        table.expire(20, |pending| lost.push(pending.sent));
        assert_eq!((lost, table.len()), (vec![10], 1));
        assert_eq!(table.take(old, 1), None);
        assert!(table.insert(pending(1, 40)).is_some());
        table.expire(100, |pending| assert!(pending.sent == 20 || pending.sent == 40));
        assert_eq!((table.len(), table.room()), (0, 2));
    }

    #[test]
    fn all_entries_have_an_index() {
        let mut table = InFlight::new(usize::MAX);
        assert_eq!(table.room(), 65_536);
        let id = (0..65_536).filter_map(|_| table.insert(pending(1, 0))).last().unwrap();
        assert_eq!(table.len(), 65_536);
        assert!(table.take(id, 1).is_some());
    }
}
