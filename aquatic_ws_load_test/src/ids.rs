//! Names that say whose they are: from a peer id follows the connection, from an offer id the offer. So a relay can be
//! checked where it arrives, without asking whoever sent it.

use aquatic_common::PeerId;
use aquatic_load_engine::rng::mix;

/// What the peer ids of clients of the Web begin with. Four digits follow, for their version; here they are for the test,
/// so that those of one test are not taken for those of the one before.
const PREFIX: &[u8; 3] = b"-WW";
/// Digits for the connection, and for how many had its place before.
const DIGITS: usize = 6;
/// What fits into these digits.
const MASK: u32 = (1 << (4 * DIGITS)) - 1;

/// The name of the peer in a place for connections, when so many had that place before.
pub(crate) fn peer_id(seed: u64, connection: u32, generation: u32) -> PeerId {
    let mut id = [b'-'; 20];
    id[..3].copy_from_slice(PREFIX);
    write_hex(&mut id[3..7], seed);
    write_hex(&mut id[8..8 + DIGITS], connection.into());
    write_hex(&mut id[8 + DIGITS..], (generation & MASK).into());
    PeerId(id)
}

/// The place for connections that a peer is or was in.
pub(crate) fn connection_of(seed: u64, peer: &PeerId) -> Option<u32> {
    let mut test = [0; 4];
    write_hex(&mut test, seed);
    let digits = peer.0.strip_prefix(PREFIX)?.strip_prefix(&test)?.strip_prefix(b"-")?;
    let (connection, generation) = digits.split_at_checked(DIGITS)?;
    read_hex(generation)?;
    u32::try_from(read_hex(connection)?).ok()
}

/// Writes as many hexadecimal digits as there is room for, the last ones.
pub(crate) fn write_hex(out: &mut [u8], number: u64) {
    let places = out.len();
    for (place, digit) in out.iter_mut().enumerate() {
        let nibble = (number >> (4 * (places - 1 - place))) as usize & 15;
        *digit = b"0123456789abcdef"[nibble];
    }
}

/// Reads hexadecimal digits in lower case, up to sixteen.
pub(crate) fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// Which offer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferKey {
    /// Who made it.
    pub(crate) connection: u32,
    /// Counts the offers of a place for connections, from 1.
    pub(crate) sequence: u32,
    /// Its place among the offers of the announce, from 0, and how many these are.
    pub(crate) position: u8,
    pub(crate) count: u8,
    /// Which of the torrents of the connection it is for.
    pub(crate) membership: u8,
}

impl OfferKey {
    /// Twenty bytes that look random, as those that clients choose do.
    pub(crate) fn id(self, seed: u64) -> [u8; 20] {
        let who = u64::from(self.connection) << 32 | u64::from(self.sequence);
        let place = u32::from_be_bytes([0, self.membership, self.count, self.position]);
        let tag = tag(seed, who, place);
        let (who_mask, place_mask) = masks(tag);
        let mut id = [0; 20];
        id[..8].copy_from_slice(&tag.to_be_bytes());
        id[8..16].copy_from_slice(&(who ^ who_mask).to_be_bytes());
        id[16..].copy_from_slice(&(place ^ place_mask).to_be_bytes());
        id
    }

    /// The offer of this id, if it is one of this test.
    pub(crate) fn of(id: &[u8; 20], seed: u64) -> Option<Self> {
        let (first, rest) = id.split_first_chunk()?;
        let (second, third) = rest.split_first_chunk()?;
        let found = u64::from_be_bytes(*first);
        let (who_mask, place_mask) = masks(found);
        let who = u64::from_be_bytes(*second) ^ who_mask;
        let place = u32::from_be_bytes(third.try_into().ok()?) ^ place_mask;
        let [_, membership, count, position] = place.to_be_bytes();
        // Both halves fit.
        let (connection, sequence) = ((who >> 32) as u32, who as u32);
        let name = Self { connection, sequence, position, count, membership };
        (found == tag(seed, who, place)).then_some(name)
    }
}

fn tag(seed: u64, who: u64, place: u32) -> u64 {
    mix(seed ^ mix(who ^ mix(place.into())))
}

fn masks(tag: u64) -> (u64, u32) {
    (mix(tag), mix(!tag) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_by_their_ids() {
        for (connection, generation) in [(0, 0), (1, 5), (999_999, 0x01_23_45_67)] {
            assert_eq!(connection_of(3, &peer_id(3, connection, generation)), Some(connection));
        }
        assert_ne!(peer_id(1, 7, 1), peer_id(1, 7, 2));
        assert_eq!(peer_id(0x5_1a2b, 0xabc, 1).0, *b"-WW1a2b-000abc000001");
        for stranger in [
            *b"-WW0101-000abc000001",
            *b"-WX0100-000abc000001",
            *b"-WW0100-000Abc000001",
            *b"-WW0100-000abc00000x",
        ] {
            assert_eq!(connection_of(0x100, &PeerId(stranger)), None);
        }
    }

    #[test]
    fn offers_are_known_by_their_ids() {
        let name =
            OfferKey { connection: 999_999, sequence: u32::MAX, position: 4, count: 5, membership: 99 };
        let id = name.id(3);
        assert_eq!(OfferKey::of(&id, 3), Some(name));
        assert_eq!(OfferKey::of(&id, 4), None);
        for byte in 0..20 {
            let mut forged = id;
            forged[byte] ^= 1;
            assert_eq!(OfferKey::of(&forged, 3), None, "{byte}");
        }
        let next = OfferKey { sequence: 1, ..name }.id(3);
        assert!(id.iter().zip(next).filter(|(a, b)| **a == *b).count() < 5, "they look random");
    }
}
