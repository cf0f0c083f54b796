//! Ethernet frames with UDP over IP: where a datagram is in a frame, and how the frame becomes one with the
//! reply. Pure.
//!
//! Only what is plain is taken: up to two VLAN tags, IPv4 without options and fragments, IPv6 without
//! extension headers. The checksums of received frames are not verified: a sender on this machine has left
//! them to a network card that does not exist. Those of replies are all computed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::Family;

/// Length of an Ethernet header without VLAN tags.
pub const ETHERNET: usize = 14;
/// Length of a VLAN tag.
pub const TAG: usize = 4;
/// Maximum number of VLAN tags.
pub const MAX_TAGS: usize = 2;
/// Length of an IPv4 header without options.
pub const V4: usize = 20;
/// Length of an IPv6 header without extensions.
pub const V6: usize = 40;
/// Length of a UDP header.
pub const UDP: usize = 8;
/// Maximum length of everything in front of a payload.
pub const MAX_HEADERS: usize = ETHERNET + MAX_TAGS * TAG + V6 + UDP;
/// Maximum length of a frame that is taken. A buffer of 2,048 bytes has 256 in front of the frame for the
/// kernel.
pub const MAX_FRAME: usize = 2048 - 256;

/// Time to live of replies: the default of Linux.
const HOPS: u8 = 64;

/// Where a datagram is in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Family of the addresses.
    pub family: Family,
    /// Offset of the IP header.
    pub network: usize,
    /// Offset of the payload.
    pub payload: usize,
    /// Length of the payload.
    pub length: usize,
}

/// A datagram in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it is.
    pub layout: Layout,
    /// Who sent it.
    pub source: SocketAddr,
    /// The address and port that it was sent to.
    pub local: SocketAddr,
}

/// Finds the datagram in a frame; `None` if there is none, or one that is not taken.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Datagram> {
    let (network, ethertype) = find_network(frame)?;
    let packet = frame.get(network..)?;
    let (family, source, local, header) = match ethertype {
        0x0800 => {
            let (source, local) = parse_v4(packet)?;
            (Family::V4, source, local, V4)
        }
        0x86dd => {
            let (source, local) = parse_v6(packet)?;
            (Family::V6, source, local, V6)
        }
        _ => return None,
    };
    let udp: &[u8; UDP] = packet.get(header..)?.first_chunk()?;
    let [source_high, source_low, local_high, local_low, length_high, length_low, ..] = *udp;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if header + length != packet_length(packet, family)? || packet.len() < header + length {
        return None;
    }
    let layout =
        Layout { family, network, payload: network + header + UDP, length: length.checked_sub(UDP)? };
    Some(Datagram {
        layout,
        source: SocketAddr::new(source, u16::from_be_bytes([source_high, source_low])),
        local: SocketAddr::new(local, u16::from_be_bytes([local_high, local_low])),
    })
}

/// Offset of the IP header, and the type of what is there.
fn find_network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = ETHERNET - 2;
    for tags in 0..=MAX_TAGS {
        let ethertype = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
        let is_tag = matches!(ethertype, 0x8100 | 0x88a8);
        if !is_tag {
            return Some((at + 2, ethertype));
        }
        if tags == MAX_TAGS {
            return None;
        }
        at += TAG;
    }
    None
}

/// Length of the whole IP packet, as its header tells.
fn packet_length(packet: &[u8], family: Family) -> Option<usize> {
    let (at, header) = match family {
        Family::V4 => (2, 0),
        Family::V6 => (4, V6),
    };
    let bytes: [u8; 2] = *packet.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_be_bytes(bytes)) + header)
}

fn parse_v4(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let header: &[u8; V4] = packet.first_chunk()?;
    let [version, _, _, _, _, _, flags, offset, _, protocol, _, _, s0, s1, s2, s3, l0, l1, l2, l3] = *header;
    // Of the flags, only "do not fragment" may be set.
    let is_whole = flags & 0xbf == 0 && offset == 0;
    (version == 0x45 && i32::from(protocol) == libc::IPPROTO_UDP && is_whole)
        .then(|| (Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(l0, l1, l2, l3).into()))
}

fn parse_v6(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let header: &[u8; V6] = packet.first_chunk()?;
    let (version, next) = (header[0] >> 4, header[6]);
    let address = |at: usize| header.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    (version == 6 && i32::from(next) == libc::IPPROTO_UDP).then_some(())?;
    Some((address(8)?.into(), address(24)?.into()))
}

/// What is in front of the payload of a request: all that a reply from another buffer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    bytes: [u8; MAX_HEADERS],
    family: Family,
    network: u8,
    payload: u8,
}

const _: () = assert!(MAX_HEADERS <= 255, "offsets have 8 bits");

impl Headers {
    /// The headers of a frame whose datagram has been found.
    #[must_use]
    pub fn of(frame: &[u8], layout: &Layout) -> Self {
        let mut bytes = [0; MAX_HEADERS];
        bytes.iter_mut().zip(frame.iter().take(layout.payload)).for_each(|(to, from)| *to = *from);
        Self { bytes, family: layout.family, network: layout.network as u8, payload: layout.payload as u8 }
    }

    /// Where the payload is.
    fn layout(&self) -> Layout {
        let (network, payload) = (usize::from(self.network), usize::from(self.payload));
        Layout { family: self.family, network, payload, length: 0 }
    }

    /// Writes a reply into a buffer: `write` its payload, this the rest. Returns where it is, and its length;
    /// `None` if there is no room.
    pub fn reply(
        &self,
        buffer: &mut [u8],
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<(Layout, usize)> {
        let layout = self.layout();
        let (headers, room) = buffer.split_at_mut_checked(layout.payload)?;
        headers.copy_from_slice(self.bytes.get(..layout.payload)?);
        let written = write(room).min(room.len());
        if written > 0 {
            reply(buffer, &layout, written)?;
        }
        Some((layout, written))
    }

    /// Who sent the request, and the address that it was sent to.
    #[must_use]
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let packet = self.bytes.get(usize::from(self.network)..usize::from(self.payload))?;
        let (source, local) = match self.family {
            Family::V4 => parse_v4(packet)?,
            Family::V6 => parse_v6(packet)?,
        };
        let at = usize::from(self.payload).checked_sub(UDP)?;
        let [source_high, source_low, local_high, local_low] = *self.bytes.get(at..)?.first_chunk()?;
        Some((
            SocketAddr::new(source, u16::from_be_bytes([source_high, source_low])),
            SocketAddr::new(local, u16::from_be_bytes([local_high, local_low])),
        ))
    }
}

/// Turns the frame of a request into that of the reply, whose payload stands where that of the request did.
/// Returns the length of the frame; `None` if the payload is too long for the buffer or for UDP.
pub fn reply(buffer: &mut [u8], layout: &Layout, payload: usize) -> Option<usize> {
    let Layout { family, network, payload: at, .. } = *layout;
    let end = at.checked_add(payload)?;
    let length = u16::try_from(UDP + payload).ok()?;
    let frame = buffer.get_mut(..end)?;
    swap::<6>(frame, 0, 6)?;
    let packet = frame.get_mut(network..)?;
    match family {
        Family::V4 => reply_v4(packet, length)?,
        Family::V6 => reply_v6(packet, length)?,
    }
    Some(end)
}

fn reply_v4(packet: &mut [u8], length: u16) -> Option<()> {
    let total = u16::try_from(V4).ok()?.checked_add(length)?;
    swap::<4>(packet, 12, 16)?;
    {
        let header: &mut [u8; V4] = packet.first_chunk_mut()?;
        // No type of service, no identification: the packet is not to be fragmented.
        header[1] = 0;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        header[8] = HOPS;
        header[10..12].fill(0);
        let checksum = finish(sum(header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let addresses = sum(packet.get(12..V4)?);
    reply_udp(packet.get_mut(V4..)?, length, addresses)
}

fn reply_v6(packet: &mut [u8], length: u16) -> Option<()> {
    swap::<16>(packet, 8, 24)?;
    {
        let header: &mut [u8; V6] = packet.first_chunk_mut()?;
        // No traffic class and no flow label.
        header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        header[4..6].copy_from_slice(&length.to_be_bytes());
        header[7] = HOPS;
    }
    let addresses = sum(packet.get(8..V6)?);
    reply_udp(packet.get_mut(V6..)?, length, addresses)
}

/// `addresses` is the sum of what the checksum covers besides the datagram, but for protocol and length.
fn reply_udp(datagram: &mut [u8], length: u16, addresses: u64) -> Option<()> {
    swap::<2>(datagram, 0, 2)?;
    let header: &mut [u8; UDP] = datagram.first_chunk_mut()?;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..8].fill(0);
    let pseudo = addresses + libc::IPPROTO_UDP as u64 + u64::from(length);
    // 0 would say that there is no checksum.
    let checksum = match finish(pseudo + sum(datagram)) {
        0 => u16::MAX,
        checksum => checksum,
    };
    datagram.get_mut(6..8)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Exchanges two fields of `N` bytes.
fn swap<const N: usize>(bytes: &mut [u8], one: usize, other: usize) -> Option<()> {
    let first: [u8; N] = *bytes.get(one..)?.first_chunk()?;
    let second: [u8; N] = *bytes.get(other..)?.first_chunk()?;
    bytes.get_mut(one..one + N)?.copy_from_slice(&second);
    bytes.get_mut(other..other + N)?.copy_from_slice(&first);
    Some(())
}

/// Sum of 16-bit words in the order of the network, an odd byte at the end counting as the higher one, before
/// carries are added (RFC 1071). Words of 32 bits have the same sum.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

/// The checksum of a sum.
fn finish(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
