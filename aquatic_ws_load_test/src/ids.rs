//! Peer ids and offer ids. They encode the connection or the offer, so a relay can be verified where it
//! arrives.

use aquatic_common::PeerId;
use aquatic_load_engine::rng::mix;

/// Prefix of peer ids of WebTorrent clients. The four digits of their version identify the test here, so that
/// peers of an earlier test are recognised.
const PREFIX: &[u8; 3] = b"-WW";
/// Hexadecimal digits of the connection, and of the generation.
const DIGITS: usize = 6;
/// Largest number with these digits.
const MASK: u32 = (1 << (4 * DIGITS)) - 1;

/// Peer id of a connection and its generation.
pub(crate) fn peer_id(seed: u64, connection: u32, generation: u32) -> PeerId {
    let mut id = [b'-'; 20];
    id[..3].copy_from_slice(PREFIX);
    write_hex(&mut id[3..7], seed);
    write_hex(&mut id[8..8 + DIGITS], connection.into());
    write_hex(&mut id[8 + DIGITS..], (generation & MASK).into());
    PeerId(id)
}

/// Connection of a peer id.
pub(crate) fn connection_of(seed: u64, peer: &PeerId) -> Option<u32> {
    let mut test = [0; 4];
    write_hex(&mut test, seed);
    let digits = peer.0.strip_prefix(PREFIX)?.strip_prefix(&test)?.strip_prefix(b"-")?;
    let (connection, generation) = digits.split_at_checked(DIGITS)?;
    read_hex(generation)?;
    u32::try_from(read_hex(connection)?).ok()
}

/// Writes the last hexadecimal digits of a number, as many as fit.
pub(crate) fn write_hex(out: &mut [u8], number: u64) {
    let width = out.len();
    for (index, digit) in out.iter_mut().enumerate() {
        let nibble = (number >> (4 * (width - 1 - index))) as usize & 15;
        *digit = b"0123456789abcdef"[nibble];
    }
}

/// Parses up to sixteen lower-case hexadecimal digits.
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

/// Identity of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferKey {
    /// Connection that made the offer.
    pub(crate) connection: u32,
    /// Sequence number of the offer on its connection, from 1.
    pub(crate) sequence: u32,
    /// Position among the offers of the announce, from 0, and their number.
    pub(crate) position: u8,
    pub(crate) count: u8,
    /// Membership of the connection in the torrent.
    pub(crate) membership: u8,
}

impl OfferKey {
    /// Offer id: twenty bytes that look random, as those of clients.
    pub(crate) fn id(self, seed: u64) -> [u8; 20] {
        let source = u64::from(self.connection) << 32 | u64::from(self.sequence);
        let position_bits = u32::from_be_bytes([0, self.membership, self.count, self.position]);
        let tag = tag(seed, source, position_bits);
        let (source_mask, position_mask) = masks(tag);
        let mut id = [0; 20];
        id[..8].copy_from_slice(&tag.to_be_bytes());
        id[8..16].copy_from_slice(&(source ^ source_mask).to_be_bytes());
        id[16..].copy_from_slice(&(position_bits ^ position_mask).to_be_bytes());
        id
    }

    /// Decodes an offer id of this test.
    pub(crate) fn of(id: &[u8; 20], seed: u64) -> Option<Self> {
        let (first, rest) = id.split_first_chunk()?;
        let (second, third) = rest.split_first_chunk()?;
        let found = u64::from_be_bytes(*first);
        let (source_mask, position_mask) = masks(found);
        let source = u64::from_be_bytes(*second) ^ source_mask;
        let position_bits = u32::from_be_bytes(third.try_into().ok()?) ^ position_mask;
        let [_, membership, count, position] = position_bits.to_be_bytes();
        // Both halves have 32 bits.
        let (connection, sequence) = ((source >> 32) as u32, source as u32);
        let name = Self { connection, sequence, position, count, membership };
        (found == tag(seed, source, position_bits)).then_some(name)
    }
}

fn tag(seed: u64, source: u64, position_bits: u32) -> u64 {
    mix(seed ^ mix(source ^ mix(position_bits.into())))
}

fn masks(tag: u64) -> (u64, u32) {
    (mix(tag), mix(!tag) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_decoded_from_peer_ids() {
        for (connection, generation) in [(0, 0), (1, 5), (999_999, 0x01_23_45_67)] {
            assert_eq!(connection_of(3, &peer_id(3, connection, generation)), Some(connection));
        }
        assert_ne!(peer_id(1, 7, 1), peer_id(1, 7, 2));
        assert_eq!(peer_id(0x5_1a2b, 0xabc, 1).0, *b"-WW1a2b-000abc000001");
        for other in [
            *b"-WW0101-000abc000001",
            *b"-WX0100-000abc000001",
            *b"-WW0100-000Abc000001",
            *b"-WW0100-000abc00000x",
        ] {
            assert_eq!(connection_of(0x100, &PeerId(other)), None);
        }
    }

    #[test]
    fn offers_are_decoded_from_offer_ids() {
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
