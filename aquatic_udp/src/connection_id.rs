//! Connection ids without memory of connections.
//!
//! A connection id proves that its sender can receive at the address it claims, so that nobody can be entered
//! into a swarm, or sent replies, by someone who only writes their address on packets. The tracker keeps
//! nothing per client:
//!
//! ```text
//! byte 0..2   when it was made: seconds since start, low 16 bits
//! byte 2..8   48 bits of SipHash-2-4 over (full time, client's IP), under a secret made at start
//! ```
//!
//! The client's port is no part of it: clients reuse an id from several local sockets, and behind the same
//! address there is one owner. All cores share the secret, so an id made by one is accepted by all. Guessing
//! takes 2^47 packets on average, all within the time an id is valid.
//!
//! The nodes of a cluster accept each other's ids: their times are seconds since 1970 by the calendar, and
//! each day has a secret of its own, derived from that of the cluster. The calendars of nodes may differ by
//! [`CALENDAR_TOLERANCE`].

use std::cmp::Ordering;
use std::net::IpAddr;

use aquatic_common::Seconds;
use aquatic_udp_protocol::ConnectionId;
use siphasher::sip::SipHasher24;

use crate::service::UdpService;

/// Cores read their clocks at slightly different times: an id may be this much younger than now.
const CLOCK_TOLERANCE: u32 = 4;

/// Seconds by which the calendars of two nodes of a cluster may differ.
const CALENDAR_TOLERANCE: u32 = 300;

/// Seconds for which ids of a cluster are made under the same key.
const DAY: u32 = 86_400;

/// Makes and checks connection ids. Cores hold copies of one.
#[derive(Clone)]
pub struct ConnectionIds {
    /// Key of the ids, or of those of today in a cluster.
    hasher: SipHasher24,
    max_age: u32,
    /// Seconds by which an id may be younger than now.
    tolerance: u32,
    /// What ids depend on in a cluster.
    cluster: Option<Box<ClusterKeys>>,
}

/// Keys that all nodes of a cluster have.
#[derive(Clone)]
struct ClusterKeys {
    secret: [u8; 32],
    /// Calendar minus the tracker's own time, in seconds.
    offset: u32,
    /// Day since 1970 that the key in use is of.
    today: u32,
    /// Keys of the days before and after it.
    yesterday: SipHasher24,
    tomorrow: SipHasher24,
}

impl ClusterKeys {
    fn of_day(&self, day: u32) -> SipHasher24 {
        let hash = blake3::keyed_hash(&self.secret, &day.to_be_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(hash.as_bytes().split_at(16).0);
        SipHasher24::new_with_key(&key)
    }
}

impl ConnectionIds {
    /// Ids under this key that are valid for `max_age` seconds, at most about nine hours.
    #[must_use]
    pub fn new(max_age: u32, secret: [u8; 16]) -> Self {
        Self {
            hasher: SipHasher24::new_with_key(&secret),
            max_age: max_age.min(u32::from(u16::MAX) / 2),
            tolerance: CLOCK_TOLERANCE,
            cluster: None,
        }
    }

    /// Ids that all nodes with this secret make and accept. [`follow_calendar`](Self::follow_calendar) has to
    /// be called before they are used, and every few seconds.
    #[must_use]
    pub fn of_cluster(max_age: u32, secret: [u8; 32]) -> Self {
        let none = SipHasher24::new();
        let keys = ClusterKeys { secret, offset: 0, today: 0, yesterday: none, tomorrow: none };
        let mut ids = Self {
            tolerance: CALENDAR_TOLERANCE + CLOCK_TOLERANCE,
            cluster: Some(Box::new(keys)),
            ..Self::new(max_age, [0; 16])
        };
        ids.use_day(1);
        ids
    }

    /// Whether ids depend on the calendar.
    #[must_use]
    pub fn uses_calendar(&self) -> bool {
        self.cluster.is_some()
    }

    /// Adopts the calendar, in seconds since 1970, at a time of the tracker.
    pub fn follow_calendar(&mut self, now: Seconds, calendar: i64) {
        let Some(keys) = &mut self.cluster else { return };
        // Until 2106; what does not fit is a calendar that is set wrong.
        let calendar = u32::try_from(calendar).unwrap_or(0).max(DAY);
        keys.offset = calendar.wrapping_sub(now.0);
        if keys.today != calendar / DAY {
            self.use_day(calendar / DAY);
        }
    }

    fn use_day(&mut self, day: u32) {
        let Some(keys) = &mut self.cluster else { return };
        keys.today = day;
        keys.yesterday = keys.of_day(day.wrapping_sub(1));
        keys.tomorrow = keys.of_day(day.wrapping_add(1));
        self.hasher = keys.of_day(day);
    }

    /// The id of a client, as of now.
    #[must_use]
    pub fn make(&self, ip: IpAddr, now: Seconds) -> ConnectionId {
        ConnectionId(self.bytes(ip, self.time(now)))
    }

    /// The time that ids hold.
    fn time(&self, now: Seconds) -> u32 {
        self.cluster.as_ref().map_or(now.0, |keys| now.0.wrapping_add(keys.offset))
    }

    /// Whether this tracker gave the id to the owner of this address recently enough.
    #[must_use]
    pub fn is_valid(&self, id: ConnectionId, ip: IpAddr, now: Seconds) -> bool {
        let [high, low, ..] = id.0;
        let made = u16::from_be_bytes([high, low]);
        // The id holds the low bits of its time; the age, being short, gives back the rest.
        let latest = self.time(now).wrapping_add(self.tolerance);
        let age = u32::from((latest as u16).wrapping_sub(made));
        if age > self.max_age + self.oldest_margin() {
            return false;
        }
        let expected = u64::from_be_bytes(self.bytes(ip, latest.wrapping_sub(age)));
        // One comparison of registers takes the same time wherever the bits differ.
        u64::from_be_bytes(id.0) == expected
    }

    /// Seconds from the age limit of an id to the latest time at which it may have been made.
    fn oldest_margin(&self) -> u32 {
        // Another node's clock may be ahead of this one, or behind it.
        if self.cluster.is_some() { 2 * self.tolerance } else { self.tolerance }
    }

    fn hasher(&self, made: u32) -> &SipHasher24 {
        let Some(keys) = &self.cluster else { return &self.hasher };
        match (made / DAY).cmp(&keys.today) {
            Ordering::Less => &keys.yesterday,
            Ordering::Equal => &self.hasher,
            Ordering::Greater => &keys.tomorrow,
        }
    }

    fn bytes(&self, ip: IpAddr, made: u32) -> [u8; 8] {
        let hasher = self.hasher(made);
        let mac = match ip {
            IpAddr::V4(ip) => hasher.hash(&(u64::from(made) << 32 | u64::from(u32::from(ip))).to_be_bytes()),
            IpAddr::V6(ip) => {
                let mut bytes = [0; 20];
                bytes[..16].copy_from_slice(&ip.octets());
                bytes[16..].copy_from_slice(&made.to_be_bytes());
                hasher.hash(&bytes)
            }
        };
        (u64::from(made as u16) << 48 | mac >> 16).to_be_bytes()
    }
}

impl UdpService {
    /// Makes and accepts the connection ids of a cluster, all of whose nodes have this secret.
    #[must_use]
    pub fn in_cluster(mut self, max_connection_age: u32, secret: &[u8; 32]) -> Self {
        self.ids = ConnectionIds::of_cluster(max_connection_age, *secret);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: u32 = 120;

    fn ids(seed: u8) -> ConnectionIds {
        ConnectionIds::new(MAX_AGE, [seed; 16])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn valid_until_the_age_is_reached() {
        let ids = ids(1);
        for client in [ip("192.0.2.1"), ip("2001:db8::1")] {
            for start in [0, 1, 65_500, 65_536, 1_000_000] {
                let id = ids.make(client, Seconds(start));
                assert!(ids.is_valid(id, client, Seconds(start)));
                assert!(ids.is_valid(id, client, Seconds(start + MAX_AGE)));
                assert!(!ids.is_valid(id, client, Seconds(start + MAX_AGE + 1)));
                assert!(!ids.is_valid(id, client, Seconds(start + 65_536)), "times must not come round");
            }
        }
    }

    #[test]
    fn other_cores_clocks_may_differ_a_little() {
        let ids = ids(1);
        let id = ids.make(ip("192.0.2.1"), Seconds(CLOCK_TOLERANCE));
        assert!(ids.is_valid(id, ip("192.0.2.1"), Seconds(0)));
        let id = ids.make(ip("192.0.2.1"), Seconds(CLOCK_TOLERANCE + 1));
        assert!(!ids.is_valid(id, ip("192.0.2.1"), Seconds(0)));
    }

    #[test]
    fn bound_to_address_and_secret() {
        let id = ids(1).make(ip("192.0.2.1"), Seconds(9));
        assert!(!ids(1).is_valid(id, ip("192.0.2.2"), Seconds(9)));
        assert!(!ids(2).is_valid(id, ip("192.0.2.1"), Seconds(9)));
    }

    #[test]
    fn nodes_of_a_cluster_accept_each_others_ids() {
        let client = ip("192.0.2.1");
        let midnight = 20_000 * i64::from(DAY);
        for made_at in [midnight - 1, midnight, midnight + 40_000] {
            for skew in [-300, 0, 300] {
                let (mut one, mut other) = (
                    ConnectionIds::of_cluster(MAX_AGE, [1; 32]),
                    ConnectionIds::of_cluster(MAX_AGE, [1; 32]),
                );
                // The nodes have been started at different times.
                one.follow_calendar(Seconds(7), made_at);
                other.follow_calendar(Seconds(5000), made_at + skew);
                let id = one.make(client, Seconds(7));
                assert!(one.is_valid(id, client, Seconds(7)));
                let after = |seconds: i64| {
                    let mut other = other.clone();
                    other.follow_calendar(Seconds(5000), made_at + skew + seconds);
                    other.is_valid(id, client, Seconds(5000))
                };
                assert!(after(0) && after(i64::from(MAX_AGE)), "{made_at} {skew}");
                assert!(!after(i64::from(MAX_AGE) + 609), "{made_at} {skew}");
                assert!(
                    other.is_valid(id, client, Seconds(5000 + MAX_AGE)),
                    "without a look at the calendar"
                );
                assert!(!other.is_valid(id, ip("192.0.2.2"), Seconds(5000)));
                let mut foreign = ConnectionIds::of_cluster(MAX_AGE, [2; 32]);
                foreign.follow_calendar(Seconds(7), made_at);
                assert!(!foreign.is_valid(id, client, Seconds(7)));
            }
        }
    }

    #[test]
    fn keys_change_every_day_and_calendars_may_be_wrong() {
        let client = ip("192.0.2.1");
        let mut ids = ConnectionIds::of_cluster(MAX_AGE, [1; 32]);
        for calendar in [i64::MIN, -1, 0, i64::from(u32::MAX), i64::MAX] {
            ids.follow_calendar(Seconds(3), calendar);
            assert!(ids.is_valid(ids.make(client, Seconds(3)), client, Seconds(3)), "{calendar}");
        }
        let mac = |ids: &mut ConnectionIds, day: i64| {
            // The same low bits of the time, so that the key is all that differs.
            ids.follow_calendar(Seconds(0), day * i64::from(DAY));
            ids.hasher.hash(b"x")
        };
        assert_ne!(mac(&mut ids, 20_000), mac(&mut ids, 20_001));
        assert!(ids.uses_calendar() && !self::ids(1).uses_calendar());
    }

    #[test]
    fn every_bit_counts() {
        let ids = ids(1);
        let id = u64::from_be_bytes(ids.make(ip("192.0.2.1"), Seconds(9)).0);
        for bit in 0..64 {
            let forged = ConnectionId((id ^ 1 << bit).to_be_bytes());
            assert!(!ids.is_valid(forged, ip("192.0.2.1"), Seconds(9)), "bit {bit}");
        }
    }
}
