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

/// Decoded payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content<P> {
    /// The only peer of the torrent.
    One(P),
    /// A list in a block of the slab.
    List { block: u32, order: PeerOrder },
    /// The number of a large swarm.
    Large(u32),
}

impl<P: Copy> Content<P> {
    /// Decodes a payload. The block or number is in the upper 32 bits. Bits 8 to 15 are the length of a list
    /// and bits 0 to 7 the number of its seeders; a length of 0 marks a large swarm.
    #[inline]
    pub(crate) fn from_payload<K: PeerFormat<Peer = P>>(payload: u64) -> Self {
        if let Some(peer) = K::from_payload(payload) {
            return Self::One(peer);
        }
        let handle = (payload >> 32) as u32;
        match (payload >> 8 & 0xff) as u32 {
            0 => Self::Large(handle),
            len => Self::List { block: handle, order: PeerOrder { seeders: (payload & 0xff) as u32, len } },
        }
    }

    /// Encodes a list. A single peer is encoded by [`PeerFormat::to_payload`].
    pub(crate) fn list(block: u32, order: PeerOrder) -> u64 {
        debug_assert!(order.len >= 1 && order.len <= LIST_MAX && order.seeders <= order.len);
        u64::from(block) << 32 | u64::from(order.len) << 8 | u64::from(order.seeders)
    }

    pub(crate) fn large(number: u32) -> u64 {
        u64::from(number) << 32
    }
}

const _: () = assert!(PAYLOAD_TAG == 0xffff << 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer_format::{V4, V6};

    #[test]
    fn payloads_round_trip() {
        let order = PeerOrder { seeders: 3, len: LIST_MAX };
        for block in [0, 1, u32::MAX] {
            let list = Content::<u64>::list(block, order);
            assert_eq!(Content::from_payload::<V4>(list), Content::List { block, order });
            assert_eq!(Content::from_payload::<V6>(list), Content::List { block, order });
            assert_eq!(Content::from_payload::<V4>(Content::<u64>::large(block)), Content::Large(block));
        }
        let peer = 0xffff_ffff_0001_0000;
        assert_eq!(Content::from_payload::<V4>(peer), Content::One(peer));
    }
}
