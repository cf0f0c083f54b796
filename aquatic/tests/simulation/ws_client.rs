//! What simulated WebTorrent clients send and read, on one node and on several.

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::{Announce, AnnounceReply, Answer, ClientMessage, Description, Offer, OfferId};

use crate::ws_model::{ExpectedReply, WsAnnounce, WsAnswer};

/// Longest interval that a claimant is told.
const CLAIMANT_INTERVAL: u32 = 15;

/// The message of an announce.
pub(crate) fn announce_message(announce: &WsAnnounce) -> ClientMessage<'_> {
    let sdp = Description::parse(r#"{"type":"offer","sdp":"v=0"}"#).unwrap();
    let offers = announce.offers.iter();
    ClientMessage::Announce(Announce {
        info_hash: announce.info_hash,
        peer_id: announce.peer_id,
        left: Some(u64::from(!announce.seeder)),
        event: if announce.stopped { AnnounceEvent::Stopped } else { AnnounceEvent::None },
        offers: offers.map(|id| Offer { offer: sdp, offer_id: OfferId::new(id).unwrap() }).collect(),
        bad_offers: 0,
    })
}

/// The message of an answer.
pub(crate) fn answer_message(answer: &WsAnswer) -> ClientMessage<'_> {
    ClientMessage::Answer(Answer {
        info_hash: answer.info_hash,
        peer_id: answer.peer_id,
        to_peer_id: answer.to,
        offer_id: OfferId::new(&answer.offer).unwrap(),
        answer: Description::parse(r#"{"type":"answer","sdp":"v=0"}"#).unwrap(),
    })
}

/// What the model compares of the reply to an announce.
pub(crate) fn reply_of(reply: &AnnounceReply) -> ExpectedReply {
    let contested = reply.interval <= CLAIMANT_INTERVAL;
    ExpectedReply { complete: reply.complete, incomplete: reply.incomplete, contested }
}

/// The frame that answers a ping.
pub(crate) fn pong(ping: &[u8]) -> Vec<u8> {
    let mut pong = Vec::new();
    frame(0x8a, ping, &mut pong);
    pong
}

/// Appends a masked frame.
pub(crate) fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    out.push(first);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Takes the first frame, once it is complete.
pub(crate) fn next_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (header, length) = match *bytes.as_slice() {
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, length @ 0..=125, ..] => (2, usize::from(length)),
        _ => return None,
    };
    if bytes.len() < header + length {
        return None;
    }
    let opcode = bytes[0];
    let payload = bytes.drain(..header + length).skip(header).collect();
    Some((opcode, payload))
}
