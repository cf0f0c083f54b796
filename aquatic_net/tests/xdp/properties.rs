//! What holds for every frame: also used by the fuzz target `xdp_frame`.

use aquatic_common::Family;
use aquatic_net::xdp::frame::{self, Datagram, Headers, MAX_FRAME, UDP, V4, V6};

/// Ones' complement sum of 16-bit words, the slow way.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(0, |sum, word| {
        let sum = sum + (u32::from(word[0]) << 8) + u32::from(word.get(1).copied().unwrap_or(0));
        (sum & 0xffff) + (sum >> 16)
    })
}

/// Whether the checksums of a packet are right, as a receiver sees it.
fn checksums_are_right(packet: &[u8], family: Family) -> bool {
    let (header, addresses) = match family {
        Family::V4 => (V4, &packet[12..20]),
        Family::V6 => (V6, &packet[8..40]),
    };
    let datagram = &packet[header..];
    let header_is_right = family == Family::V6 || sum(&packet[..V4]) == 0xffff;
    let pseudo = [&[0, 17][..], &(datagram.len() as u16).to_be_bytes()].concat();
    let total = [addresses, &pseudo, datagram].concat();
    header_is_right && datagram[6..8] != [0, 0] && sum(&total) == 0xffff
}

/// Parses a frame, and replies to it with a payload of some length.
pub(crate) fn check_frame(frame: &[u8], reply: usize) {
    let Some(request) = frame::parse(frame) else { return };
    let Datagram { layout, source, local } = request;
    assert_eq!(source.is_ipv4(), layout.family == Family::V4);
    assert_eq!(source.is_ipv4(), local.is_ipv4());
    assert!(layout.payload + layout.length <= frame.len(), "the payload is in the frame");
    let headers = Headers::of(frame, &layout);
    assert_eq!(headers.addresses(), Some((source, local)));
    let mut buffer = frame.to_vec();
    buffer.resize(frame.len().max(MAX_FRAME), 0x5a);
    buffer[layout.payload..].fill(0xa5);
    let Some(length) = frame::reply(&mut buffer, &layout, reply) else {
        assert!(layout.payload + reply > buffer.len(), "there was room");
        return;
    };
    assert_eq!(length, layout.payload + reply);
    let answer = &buffer[..length];
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]), "Ethernet addresses");
    assert_eq!(answer[12..layout.network], frame[12..layout.network], "tags stay");
    assert!(answer[layout.payload..].iter().all(|&byte| byte == 0xa5), "the payload stays");
    let parsed = frame::parse(answer).expect("a reply is a plain datagram");
    assert_eq!((parsed.source, parsed.local), (local, source));
    assert_eq!((parsed.layout.payload, parsed.layout.length), (layout.payload, reply));
    assert!(checksums_are_right(&answer[layout.network..], layout.family), "{answer:?}");
    assert!(length >= layout.network + UDP);
    let mut other = vec![0; MAX_FRAME.max(length)];
    let written = headers.reply(&mut other, |room| {
        room[..reply].fill(0xa5);
        reply
    });
    assert_eq!(written.map(|(to, len)| (to.payload, len)), Some((layout.payload, reply)));
    assert!(reply == 0 || other[..length] == *answer, "the same reply in another buffer");
}
