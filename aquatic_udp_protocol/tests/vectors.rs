//! Whole packets, byte for byte: the tables of BEP 15, and packets as widespread clients and trackers send
//! them.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId};
use aquatic_udp_protocol::{
    Action, AnnounceFields, AnnounceHead, AnnounceRequest, ConnectReply, ConnectRequest, ConnectionId,
    ErrorReply, Fault, ParseError, PeerV4, PeerV6, Peers, Request, RequestHead, Response, ResponseError,
    ScrapeReply, TorrentCounts, TransactionId, Unanswerable, encode_scrape_request,
};

const CONNECTION: ConnectionId = ConnectionId([0xc0, 1, 2, 3, 4, 5, 6, 7]);
const TRANSACTION: TransactionId = TransactionId([0xde, 0xad, 0xbe, 0xef]);

const CONNECT_REQUEST: &str = "0000041727101980 00000000 deadbeef";
const CONNECT_REPLY: &str = "00000000 deadbeef c001020304050607";
const ANNOUNCE_REQUEST: &str = "c001020304050607 00000001 deadbeef
    1111111111111111111111111111111111111111 2d4c54323042302d 222222222222222222222222
    0000000000000005 8000000000000000 0000000000000007 00000002 7f000001 0a0b0c0d ffffffff 1ae1";
const ANNOUNCE_REPLY_V4: &str = "00000001 deadbeef 00000708 00000003 00000002 c0000201 1ae1 c0000202 0050";
const ANNOUNCE_REPLY_V6: &str =
    "00000001 deadbeef 00000708 00000000 00000001 20010db8000000000000000000000001 1ae1";
const SCRAPE_REQUEST: &str = "c001020304050607 00000002 deadbeef
    1111111111111111111111111111111111111111 3333333333333333333333333333333333333333";
const SCRAPE_REPLY: &str = "00000002 deadbeef 00000002 00000009 00000001 00000000 00000000 00000000";
const ERROR_REPLY: &str = "00000003 deadbeef 74726163 6b657220 73617973 206e6f";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The announce with some of its bytes replaced.
fn announce_with(at: usize, replacement: &[u8]) -> Vec<u8> {
    let mut packet = bytes(ANNOUNCE_REQUEST);
    packet[at..at + replacement.len()].copy_from_slice(replacement);
    packet
}

fn parsed(packet: &[u8]) -> &AnnounceRequest {
    match Request::parse(packet) {
        Ok(Request::Announce(announce)) => announce,
        other => panic!("not an announce: {other:?}"),
    }
}

fn malformed(fault: Fault) -> Result<Request<'static>, ParseError> {
    Err(ParseError::Malformed { connection_id: CONNECTION, transaction_id: TRANSACTION, fault })
}

#[test]
fn connect() {
    let mut buffer = [0; 16];
    ConnectRequest::new(TRANSACTION).encode(&mut buffer).unwrap();
    assert_eq!(buffer[..], bytes(CONNECT_REQUEST));
    ConnectReply::new(TRANSACTION, CONNECTION).encode(&mut buffer).unwrap();
    assert_eq!(buffer[..], bytes(CONNECT_REPLY));
}

#[test]
fn connect_takes_trailing_bytes_but_no_other_magic() {
    let mut packet = bytes(CONNECT_REQUEST);
    packet.push(0);
    assert_eq!(Request::parse(&packet), Ok(Request::Connect(ConnectRequest::new(TRANSACTION))));
    packet[7] ^= 1;
    assert_eq!(Request::parse(&packet), Err(ParseError::Unanswerable(Unanswerable::WrongMagic)));
    assert_eq!(Request::parse(&packet[..15]), Err(ParseError::Unanswerable(Unanswerable::TooShort)));
    assert_eq!(Request::parse(&[]), Err(ParseError::Unanswerable(Unanswerable::TooShort)));
}

#[test]
fn announce_request() {
    let packet = bytes(ANNOUNCE_REQUEST);
    let mut peer_id = [0x22; 20];
    peer_id[..8].copy_from_slice(b"-LT20B0-");
    let fields = AnnounceFields {
        connection_id: CONNECTION,
        transaction_id: TRANSACTION,
        info_hash: InfoHash([0x11; 20]),
        peer_id: PeerId(peer_id),
        uploaded: 7,
        downloaded: 5,
        left: i64::MIN,
        event: AnnounceEvent::Started,
        key: 0x0a0b_0c0d,
        numwant: None,
        port: 6881,
    };
    assert_eq!(parsed(&packet).fields(), fields);
    // The address field is not read, and written as 0.
    let mut written = [0; 98];
    AnnounceRequest::new(&fields).encode(&mut written).unwrap();
    assert_eq!(written[..], announce_with(84, &[0; 4]));
}

#[test]
fn announce_with_options_of_bep_41() {
    let mut packet = bytes(ANNOUNCE_REQUEST);
    packet.extend(b"\x02\x09/announce\x00");
    assert_eq!(parsed(&packet).port(), 6881);
}

#[test]
fn announce_events() {
    let event = |number: u32| parsed(&announce_with(80, &number.to_be_bytes())).event();
    let known = [0, 1, 2, 3, 4].map(event);
    let meant = [
        AnnounceEvent::None,
        AnnounceEvent::Completed,
        AnnounceEvent::Started,
        AnnounceEvent::Stopped,
        AnnounceEvent::Paused,
    ];
    assert_eq!(known, meant);
    assert_eq!([5, 0x0100_0000, u32::MAX].map(event), [AnnounceEvent::None; 3]);
}

#[test]
fn announce_numwant() {
    let numwant = |number: i32| parsed(&announce_with(92, &number.to_be_bytes())).numwant();
    assert_eq!([-1, i32::MIN, -7].map(numwant), [None; 3]);
    assert_eq!([0, 1, 51, i32::MAX].map(numwant), [Some(0), Some(1), Some(51), Some(0x7fff_ffff)]);
}

#[test]
fn announce_left_means_seeder_only_when_zero() {
    let seeder = |number: i64| parsed(&announce_with(64, &number.to_be_bytes())).is_seeder();
    assert!(seeder(0));
    assert_eq!([1, -1, i64::MIN, i64::MAX, 1 << 32].map(seeder), [false; 5]);
}

#[test]
fn announce_port_is_passed_on() {
    assert_eq!(parsed(&announce_with(96, &[0, 0])).port(), 0);
    assert_eq!(parsed(&announce_with(96, &[0xff, 0xfe])).port(), 65534);
}

#[test]
fn announce_cut_short_can_be_answered() {
    let packet = bytes(ANNOUNCE_REQUEST);
    for length in 16..98 {
        assert_eq!(Request::parse(&packet[..length]), malformed(Fault::AnnounceTooShort));
    }
}

#[test]
fn head_is_readable_first() {
    let packet = bytes(ANNOUNCE_REQUEST);
    let head = RequestHead::read(&packet).unwrap();
    assert_eq!((head.connection_id(), head.transaction_id()), (CONNECTION, TRANSACTION));
    assert_eq!(head.action(), Some(Action::Announce));
    assert_eq!(RequestHead::read(&packet[..15]), None);
}

#[test]
fn unknown_actions_can_be_answered() {
    for action in [3_u32, 4, 0x0001_0000, u32::MAX] {
        let packet = announce_with(8, &action.to_be_bytes());
        assert_eq!(Request::parse(&packet), malformed(Fault::UnknownAction), "action {action}");
    }
}

#[test]
fn scrape_request() {
    let hashes = [InfoHash([0x11; 20]), InfoHash([0x33; 20])];
    let mut buffer = [0; 56];
    encode_scrape_request(CONNECTION, TRANSACTION, &hashes, &mut buffer).unwrap();
    assert_eq!(buffer[..], bytes(SCRAPE_REQUEST));
    let Ok(Request::Scrape(scrape)) = Request::parse(&buffer) else { panic!("a scrape") };
    assert_eq!(scrape.info_hashes(), hashes);
    assert_eq!(scrape.first(1), &hashes[..1]);
    assert_eq!(scrape.first(74), hashes);
}

#[test]
fn scrape_without_whole_hash_can_be_answered() {
    let packet = bytes(SCRAPE_REQUEST);
    assert_eq!(Request::parse(&packet[..16]), malformed(Fault::FullScrape));
    for length in 17..36 {
        assert_eq!(Request::parse(&packet[..length]), malformed(Fault::ScrapeTooShort));
    }
    let Ok(Request::Scrape(scrape)) = Request::parse(&packet[..55]) else { panic!("a scrape") };
    assert_eq!(scrape.info_hashes(), [InfoHash([0x11; 20])]);
}

#[test]
fn announce_replies() {
    let packet = bytes(ANNOUNCE_REPLY_V4);
    let Ok(Response::Announce(reply)) = Response::parse(&packet, Family::V4) else { panic!("an announce") };
    assert_eq!(reply.head, AnnounceHead::new(TRANSACTION, 1800, 3, 2));
    let peers = ["192.0.2.1:6881", "192.0.2.2:80"].map(|text| PeerV4::new(text.parse().unwrap()));
    assert_eq!(reply.peers, Peers::V4(&peers));
    assert_eq!(Response::parse(&packet, Family::V6), Err(ResponseError::PeersLength));

    let packet = bytes(ANNOUNCE_REPLY_V6);
    let Ok(Response::Announce(reply)) = Response::parse(&packet, Family::V6) else { panic!("an announce") };
    assert_eq!(reply.peers, Peers::V6(&[PeerV6::new("[2001:db8::1]:6881".parse().unwrap())]));

    assert_eq!(Response::parse(&packet[..19], Family::V4), Err(ResponseError::TooShort));
}

#[test]
fn scrape_reply() {
    let counts = [TorrentCounts::new(2, 9, 1), TorrentCounts::default()];
    let mut buffer = [0xff; 32];
    assert_eq!(ScrapeReply::encode(TRANSACTION, &counts, &mut buffer), Ok(32));
    assert_eq!(buffer[..], bytes(SCRAPE_REPLY));
    assert_eq!(Response::parse(&buffer[..31], Family::V4), Err(ResponseError::CountsLength));
}

#[test]
fn error_reply() {
    let mut buffer = [0; 23];
    assert_eq!(
        ErrorReply { transaction_id: TRANSACTION, text: "tracker says no" }.encode(&mut buffer),
        Ok(23)
    );
    assert_eq!(buffer[..], bytes(ERROR_REPLY));
}

#[test]
fn replies_that_clients_refuse() {
    let mut long = bytes(CONNECT_REPLY);
    long.push(0);
    assert_eq!(Response::parse(&long, Family::V4), Err(ResponseError::ConnectLength));
    assert_eq!(Response::parse(&long[..7], Family::V4), Err(ResponseError::TooShort));
    assert_eq!(Response::parse(&[0, 0, 0, 4, 0, 0, 0, 0], Family::V4), Err(ResponseError::UnknownAction(4)));
}
