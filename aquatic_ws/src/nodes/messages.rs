//! Messages to one node: offers for its clients, the answers to offers of its clients, and errors.
//!
//! A message is its kind in one byte, the length of its body in four, big-endian, and the body. That of an
//! offer and an answer is as in this table; that of "no such peer" ends before the second peer id.
//!
//! | bytes | field |
//! |---|---|
//! | 9 | connection on the node that receives the offer and sends the answer: core, slot, generation |
//! | 20 | info hash |
//! | 20 | peer id of the receiver of the offer, and sender of the answer |
//! | 20 | peer id of the sender of the offer, and receiver of the answer |
//! | 2 | length of the offer's id in bytes |
//! | … | id of the offer, UTF-8 |
//! | … | offer or answer, a JSON object |
//!
//! What another node sends is checked like what clients send: it has passed through that node, but nothing
//! here depends on its correctness.

use aquatic_common::{InfoHash, PeerId, Steering};
use aquatic_ws_protocol::{Description, OfferId};

use crate::swarm::NodeConnection;

/// Maximum length of a message in bytes. A longer offer or answer is not sent to other nodes.
pub const MAX_LENGTH: usize = 128 << 10;

/// Length of kind and length.
const HEAD: usize = 5;

const OFFER: u8 = 1;
const ANSWER: u8 = 2;
const NO_SUCH_PEER: u8 = 3;

/// Message from another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMessage<'a> {
    /// Offer for a client of this node.
    Offer(Exchange<'a>),
    /// Answer to an offer that a client of this node made.
    Answer(Exchange<'a>),
    /// An offer could not be delivered, because its receiver is not in the swarm.
    NoSuchPeer(Receiver),
}

/// Peer that an offer is for, and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Connection, as its node names it.
    pub connection: NodeConnection,
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Id of the peer.
    pub peer_id: PeerId,
}

/// Offer or answer between clients of two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange<'a> {
    /// Peer that receives the offer and sends the answer.
    pub receiver: Receiver,
    /// Id of the peer that sends the offer and receives the answer.
    pub maker: PeerId,
    /// Id of the offer.
    pub offer_id: OfferId,
    /// The offer, or the answer.
    pub description: Description<'a>,
}

/// Fault of a message from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMessage;

/// The message is longer than [`MAX_LENGTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl NodeMessage<'_> {
    /// Appends the message.
    ///
    /// # Errors
    /// The message is too long. Nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        out.push(match self {
            Self::Offer(_) => OFFER,
            Self::Answer(_) => ANSWER,
            Self::NoSuchPeer(_) => NO_SUCH_PEER,
        });
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Offer(exchange) | Self::Answer(exchange) => exchange.write(out),
            Self::NoSuchPeer(receiver) => receiver.write(out),
        }
        let length = out.len() - start;
        if length > MAX_LENGTH {
            out.truncate(start);
            return Err(TooLong);
        }
        let body = (length - HEAD) as u32;
        out[start + 1..start + HEAD].copy_from_slice(&body.to_be_bytes());
        Ok(())
    }
}

impl<'a> NodeMessage<'a> {
    /// Takes the first of several messages.
    ///
    /// # Errors
    /// It is malformed. Those behind it can be taken, unless its length was malformed: then nothing is left.
    pub fn take(bytes: &mut &'a [u8]) -> Result<Self, BadMessage> {
        let (kind, mut body) = split_first(bytes).ok_or(BadMessage)?;
        let rest = &mut body;
        let message = match kind {
            OFFER => Self::Offer(Exchange::take(rest)?),
            ANSWER => Self::Answer(Exchange::take(rest)?),
            NO_SUCH_PEER => Self::NoSuchPeer(Receiver::take(rest)?),
            _ => return Err(BadMessage),
        };
        if rest.is_empty() { Ok(message) } else { Err(BadMessage) }
    }
}

impl Receiver {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { connection: NodeConnection { core, slot, generation }, info_hash, peer_id } = self;
        out.push(*core);
        out.extend_from_slice(&slot.to_be_bytes());
        out.extend_from_slice(&generation.to_be_bytes());
        out.extend_from_slice(&info_hash.0);
        out.extend_from_slice(&peer_id.0);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, BadMessage> {
        let [core] = take(bytes)?;
        let slot = u32::from_be_bytes(take(bytes)?);
        let generation = u32::from_be_bytes(take(bytes)?);
        let connection = NodeConnection { core, slot, generation };
        Ok(Self { connection, info_hash: InfoHash(take(bytes)?), peer_id: PeerId(take(bytes)?) })
    }
}

impl<'a> Exchange<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { receiver, maker, offer_id, description } = self;
        receiver.write(out);
        out.extend_from_slice(&maker.0);
        let at = out.len();
        out.extend_from_slice(&[0; 2]);
        let mut character = [0; 4];
        for id in offer_id.characters() {
            out.extend_from_slice(id.encode_utf8(&mut character).as_bytes());
        }
        // An id has at most 64 characters.
        let length = (out.len() - at - 2) as u16;
        out[at..at + 2].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(description.as_str().as_bytes());
    }

    fn take(bytes: &mut &'a [u8]) -> Result<Self, BadMessage> {
        let receiver = Receiver::take(bytes)?;
        let maker = PeerId(take(bytes)?);
        let length = usize::from(u16::from_be_bytes(take(bytes)?));
        let (offer_id, description) = bytes.split_at_checked(length).ok_or(BadMessage)?;
        *bytes = &[];
        let text = |bytes| simdutf8::basic::from_utf8(bytes).map_err(|_| BadMessage);
        let offer_id = OfferId::new(text(offer_id)?).map_err(|_| BadMessage)?;
        let description = Description::parse(text(description)?).map_err(|_| BadMessage)?;
        Ok(Self { receiver, maker, offer_id, description })
    }
}

/// Hands each of several messages to the core that has to receive it. Returns the number of those that have
/// none.
pub fn split(messages: &[u8], steering: &Steering, mut to: impl FnMut(usize, &[u8])) -> usize {
    let (mut rest, mut lost) = (messages, 0);
    while !rest.is_empty() {
        let all = rest;
        let Some((kind, body)) = split_first(&mut rest) else { return lost + 1 };
        let message = &all[..all.len() - rest.len()];
        match (kind, body) {
            (OFFER, [core, ..]) if usize::from(*core) < steering.cores() => to((*core).into(), message),
            (ANSWER | NO_SUCH_PEER, body) => match body.get(9..).and_then(<[u8]>::first_chunk) {
                Some(info_hash) => to(steering.owner(&InfoHash(*info_hash)), message),
                None => lost += 1,
            },
            _ => lost += 1,
        }
    }
    lost
}

/// Takes kind and body of the first message. Leaves nothing if it is not complete.
fn split_first<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let all = std::mem::take(bytes);
    let (&[kind, a, b, c, d], rest) = all.split_first_chunk::<HEAD>()?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
    *bytes = rest;
    Some((kind, body))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadMessage> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(BadMessage)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVER: Receiver = Receiver {
        connection: NodeConnection { core: 1, slot: 0x0203_0405, generation: 0x0607_0809 },
        info_hash: InfoHash([10; 20]),
        peer_id: PeerId([11; 20]),
    };

    fn exchange<'a>(offer_id: &str, description: &'a str) -> Exchange<'a> {
        Exchange {
            receiver: RECEIVER,
            maker: PeerId([12; 20]),
            offer_id: OfferId::new(offer_id).unwrap(),
            description: Description::parse(description).unwrap(),
        }
    }

    fn all() -> [NodeMessage<'static>; 3] {
        [
            NodeMessage::Offer(exchange("é\u{1}", r#"{"sdp":"v=0"}"#)),
            NodeMessage::Answer(exchange("", "{}")),
            NodeMessage::NoSuchPeer(RECEIVER),
        ]
    }

    fn written<'a>(messages: impl IntoIterator<Item = NodeMessage<'a>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        messages.into_iter().for_each(|message| message.write(&mut bytes).unwrap());
        bytes
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let bytes = written(all());
        let mut rest = bytes.as_slice();
        for message in all() {
            assert_eq!(NodeMessage::take(&mut rest), Ok(message));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn cut_messages_are_refused() {
        for message in all() {
            let bytes = written([message]);
            for length in 0..bytes.len() {
                let mut rest = &bytes[..length];
                assert_eq!(NodeMessage::take(&mut rest), Err(BadMessage));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn what_is_behind_a_bad_message_is_read() {
        for bad in [&[9, 0, 0, 0, 1, 7][..], &[NO_SUCH_PEER, 0, 0, 0, 0], &[OFFER, 0, 0, 0, 2, 7, 7]] {
            let good = NodeMessage::NoSuchPeer(RECEIVER);
            let bytes = [bad, &written([good.clone()])].concat();
            let mut rest = bytes.as_slice();
            assert_eq!(NodeMessage::take(&mut rest), Err(BadMessage));
            assert_eq!(NodeMessage::take(&mut rest), Ok(good));
        }
        let mut bytes = written([NodeMessage::Offer(exchange("a", "{}"))]);
        for flaw in [b'[', 0xff] {
            let last = bytes.len() - 1;
            bytes[last] = flaw;
            assert_eq!(NodeMessage::take(&mut bytes.as_slice()), Err(BadMessage), "no object");
        }
    }

    #[test]
    fn messages_of_excessive_length_are_not_written() {
        let text = format!(r#"{{"sdp":"{}"}}"#, "x".repeat(MAX_LENGTH));
        let mut bytes = vec![1];
        assert_eq!(NodeMessage::Offer(exchange("a", &text)).write(&mut bytes), Err(TooLong));
        assert_eq!(bytes, [1]);
    }

    #[test]
    fn every_message_reaches_its_core() {
        let steering = Steering::new(3, [5; 8]);
        let bytes = written(all());
        let mut cores: [Vec<u8>; 3] = Default::default();
        let lost = split(&bytes, &steering, |core, message| cores[core].extend_from_slice(message));
        assert_eq!(lost, 0);
        for (core, bytes) in cores.iter().enumerate() {
            let owns = steering.owner(&RECEIVER.info_hash) == core;
            let kinds = [core == 1, owns, owns];
            let expected =
                written(all().into_iter().zip(kinds).filter(|(_, here)| *here).map(|(one, _)| one));
            assert_eq!(*bytes, expected, "core {core}");
        }
        let single = Steering::new(1, [5; 8]);
        assert_eq!(split(&bytes, &single, |_, _| {}), 1, "the connection of the offer cannot exist");
        assert_eq!(split(&bytes[..bytes.len() - 1], &steering, |_, _| {}), 1);
        assert_eq!(split(&[ANSWER, 0, 0, 0, 2, 1, 1], &steering, |_, _| {}), 1);
    }
}
