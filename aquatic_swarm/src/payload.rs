//! The 8-byte payload of a torrent entry, which holds or refers to its peers.

use crate::order::PeerOrder;
use crate::peer_format::{PAYLOAD_TAG, PeerFormat};
use crate::slab::class_by_len;

/// Maximum length of a list, which is searched linearly. Torrents with more peers become large swarms.
pub(crate) const LIST_MAX: u32 = 128;
/// A large swarm that shrinks to this size becomes a list. The distance to [`LIST_MAX`] prevents frequent
/// conversions.
pub(crate) const LARGE_TO_LIST: u32 = 80;

/// Peers per block, by size class.
pub(crate) const CAPACITIES: [u16; 30] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96,
    112, 128,
];
const CLASS: [u8; 256] = class_by_len(&CAPACITIES);

const _: () = assert!(LIST_MAX < 256 && CAPACITIES[CAPACITIES.len() - 1] == LIST_MAX as u16);

/// Returns the size class for a list of a length from 1 to [`LIST_MAX`].
pub(crate) fn class_of(len: u32) -> usize {
    CLASS[len as usize] as usize
}

const LARGE: u64 = 0xff;
const CROWDED: u64 = 1 << 15;

const _: () = assert!(LIST_MAX as u64 - 1 <= 0x7f && (LIST_MAX as u64) < LARGE);

const _: () = assert!(size_of::<Content<u64>>() == 16, "to be returned in registers");

/// Decoded payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content<P> {
    /// The only peer of the torrent.
    One(P),
    /// A list in a block of the slab, and whether it is crowded, see `crowd.rs`.
    List { block: u32, order: PeerOrder, crowded: bool },
    /// The number of a large swarm.
    Large(u32),
}

impl<P: Copy> Content<P> {
    /// Decodes a payload. The block or number is in the upper 32 bits. Of a list, bit 15 is set if it is
    /// crowded, bits 8 to 14 are its length minus one, and bits 0 to 7 the number of its seeders. A number of
    /// seeders that no list has marks a large swarm.
    #[inline]
    pub(crate) fn from_payload<K: PeerFormat<Peer = P>>(payload: u64) -> Self {
        if let Some(peer) = K::from_payload(payload) {
            return Self::One(peer);
        }
        let handle = (payload >> 32) as u32;
        match payload & 0xff {
            LARGE => Self::Large(handle),
            seeders => {
                let (len, crowded) = ((payload >> 8 & 0x7f) as u32 + 1, payload & CROWDED != 0);
                Self::List { block: handle, order: PeerOrder { seeders: seeders as u32, len }, crowded }
            }
        }
    }

    /// Encodes a list. A single peer is encoded by [`PeerFormat::to_payload`].
    pub(crate) fn list(block: u32, order: PeerOrder, crowded: bool) -> u64 {
        debug_assert!(order.len >= 1 && order.len <= LIST_MAX && order.seeders <= order.len);
        let crowded = if crowded { CROWDED } else { 0 };
        u64::from(block) << 32 | crowded | u64::from(order.len - 1) << 8 | u64::from(order.seeders)
    }

    pub(crate) fn large(number: u32) -> u64 {
        u64::from(number) << 32 | LARGE
    }
}

const _: () = assert!(PAYLOAD_TAG == 0xffff << 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer_format::{V4, V6};

    #[test]
    fn payloads_round_trip() {
        for block in [0, 1, u32::MAX] {
            for (seeders, len) in [(0, 1), (1, 1), (3, LIST_MAX), (LIST_MAX, LIST_MAX)] {
                for crowded in [false, true] {
                    let order = PeerOrder { seeders, len };
                    let list = Content::<u64>::list(block, order, crowded);
                    assert_eq!(Content::from_payload::<V4>(list), Content::List { block, order, crowded });
                    assert_eq!(Content::from_payload::<V6>(list), Content::List { block, order, crowded });
                }
            }
            assert_eq!(Content::from_payload::<V4>(Content::<u64>::large(block)), Content::Large(block));
        }
        let peer = 0xffff_ffff_0001_0000;
        assert_eq!(Content::from_payload::<V4>(peer), Content::One(peer));
    }
}
