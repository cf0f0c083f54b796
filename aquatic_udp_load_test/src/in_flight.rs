//! Requests under way: what a transaction id stands for.

use aquatic_load_engine::clock::Nanos;
use aquatic_udp_protocol::TransactionId;

use crate::counters::Kind;

/// Request without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    /// The socket it was sent on.
    pub(crate) source: u32,
    /// Of an announce, the peer; of a scrape, the number of torrents.
    pub(crate) subject: u32,
    /// Number of earlier attempts.
    pub(crate) attempt: u8,
    /// Intended send time, from which the latency is measured.
    pub(crate) intended: Nanos,
    /// Send time, from which the timeout is measured.
    pub(crate) sent: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Counts the requests that had this place, so that a late reply to one of them is not taken for one to the next.
    generation: u16,
    pending: Option<Pending>,
}

/// Places for requests under way. A transaction id is the number of the place and its generation.
#[derive(Debug)]
pub(crate) struct InFlight {
    places: Vec<Place>,
    /// Places without a request. The one freed last is used first, so that few places are used at all.
    free: Vec<u16>,
    /// From this place on, there are no requests: looking for lost ones can stop there.
    end: usize,
}

impl InFlight {
    /// Up to 65,536 places.
    pub(crate) fn new(places: usize) -> Self {
        let places = places.min(crate::config::MAX_IN_FLIGHT);
        Self {
            places: vec![Place { generation: 0, pending: None }; places],
            free: (0..places).rev().filter_map(|place| u16::try_from(place).ok()).collect(),
            end: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Gives the request a place, if there is one.
    pub(crate) fn insert(&mut self, pending: Pending) -> Option<TransactionId> {
        let number = self.free.pop()?;
        let place = &mut self.places[usize::from(number)];
        place.generation = place.generation.wrapping_add(1);
        place.pending = Some(pending);
        self.end = self.end.max(usize::from(number) + 1);
        Some(TransactionId::from_number(u32::from(place.generation) << 16 | u32::from(number)))
    }

    /// Takes the request out that a reply on this socket belongs to.
    pub(crate) fn take(&mut self, id: TransactionId, source: u32) -> Option<Pending> {
        let number = id.number() as u16;
        let generation = (id.number() >> 16) as u16;
        let place = self.places.get_mut(usize::from(number))?;
        let belongs = place.generation == generation && place.pending.is_some_and(|p| p.source == source);
        if !belongs {
            return None;
        }
        self.free.push(number);
        place.pending.take()
    }

    /// Takes out all requests that were sent before a moment.
    pub(crate) fn expire(&mut self, sent_before: Nanos, mut lost: impl FnMut(Pending)) {
        let mut end = 0;
        for number in 0..self.end {
            match self.places[number].pending {
                Some(pending) if pending.sent < sent_before => {
                    self.places[number].pending = None;
                    // There are no more places than numbers of 16 bits.
                    self.free.push(number as u16);
                    lost(pending);
                }
                Some(_) => end = number + 1,
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
    fn replies_find_their_request_once_and_on_its_socket_only() {
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
    fn a_full_table_takes_no_more_until_requests_expire() {
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
    fn all_places_have_numbers() {
        let mut table = InFlight::new(usize::MAX);
        assert_eq!(table.room(), 65_536);
        let id = (0..65_536).filter_map(|_| table.insert(pending(1, 0))).last().unwrap();
        assert_eq!(table.len(), 65_536);
        assert!(table.take(id, 1).is_some());
    }
}
