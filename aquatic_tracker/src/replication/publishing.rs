//! What a core has noted for other nodes, and has not handed out yet.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_swarm::{
    Announce, Announced, Applied, Change, ChangeKind, Completion, MAX_PEER_AGE, Previous, Stored, TICK,
};

use super::departed::Departed;
use super::records::{record_length, write_record};

/// Maximum number of bytes of records that are handed out together.
pub const MAX_BATCH: usize = 64 << 10;

/// Maximum number of bytes of records of a core that are not handed out yet: of 150,000 IPv4 peers. What
/// exceeds it is dropped.
pub const MAX_UNPUBLISHED: usize = 4 << 20;

/// Longest time over which records are gathered for one batch, in seconds.
const MAX_GATHERING: u32 = 190;

/// Age in seconds from which on a peer is not told of again although a change of its role contradicts what is
/// known of it: changes do not come so late. Stops do, see [`Departed`].
const MAX_REASSERTED_AGE: u32 = 64;

/// Seconds of which peers are told of again together.
const REASSERTED_SPAN: u32 = 128;

// The times of records are kept in a byte until they are handed out.
const _: () = assert!(MAX_GATHERING < 255 && REASSERTED_SPAN < 255);

/// Seconds by which a change may be late: its time is rounded to 16 seconds at both ends, and it waits for
/// its batch.
const LATENESS: u32 = 64;

/// Memory that a new batch begins with.
const FIRST_CAPACITY: usize = 1024;

/// Returns how often at most a peer is told of that announces without any change, in seconds, given the age
/// at which peers expire. 0 if each announce is.
#[must_use]
pub fn refresh_interval(max_peer_age: u32) -> u32 {
    (max_peer_age / 2).min(MAX_PEER_AGE.saturating_sub(max_peer_age.saturating_add(LATENESS)))
}

/// Returns by how many seconds the peers of other nodes expire later than a node's own, given the age at
/// which those do.
#[must_use]
pub fn remote_grace(max_peer_age: u32) -> u32 {
    (refresh_interval(max_peer_age) + LATENESS).min(MAX_PEER_AGE.saturating_sub(max_peer_age))
}

/// Changes of a core for other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Address family of the peers.
    pub family: Family,
    /// Records, at most [`MAX_BATCH`] bytes.
    pub records: Vec<u8>,
    /// Moment that their ages count to.
    pub until: Seconds,
}

/// Records that are gathered for one batch.
#[derive(Debug)]
struct Gathering {
    /// The ages of the records are seconds since then, until the batch is handed out.
    begun: Seconds,
    records: Vec<u8>,
}

/// Changes that have not been handed out.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    refresh_interval: u32,
    /// By family.
    batches: [VecDeque<Gathering>; 2],
    /// Peers that are told of again, long after their last announce.
    reasserted: VecDeque<Published>,
    bytes: usize,
    dropped: u64,
    /// Length of the longest batch lately.
    usual: usize,
    departed: Departed,
}

impl Publishing {
    /// Sets the age at which peers expire.
    pub(crate) fn set_max_peer_age(&mut self, max_peer_age: u32) {
        self.refresh_interval = refresh_interval(max_peer_age);
        self.departed.set_max_age(max_peer_age + remote_grace(max_peer_age));
    }

    /// Peers that have left.
    pub(crate) fn departed(&self) -> &Departed {
        &self.departed
    }

    /// Notes what an announce has done, if other nodes have to know.
    #[inline]
    pub(crate) fn observe(&mut self, announce: &Announce, announced: &Announced, now: Seconds) {
        let seeder = announce.seeder && announce.event != AnnounceEvent::Paused;
        let kind = match announced.stored {
            Stored::Added => ChangeKind::Present { seeder, completion: Completion::None },
            Stored::Updated => {
                let Some(kind) = self.update(announce, announced.previous, seeder, now) else { return };
                kind
            }
            Stored::Removed => ChangeKind::LeftAfter,
            Stored::Absent => ChangeKind::Left,
            Stored::RefusedPort
            | Stored::Ignored
            | Stored::RefusedPeersPerTorrent
            | Stored::RefusedPeersPerAddress
            | Stored::RefusedPeers
            | Stored::RefusedTorrents
            | Stored::RefusedMemory => return,
        };
        let address = aquatic_common::canonical(announce.address);
        let change = Change { info_hash: announce.info_hash, address, kind, age: 0 };
        self.note(change, now, now);
        if !kind.is_present() {
            // When it is told of again, it may have announced to another node once more.
            self.departed.note(&Change { kind: ChangeKind::Left, ..change }, now);
        }
    }

    /// Returns what other nodes have to know of a known peer that announced, if anything.
    fn update(
        &self,
        announce: &Announce,
        previous: Previous,
        seeder: bool,
        now: Seconds,
    ) -> Option<ChangeKind> {
        let counted = previous.completion_counted();
        let completion = match (counted, seeder && !previous.is_seeder()) {
            (true, _) => Completion::Counted,
            (false, true) => Completion::Now,
            (false, false) => Completion::None,
        };
        let is_due = previous.is_remote()
            || previous.is_seeder() != seeder
            || self.is_refresh_due(&announce.info_hash, announce.address, previous.age(now), now);
        is_due.then_some(ChangeKind::Present { seeder, completion })
    }

    /// Whether a peer's previous announce, some seconds ago, was in another interval than one now. Intervals
    /// of different peers begin at different times.
    fn is_refresh_due(&self, info_hash: &InfoHash, address: SocketAddr, age: u32, now: Seconds) -> bool {
        let [.., a, b, c, d] = info_hash.0;
        let (ip, port) = match address.ip() {
            IpAddr::V4(ip) => (ip.to_bits(), address.port()),
            IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u32 ^ ip.to_bits() as u32, address.port()),
        };
        let mixed = (ip ^ u32::from(port) << 16 ^ u32::from_le_bytes([a, b, c, d])).wrapping_mul(0x9e37_79b1);
        let offset = (u64::from(mixed) * u64::from(self.refresh_interval)) >> 32;
        // Ages are rounded, so the time is, too.
        let now = now.0 - now.0 % TICK;
        let since = (u64::from(now) + offset).checked_rem(self.refresh_interval.into());
        since.is_none_or(|since| u64::from(age) > since)
    }

    /// Notes what a change of another node has done: a peer that stays as it is here is told of again. It is
    /// told as heard a little later, so that it outlasts a change in the same 16 seconds.
    pub(crate) fn observe_change(
        &mut self,
        change: &Change,
        (applied, previous): (Applied, Previous),
        now: Seconds,
    ) {
        if applied != Applied::Reasserted {
            return;
        }
        let age = previous.age(now).saturating_sub(TICK);
        let counted = previous.completion_counted();
        let completion = if counted { Completion::Counted } else { Completion::None };
        let kind = ChangeKind::Present { seeder: previous.is_seeder(), completion };
        let (own, heard) = (Change { kind, ..*change }, Seconds(now.0.saturating_sub(age)));
        if age < MAX_REASSERTED_AGE {
            self.note(own, heard, now);
        } else if !change.kind.is_present() {
            self.note_old(own, heard, now);
        }
    }

    /// Notes a peer that was heard long ago.
    fn note_old(&mut self, change: Change, heard: Seconds, now: Seconds) {
        let family = Family::of(change.address.ip());
        let length = record_length(family);
        if self.bytes + length > MAX_UNPUBLISHED {
            self.dropped += 1;
            return;
        }
        let until = Seconds((heard.0 / REASSERTED_SPAN + 1).saturating_mul(REASSERTED_SPAN).min(now.0));
        let takes_more = |batch: &Published| {
            (batch.family, batch.until) == (family, until) && batch.records.len() + length <= MAX_BATCH
        };
        if !self.reasserted.iter().any(takes_more) {
            self.reasserted.push_back(Published { family, records: Vec::new(), until });
        }
        if let Some(batch) = self.reasserted.iter_mut().find(|batch| takes_more(batch)) {
            // Lossless: see `REASSERTED_SPAN`.
            write_record(&Change { age: (until - heard) as u8, ..change }, &mut batch.records);
            self.bytes += length;
        }
    }

    /// Notes a change that has been heard of at some time.
    fn note(&mut self, change: Change, heard: Seconds, now: Seconds) {
        let family = Family::of(change.address.ip());
        let length = record_length(family);
        if self.bytes + length > MAX_UNPUBLISHED {
            self.dropped += 1;
            return;
        }
        let batches = &mut self.batches[family.index()];
        let takes_more = |batch: &&mut Gathering| {
            let since = now.0.saturating_sub(batch.begun.0);
            batch.records.len() + length <= MAX_BATCH && since < MAX_GATHERING
        };
        // Records of the past stand in batches of the past.
        let begun = Seconds(now.0.saturating_sub(MAX_REASSERTED_AGE));
        let capacity = (self.usual + self.usual / 4).clamp(FIRST_CAPACITY, MAX_BATCH);
        let batch = match batches.back_mut().filter(takes_more) {
            Some(batch) => batch,
            None => {
                batches.push_back(Gathering { begun, records: Vec::with_capacity(capacity) });
                let Some(batch) = batches.back_mut() else { return };
                batch
            }
        };
        // Lossless: see `MAX_GATHERING`.
        let since = heard.0.saturating_sub(batch.begun.0) as u8;
        write_record(&Change { age: since, ..change }, &mut batch.records);
        self.bytes += length;
    }

    /// Removes the oldest batch.
    pub(crate) fn take(&mut self, now: Seconds) -> Option<Published> {
        if let Some(batch) = self.reasserted.pop_front() {
            self.bytes -= batch.records.len();
            return Some(batch);
        }
        let family = Family::ALL.into_iter().find(|family| !self.batches[family.index()].is_empty())?;
        let Gathering { begun, mut records } = self.batches[family.index()].pop_front()?;
        self.bytes -= records.len();
        self.usual = (self.usual - self.usual / 16).max(records.len());
        let passed = now.0.saturating_sub(begun.0);
        for record in records.chunks_exact_mut(record_length(family)) {
            if let Some(age) = record.last_mut() {
                let since = u32::from(*age);
                *age = u8::try_from(passed.saturating_sub(since)).unwrap_or(u8::MAX);
            }
        }
        Some(Published { family, records, until: now })
    }

    /// Returns how many changes were dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}
