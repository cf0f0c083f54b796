//! Representation of a peer in each address family.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::crowd::PeerHasher;
use crate::slab::Unit;
use crate::tick::Stamp;
use aquatic_common::Family;

/// Representation of the peers of one address family. A peer consists of its key (address and port) and its
/// stamp.
pub(crate) trait PeerFormat: Copy + Debug {
    /// Bytes per peer in a reply.
    const WIRE_SIZE: usize;
    const FAMILY: Family;
    type Peer: Unit + PartialEq + Debug;

    /// Returns the same peer with another stamp.
    fn with_stamp(peer: Self::Peer, stamp: Stamp) -> Self::Peer;
    fn stamp(peer: Self::Peer) -> Stamp;
    /// Returns a known peer with the stamp of another announce, which keeps whether its completion was
    /// counted.
    #[inline]
    fn restamped(peer: Self::Peer, stamp: Stamp) -> Self::Peer {
        let (stamp, _) = stamp.after(Self::stamp(peer));
        Self::with_stamp(peer, stamp)
    }
    fn same_key(a: Self::Peer, b: Self::Peer) -> bool;
    /// Returns the hash of the peer's network and its group in it.
    fn hash(peer: Self::Peer, hasher: &PeerHasher) -> u64;
    /// Returns the address (IPv4) or /64 network (IPv6), all of whose peers may be one host's.
    fn network(peer: Self::Peer) -> u64;
    /// Returns a number, spread over all 16 bits, by which the peers of a network are divided into groups.
    fn spread(peer: Self::Peer) -> u16;
    fn address(peer: Self::Peer) -> SocketAddr;
    /// Writes the peer to the front of `out`, which must be large enough.
    fn write(peer: Self::Peer, out: &mut [u8]);

    /// Writes peers one after the other, as far as they fit.
    #[inline]
    fn write_all(peers: &[Self::Peer], out: &mut [u8]) {
        for (peer, slot) in peers.iter().zip(out.chunks_exact_mut(Self::WIRE_SIZE)) {
            Self::write(*peer, slot);
        }
    }

    /// Returns the peer as the payload of a torrent entry, if it fits into one.
    fn to_payload(peer: Self::Peer) -> Option<u64>;
    /// Returns the peer in a payload, or `None` if the payload is something else. Payloads other than peers
    /// have zeros in the bits of [`PAYLOAD_TAG`].
    fn from_payload(payload: u64) -> Option<Self::Peer>;

    /// Returns the position of the peer with this key.
    fn position(peers: &[Self::Peer], peer: Self::Peer) -> Option<usize> {
        peers.iter().position(|&other| Self::same_key(other, peer))
    }

    /// Returns the number of peers of the network of a peer.
    fn of_network(peers: &[Self::Peer], peer: Self::Peer) -> u32 {
        let network = Self::network(peer);
        peers.iter().map(|other| u32::from(Self::network(*other) == network)).sum()
    }
}

/// Odd multiplier whose products with consecutive ports differ in the upper bits.
const SPREAD_PORT: u32 = 0x85eb_ca6b;
/// The same for interface ids.
const SPREAD_INTERFACE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The bits that distinguish a peer from other payloads: the port, which is never 0.
pub(crate) const PAYLOAD_TAG: u64 = 0xffff_0000;

/// IPv4 peers, 8 bytes: 32 bits of address, 16 of port and 16 of stamp, from the most significant bit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V4;

impl V4 {
    pub(crate) fn peer(ip: Ipv4Addr, port: u16, stamp: Stamp) -> u64 {
        u64::from(ip.to_bits()) << 32 | u64::from(port) << 16 | u64::from(stamp.0)
    }
}

impl PeerFormat for V4 {
    const WIRE_SIZE: usize = 6;
    const FAMILY: Family = Family::V4;
    type Peer = u64;

    #[inline]
    fn with_stamp(peer: u64, stamp: Stamp) -> u64 {
        peer & !0xffff | u64::from(stamp.0)
    }

    #[inline]
    fn stamp(peer: u64) -> Stamp {
        Stamp((peer & 0xffff) as u16)
    }

    #[inline]
    fn same_key(a: u64, b: u64) -> bool {
        (a ^ b) >> 16 == 0
    }

    fn hash(peer: u64, hasher: &PeerHasher) -> u64 {
        let [a, b, c, d, ..] = peer.to_be_bytes();
        let [e, f] = hasher.groups.of::<Self>(peer).to_be_bytes();
        hasher.sip.hash(&[a, b, c, d, e, f])
    }

    #[inline]
    fn network(peer: u64) -> u64 {
        peer >> 32
    }

    #[inline]
    fn spread(peer: u64) -> u16 {
        let port = (peer >> 16 & 0xffff) as u32;
        (port.wrapping_mul(SPREAD_PORT) >> 16) as u16
    }

    fn address(peer: u64) -> SocketAddr {
        let ip = Ipv4Addr::from_bits((peer >> 32) as u32);
        SocketAddr::from((ip, (peer >> 16 & 0xffff) as u16))
    }

    #[inline]
    fn write(peer: u64, out: &mut [u8]) {
        out[..6].copy_from_slice(&peer.to_be_bytes()[..6]);
    }

    #[inline]
    fn to_payload(peer: u64) -> Option<u64> {
        Some(peer)
    }

    #[inline]
    fn from_payload(payload: u64) -> Option<u64> {
        (payload & PAYLOAD_TAG != 0).then_some(payload)
    }

    /// Most lists are short. Long ones are first searched in runs that compile to vector code.
    fn position(peers: &[u64], peer: u64) -> Option<usize> {
        const RUN: usize = 16;
        let (runs, rest) = peers.as_chunks::<RUN>();
        for (at, run) in runs.iter().enumerate() {
            if run.iter().fold(false, |found, &other| found | ((other ^ peer) >> 16 == 0)) {
                let within = run.iter().position(|&other| Self::same_key(other, peer))?;
                return Some(at * RUN + within);
            }
        }
        let within = rest.iter().position(|&other| Self::same_key(other, peer))?;
        Some(runs.len() * RUN + within)
    }
}

/// IPv6 peers, 20 bytes: 16 of address, 2 of port in network order, 2 of stamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V6;

impl V6 {
    pub(crate) fn peer(ip: Ipv6Addr, port: u16, stamp: Stamp) -> [u8; 20] {
        let mut peer = [0; 20];
        peer[..16].copy_from_slice(&ip.octets());
        peer[16..18].copy_from_slice(&port.to_be_bytes());
        Self::with_stamp(peer, stamp)
    }
}

impl PeerFormat for V6 {
    const WIRE_SIZE: usize = 18;
    const FAMILY: Family = Family::V6;
    type Peer = [u8; 20];

    #[inline]
    fn with_stamp(mut peer: [u8; 20], stamp: Stamp) -> [u8; 20] {
        peer[18..].copy_from_slice(&stamp.0.to_le_bytes());
        peer
    }

    #[inline]
    fn stamp(peer: [u8; 20]) -> Stamp {
        Stamp(u16::from_le_bytes([peer[18], peer[19]]))
    }

    #[inline]
    fn same_key(a: [u8; 20], b: [u8; 20]) -> bool {
        a[..18] == b[..18]
    }

    fn hash(peer: [u8; 20], hasher: &PeerHasher) -> u64 {
        let mut input = [0; 10];
        input[..8].copy_from_slice(&peer[..8]);
        input[8..].copy_from_slice(&hasher.groups.of::<Self>(peer).to_be_bytes());
        hasher.sip.hash(&input)
    }

    #[inline]
    fn network(peer: [u8; 20]) -> u64 {
        let [network @ .., _, _, _, _, _, _, _, _, _, _, _, _] = peer;
        u64::from_be_bytes(network)
    }

    #[inline]
    fn spread(peer: [u8; 20]) -> u16 {
        let [_, _, _, _, _, _, _, _, interface @ .., p, q, _, _] = peer;
        let interface = u64::from_be_bytes(interface).wrapping_mul(SPREAD_INTERFACE) >> 32;
        let port = u32::from(u16::from_be_bytes([p, q]));
        // Lossless: 32 bits are left of the interface id.
        ((interface as u32).wrapping_add(port).wrapping_mul(SPREAD_PORT) >> 16) as u16
    }

    fn address(peer: [u8; 20]) -> SocketAddr {
        let mut ip = [0; 16];
        ip.copy_from_slice(&peer[..16]);
        SocketAddr::from((ip, u16::from_be_bytes([peer[16], peer[17]])))
    }

    #[inline]
    fn write(peer: [u8; 20], out: &mut [u8]) {
        out[..18].copy_from_slice(&peer[..18]);
    }

    #[inline]
    fn to_payload(_peer: [u8; 20]) -> Option<u64> {
        None
    }

    #[inline]
    fn from_payload(_payload: u64) -> Option<[u8; 20]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::Seconds;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::crowd::Groups;
    use crate::tick::Tick;

    #[test]
    fn replies_are_in_network_order() {
        let stamp = Stamp::new(Tick::at(Seconds(800)), true);
        let mut out = [0; 18];
        V4::write(V4::peer(Ipv4Addr::new(192, 0, 2, 7), 0x1ae1, stamp), &mut out);
        assert_eq!(out[..6], [192, 0, 2, 7, 0x1a, 0xe1]);
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
        V6::write(V6::peer(ip, 0x1ae1, stamp), &mut out);
        assert_eq!(out[..4], [0x20, 1, 0xd, 0xb8]);
        assert_eq!(out[15..], [9, 0x1a, 0xe1]);
    }

    fn stamps_do_not_change_keys<K: PeerFormat>(peer: K::Peer) {
        let (early, late) =
            (Stamp::new(Tick::at(Seconds(8)), false), Stamp::new(Tick::at(Seconds(16)), true));
        let (a, b) = (K::with_stamp(peer, early), K::with_stamp(peer, late));
        assert!(K::same_key(a, b) && a != b);
        assert_eq!((K::stamp(a), K::stamp(b)), (early, late));
        let hasher = PeerHasher { sip: SipHasher13::new_with_keys(1, 2), groups: Groups::new(512) };
        assert_eq!(K::hash(a, &hasher), K::hash(b, &hasher));
        assert_eq!(K::to_payload(a).and_then(K::from_payload), K::to_payload(a).map(|_| a));
        assert_eq!(K::from_payload(!PAYLOAD_TAG), None);
    }

    #[test]
    fn stamps_do_not_change_keys_in_both_families() {
        let none = Stamp(0);
        stamps_do_not_change_keys::<V4>(V4::peer(Ipv4Addr::new(0, 0, 0, 0), 1, none));
        stamps_do_not_change_keys::<V4>(V4::peer(Ipv4Addr::new(255, 255, 255, 255), 65_535, none));
        stamps_do_not_change_keys::<V6>(V6::peer(Ipv6Addr::LOCALHOST, 1, none));
    }

    #[test]
    fn peers_are_found_anywhere_in_long_lists() {
        let peers: Vec<u64> = (0..100).map(|i| V4::peer(Ipv4Addr::from_bits(i * 3), 9, Stamp(5))).collect();
        for (at, &peer) in peers.iter().enumerate() {
            assert_eq!(V4::position(&peers, V4::with_stamp(peer, Stamp(77))), Some(at));
        }
        assert_eq!(V4::position(&peers, V4::peer(Ipv4Addr::from_bits(1), 9, Stamp(5))), None);
    }
}
