//! Encoding of messages to the tracker. Session descriptions are prepared once, because the load test has to
//! encode faster than the tracker decodes.

use aquatic_common::{InfoHash, PeerId};
use aquatic_load_engine::clock::Nanos;

use crate::description::Label;
use crate::ids::OfferKey;
use crate::plan::Plan;

/// Maximum length of an encoded string of twenty bytes, all escaped.
const MAX_STRING_LENGTH: usize = 20 * 6;

/// Event of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Started,
    None,
    Stopped,
}

/// Announce of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announce {
    pub(crate) connection: u32,
    pub(crate) generation: u32,
    pub(crate) membership: u8,
    pub(crate) event: Event,
    /// Number of offers, and sequence number of the first.
    pub(crate) offers: u8,
    pub(crate) sequence: u32,
    /// Intended send time.
    pub(crate) intended: Nanos,
}

/// Answer of a connection to a relayed offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) connection: u32,
    pub(crate) generation: u32,
    pub(crate) info_hash: InfoHash,
    pub(crate) to: PeerId,
    pub(crate) offer: OfferKey,
    pub(crate) now: Nanos,
}

/// Appends an announce.
pub(crate) fn announce(plan: &Plan, announce: &Announce, out: &mut String) {
    let Announce { connection, generation, membership, event, offers, sequence, intended } = *announce;
    let offer_length = plan.offers.length() + 64 + MAX_STRING_LENGTH;
    out.reserve(512 + usize::from(offers) * offer_length);
    let left = match plan.is_seeder(connection, membership) {
        true => "0",
        false => "734003200",
    };
    out.push_str("{\"action\":\"announce\",\"info_hash\":\"");
    characters(&plan.info_hash(connection, membership).0, out);
    out.push_str("\",\"peer_id\":\"");
    characters(&plan.peer_id(connection, generation).0, out);
    out.push_str("\",\"uploaded\":0,\"downloaded\":0,\"left\":");
    out.push_str(left);
    out.push_str(match event {
        Event::Started => ",\"event\":\"started\",\"numwant\":",
        Event::None => ",\"numwant\":",
        Event::Stopped => ",\"event\":\"stopped\",\"numwant\":",
    });
    out.push_str(&offers.to_string());
    out.push_str(",\"offers\":[");
    for position in 0..offers {
        let sequence = sequence.wrapping_add(position.into());
        let name = OfferKey { connection, sequence, position, count: offers, membership };
        out.push_str(if position == 0 { "{\"offer\":" } else { ",{\"offer\":" });
        plan.offers.write(Label { time: intended, connection, sequence }, out);
        out.push_str(",\"offer_id\":\"");
        characters(&name.id(plan.seed()), out);
        out.push_str("\"}");
    }
    out.push_str("]}");
}

/// Appends an answer.
pub(crate) fn answer(plan: &Plan, answer: &Answer, out: &mut String) {
    let Answer { connection, generation, info_hash, to, offer, now } = answer;
    out.reserve(plan.answers.length() + 128 + 4 * MAX_STRING_LENGTH);
    out.push_str("{\"action\":\"announce\",\"info_hash\":\"");
    characters(&info_hash.0, out);
    out.push_str("\",\"peer_id\":\"");
    characters(&plan.peer_id(*connection, *generation).0, out);
    out.push_str("\",\"to_peer_id\":\"");
    characters(&to.0, out);
    out.push_str("\",\"answer\":");
    plan.answers.write(Label { time: *now, connection: *connection, sequence: offer.sequence }, out);
    out.push_str(",\"offer_id\":\"");
    characters(&offer.id(plan.seed()), out);
    out.push_str("\"}");
}

/// Appends a scrape.
pub(crate) fn scrape(torrents: &[InfoHash], out: &mut String) {
    out.reserve(64 + torrents.len() * MAX_STRING_LENGTH);
    out.push_str("{\"action\":\"scrape\",\"info_hash\":[");
    for (number, torrent) in torrents.iter().enumerate() {
        out.push_str(if number == 0 { "\"" } else { ",\"" });
        characters(&torrent.0, out);
        out.push('"');
    }
    out.push_str("]}");
}

/// Appends a binary string: each byte as the character with its number, escaped as by JavaScript.
fn characters(bytes: &[u8; 20], out: &mut String) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            0x20.. => out.push(char::from(byte)),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            0x00..0x20 => {
                let digits = b"0123456789abcdef";
                let (high, low) = (digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]);
                out.push_str("\\u00");
                out.extend([char::from(high), char::from(low)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::AnnounceEvent;
    use aquatic_ws_protocol::{ClientMessage, Limits, OfferId};

    use super::*;
    use crate::config::Config;
    use crate::decode::Description;

    fn plan() -> Plan {
        let mut config = Config::default();
        config.connections.torrents = 3;
        Plan::new(config).unwrap()
    }

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn every_byte_is_one_character() {
        for start in (0..=255).step_by(20) {
            let bytes: [u8; 20] = std::array::from_fn(|index| (start + index) as u8);
            let mut json = "\"".to_owned();
            characters(&bytes, &mut json);
            json.push('"');
            let expected: String = bytes.iter().map(|&byte| char::from(byte)).collect();
            let text = format!("{{\"action\":\"scrape\",\"info_hash\":{json}}}");
            let Ok(ClientMessage::Scrape(scrape)) = ClientMessage::parse(&text, &Limits::default()) else {
                panic!("{text}")
            };
            let read: String = scrape.info_hashes[0].0.iter().map(|&byte| char::from(byte)).collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn announces_contain_the_right_members() {
        let plan = plan();
        let meant = Announce {
            connection: 8,
            generation: 4,
            membership: 2,
            event: Event::Started,
            offers: 3,
            sequence: 77,
            intended: 5,
        };
        let text = written(|out| announce(&plan, &meant, out));
        let Ok(ClientMessage::Announce(read)) = ClientMessage::parse(&text, &Limits::default()) else {
            panic!("{text}")
        };
        assert_eq!((read.info_hash, read.peer_id), (plan.info_hash(8, 2), plan.peer_id(8, 4)));
        assert_eq!((read.event, read.is_seeder()), (AnnounceEvent::Started, plan.is_seeder(8, 2)));
        assert_eq!(read.offers.len(), 3);
        for (offer, position) in read.offers.iter().zip(0..) {
            let sequence = 77 + u32::from(position);
            let name = OfferKey { connection: 8, sequence, position, count: 3, membership: 2 };
            assert_eq!(offer.offer_id, OfferId::from_bytes(&name.id(plan.seed())));
            let label = Label { time: 5, connection: 8, sequence };
            assert_eq!(
                plan.offers.read(Description { kind: "offer", sdp: &offer.offer.sdp().unwrap() }),
                Some(label)
            );
        }
    }

    #[test]
    fn answers_contain_the_offer_and_its_sender() {
        let plan = plan();
        let offer = OfferKey { connection: 2, sequence: 5, position: 0, count: 1, membership: 0 };
        let (info_hash, to) = (plan.info_hash(2, 0), plan.peer_id(2, 1));
        let meant = Answer { connection: 8, generation: 4, info_hash, to, offer, now: 9 };
        let text = written(|out| answer(&plan, &meant, out));
        let Ok(ClientMessage::Answer(read)) = ClientMessage::parse(&text, &Limits::default()) else {
            panic!("{text}")
        };
        assert_eq!((read.info_hash, read.peer_id, read.to_peer_id), (info_hash, plan.peer_id(8, 4), to));
        assert_eq!(read.offer_id, OfferId::from_bytes(&offer.id(plan.seed())));
        let label = Label { time: 9, connection: 8, sequence: 5 };
        assert_eq!(
            plan.answers.read(Description { kind: "answer", sdp: &read.answer.sdp().unwrap() }),
            Some(label)
        );
    }

    #[test]
    fn scrapes_contain_the_torrents() {
        let (plan, mut torrents) = (plan(), Vec::new());
        plan.topology.population.scrape_targets(3, 5, &mut torrents);
        assert_eq!(torrents.len(), 5);
        let text = written(|out| scrape(&torrents, out));
        let Ok(ClientMessage::Scrape(read)) = ClientMessage::parse(&text, &Limits::default()) else {
            panic!("{text}")
        };
        assert!(torrents.iter().all(|torrent| read.info_hashes.contains(torrent)));
    }
}
