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

use std::net::IpAddr;

use aquatic_common::Seconds;
use aquatic_udp_protocol::ConnectionId;
use siphasher::sip::SipHasher24;

/// Cores read their clocks at slightly different times: an id may be this much younger than now.
const CLOCK_TOLERANCE: u32 = 4;

/// Makes and checks connection ids. Cores hold copies of one.
#[derive(Clone)]
pub struct ConnectionIds {
    hasher: SipHasher24,
    max_age: u32,
}

impl ConnectionIds {
    /// Ids under this key that are valid for `max_age` seconds, at most about nine hours.
    #[must_use]
    pub fn new(max_age: u32, secret: [u8; 16]) -> Self {
        Self { hasher: SipHasher24::new_with_key(&secret), max_age: max_age.min(u32::from(u16::MAX) / 2) }
    }

    /// The id of a client, as of now.
    #[must_use]
    pub fn make(&self, ip: IpAddr, now: Seconds) -> ConnectionId {
        ConnectionId(self.bytes(ip, now.0))
    }

    /// Whether this tracker gave the id to the owner of this address recently enough.
    #[must_use]
    pub fn is_valid(&self, id: ConnectionId, ip: IpAddr, now: Seconds) -> bool {
        let [high, low, ..] = id.0;
        let made = u16::from_be_bytes([high, low]);
        // The id holds the low bits of its time; the age, being short, gives back the rest.
        let latest = now.0.wrapping_add(CLOCK_TOLERANCE);
        let age = u32::from((latest as u16).wrapping_sub(made));
        if age > self.max_age + CLOCK_TOLERANCE {
            return false;
        }
        let expected = u64::from_be_bytes(self.bytes(ip, latest.wrapping_sub(age)));
        // One comparison of registers takes the same time wherever the bits differ.
        u64::from_be_bytes(id.0) == expected
    }

    fn bytes(&self, ip: IpAddr, made: u32) -> [u8; 8] {
        let mac = match ip {
            IpAddr::V4(ip) => {
                self.hasher.hash(&(u64::from(made) << 32 | u64::from(u32::from(ip))).to_be_bytes())
            }
            IpAddr::V6(ip) => {
                let mut bytes = [0; 20];
                bytes[..16].copy_from_slice(&ip.octets());
                bytes[16..].copy_from_slice(&made.to_be_bytes());
                self.hasher.hash(&bytes)
            }
        };
        (u64::from(made as u16) << 48 | mac >> 16).to_be_bytes()
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
    fn every_bit_counts() {
        let ids = ids(1);
        let id = u64::from_be_bytes(ids.make(ip("192.0.2.1"), Seconds(9)).0);
        for bit in 0..64 {
            let forged = ConnectionId((id ^ 1 << bit).to_be_bytes());
            assert!(!ids.is_valid(forged, ip("192.0.2.1"), Seconds(9)), "bit {bit}");
        }
    }
}
