//! Any bytes at all: nothing panics, and what is read is what is there.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod properties;

use std::fs;
use std::net::{SocketAddrV4, SocketAddrV6};
use std::path::Path;

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceHead, AnnounceRequest, BufferTooSmall, ConnectReply, ConnectRequest,
    ConnectionId, ErrorReply, PeerV4, PeerV6, Peers, Request, Response, ResponseError, ScrapeReply,
    TorrentCounts, TransactionId, encode_scrape_request,
};
use properties::check_packet;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::prop_assert_eq;
use proptest::test_runner::{Config, RngAlgorithm, TestRng};
use zerocopy::IntoBytes;

#[test]
fn random_bytes_of_every_length() {
    use proptest::prelude::Rng;
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    for length in 0..=256 {
        for round in 0..32_u32 {
            let mut packet = vec![0; length];
            rng.fill_bytes(&mut packet);
            check_packet(&packet);
            // Random bytes hardly ever have an action or the magic number; give them both.
            if let Some(action) = packet.get_mut(8..12) {
                action.copy_from_slice(&(round % 5).to_be_bytes());
                check_packet(&packet);
                packet[..8].copy_from_slice(&ConnectionId::PROTOCOL_MAGIC.0);
                check_packet(&packet);
            }
            // The same as a reply.
            if let Some(action) = packet.get_mut(..4) {
                action.copy_from_slice(&(round % 5).to_be_bytes());
                check_packet(&packet);
            }
        }
    }
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/udp_request");
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        check_packet(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} files in {}", corpus.display());
}

fn event() -> impl Strategy<Value = AnnounceEvent> {
    prop_oneof![
        Just(AnnounceEvent::None),
        Just(AnnounceEvent::Started),
        Just(AnnounceEvent::Stopped),
        Just(AnnounceEvent::Completed),
        Just(AnnounceEvent::Paused),
    ]
}

fn announce_fields() -> impl Strategy<Value = AnnounceFields> {
    let ids = (any::<[u8; 8]>(), any::<[u8; 4]>(), any::<[u8; 20]>(), any::<[u8; 20]>());
    let amounts = (any::<i64>(), any::<i64>(), prop_oneof![Just(0), any::<i64>()]);
    let numwant = prop_oneof![Just(None), (0..=0x7fff_ffff_u32).prop_map(Some)];
    (ids, amounts, event(), any::<u32>(), numwant, any::<u16>()).prop_map(
        |((connection_id, transaction_id, info_hash, peer_id), amounts, event, key, numwant, port)| {
            AnnounceFields {
                connection_id: ConnectionId(connection_id),
                transaction_id: TransactionId(transaction_id),
                info_hash: InfoHash(info_hash),
                peer_id: PeerId(peer_id),
                uploaded: amounts.0,
                downloaded: amounts.1,
                left: amounts.2,
                event,
                key,
                numwant,
                port,
            }
        },
    )
}

/// A buffer of each smaller size is refused, and the error says what would do.
fn assert_too_small(length: usize, encode: impl Fn(&mut [u8]) -> Result<usize, BufferTooSmall>) {
    let mut buffer = vec![0; length];
    for shorter in 0..length {
        assert_eq!(encode(&mut buffer[..shorter]), Err(BufferTooSmall { needed: length }));
    }
    assert_eq!(encode(&mut buffer), Ok(length));
}

fn check_announce_reply(head: AnnounceHead, peers: Peers<'_>, family: Family) {
    let bytes = match peers {
        Peers::V4(peers) => peers.as_bytes(),
        Peers::V6(peers) => peers.as_bytes(),
    };
    let mut buffer = [0; 2000];
    AnnounceHead::peer_area(&mut buffer).unwrap()[..bytes.len()].copy_from_slice(bytes);
    let length = head.encode(bytes.len(), &mut buffer).unwrap();
    assert_eq!(length, 20 + bytes.len());
    let Ok(Response::Announce(reply)) = Response::parse(&buffer[..length], family) else {
        panic!("an announce")
    };
    assert_eq!((reply.head, reply.peers), (head, peers));
    assert_eq!((reply.peers.len(), reply.peers.is_empty()), (peers.len(), bytes.is_empty()));
    assert_eq!(Response::parse(&buffer[..length + 1], family), Err(ResponseError::PeersLength));
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn announce_request_round_trips(fields in announce_fields(), options in vec(any::<u8>(), 0..80)) {
        let request = AnnounceRequest::new(&fields);
        let mut packet = vec![0; 98];
        prop_assert_eq!(request.encode(&mut packet), Ok(98));
        packet.extend(options);
        let Ok(Request::Announce(parsed)) = Request::parse(&packet) else { panic!("an announce") };
        prop_assert_eq!(parsed.fields(), fields);
        assert_too_small(98, |buffer| request.encode(buffer));
    }

    #[test]
    fn scrape_request_round_trips(
        id in any::<[u8; 8]>(),
        transaction in any::<[u8; 4]>(),
        hashes in vec(any::<[u8; 20]>().prop_map(InfoHash), 1..80),
        rubbish in vec(any::<u8>(), 0..20),
    ) {
        let (id, transaction) = (ConnectionId(id), TransactionId(transaction));
        let mut packet = vec![0; 2000];
        let length = encode_scrape_request(id, transaction, &hashes, &mut packet).unwrap();
        packet.truncate(length);
        packet.extend(rubbish);
        let Ok(Request::Scrape(parsed)) = Request::parse(&packet) else { panic!("a scrape") };
        prop_assert_eq!((parsed.connection_id(), parsed.transaction_id()), (id, transaction));
        prop_assert_eq!(parsed.info_hashes(), &hashes[..]);
        assert_too_small(length, |buffer| encode_scrape_request(id, transaction, &hashes, buffer));
    }

    #[test]
    fn connect_round_trips(id in any::<[u8; 8]>(), transaction in any::<[u8; 4]>()) {
        let (id, transaction) = (ConnectionId(id), TransactionId(transaction));
        let mut packet = [0; 16];
        prop_assert_eq!(ConnectRequest::new(transaction).encode(&mut packet), Ok(16));
        prop_assert_eq!(Request::parse(&packet), Ok(Request::Connect(ConnectRequest::new(transaction))));
        let reply = ConnectReply::new(transaction, id);
        prop_assert_eq!(reply.encode(&mut packet), Ok(16));
        prop_assert_eq!(Response::parse(&packet, Family::V4), Ok(Response::Connect(reply)));
        prop_assert_eq!((reply.transaction_id(), reply.connection_id()), (transaction, id));
        assert_too_small(16, |buffer| reply.encode(buffer));
        assert_too_small(16, |buffer| ConnectRequest::new(transaction).encode(buffer));
    }

    #[test]
    fn announce_reply_round_trips(
        transaction in any::<u32>(),
        numbers in any::<[u32; 3]>(),
        peers in vec((any::<u32>(), any::<u128>(), any::<u16>()), 0..80),
    ) {
        let transaction = TransactionId::from_number(transaction);
        let head = AnnounceHead::new(transaction, numbers[0], numbers[1], numbers[2]);
        let v4 = peers.iter().map(|p| SocketAddrV4::new(p.0.into(), p.2)).map(PeerV4::new).collect::<Vec<_>>();
        let v6 = peers.iter().map(|p| SocketAddrV6::new(p.1.into(), p.2, 0, 0)).map(PeerV6::new).collect::<Vec<_>>();
        for (v4, v6) in v4.iter().zip(&v6) {
            prop_assert_eq!(PeerV4::new(v4.address()), *v4);
            prop_assert_eq!(PeerV6::new(v6.address()), *v6);
        }
        check_announce_reply(head, Peers::V4(&v4), Family::V4);
        check_announce_reply(head, Peers::V6(&v6), Family::V6);
        let clamp = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        prop_assert_eq!(
            (head.interval(), head.leechers(), head.seeders()),
            (clamp(numbers[0]), clamp(numbers[1]), clamp(numbers[2]))
        );
        assert_too_small(20 + 6 * v4.len(), |buffer| head.encode(6 * v4.len(), buffer));
    }

    #[test]
    fn scrape_reply_round_trips(
        transaction in any::<u32>(),
        counts in vec((0..=0x7fff_ffff_u32, any::<u32>(), any::<u32>()), 0..80),
    ) {
        let transaction = TransactionId::from_number(transaction);
        let entries: Vec<_> = counts.iter().map(|c| TorrentCounts::new(c.0, c.1, c.2)).collect();
        let mut buffer = [0xff; 1000];
        // Filled backwards, as the counts of other cores may arrive.
        for (place, entry) in ScrapeReply::start(transaction, entries.len(), &mut buffer).unwrap().iter_mut().zip(&entries).rev() {
            *place = *entry;
        }
        let length = ScrapeReply::length(entries.len());
        let Ok(Response::Scrape(view)) = Response::parse(&buffer[..length], Family::V6) else { panic!("a scrape") };
        prop_assert_eq!(view.transaction_id, transaction);
        prop_assert_eq!(view.counts, &entries[..]);
        for (entry, count) in view.counts.iter().zip(&counts) {
            prop_assert_eq!(entry.seeders(), i32::try_from(count.0).unwrap());
            prop_assert_eq!(entry.completed(), i32::try_from(count.1).unwrap_or(i32::MAX));
            prop_assert_eq!(entry.leechers(), i32::try_from(count.2).unwrap_or(i32::MAX));
        }
        assert_too_small(length, |buffer| ScrapeReply::encode(transaction, &entries, buffer));
    }

    #[test]
    fn error_reply_round_trips(transaction in any::<u32>(), text in ".{0,60}") {
        let reply = ErrorReply { transaction_id: TransactionId::from_number(transaction), text: &text };
        let mut buffer = [0; 400];
        let length = reply.encode(&mut buffer).unwrap();
        let Ok(Response::Error(view)) = Response::parse(&buffer[..length], Family::V4) else { panic!("an error") };
        prop_assert_eq!(view.transaction_id.number(), transaction);
        prop_assert_eq!(view.text, text.as_bytes());
        assert_too_small(length, |buffer| reply.encode(buffer));
    }
}
