//! What must hold for any packet. The fuzz target and the tests share it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use aquatic_common::Family;
use aquatic_udp_protocol::{
    AnnounceRequest, ConnectionId, ErrorReply, Fault, ParseError, Request, RequestHead, Response,
    Unanswerable, encode_scrape_request,
};

/// Reads a packet every way there is and checks what was read against the bytes.
pub(crate) fn check_packet(packet: &[u8]) {
    check_request(packet);
    for family in Family::ALL {
        if let Ok(response) = Response::parse(packet, family) {
            assert_eq!(response.transaction_id().0, packet[4..8]);
        }
    }
}

fn check_request(packet: &[u8]) {
    match Request::parse(packet) {
        Ok(Request::Connect(connect)) => {
            assert_eq!(packet[..8], ConnectionId::PROTOCOL_MAGIC.0);
            assert_written_back(packet, |buffer| connect.encode(buffer).unwrap());
        }
        Ok(Request::Announce(announce)) => check_announce(packet, announce),
        Ok(Request::Scrape(scrape)) => {
            let hashes = scrape.info_hashes();
            assert_eq!(hashes.len(), (packet.len() - 16) / 20);
            assert!(!hashes.is_empty());
            assert_eq!(scrape.first(1), &hashes[..1]);
            assert_eq!(scrape.first(usize::MAX), hashes);
            assert_written_back(packet, |buffer| {
                encode_scrape_request(scrape.connection_id(), scrape.transaction_id(), hashes, buffer)
                    .unwrap()
            });
        }
        Err(ParseError::Malformed { connection_id, transaction_id, fault }) => {
            let head = RequestHead::read(packet).unwrap();
            assert_eq!((head.connection_id(), head.transaction_id()), (connection_id, transaction_id));
            assert_eq!(
                (connection_id.0, transaction_id.0),
                (packet[..8].try_into().unwrap(), packet[12..16].try_into().unwrap())
            );
            check_fault(packet, fault);
            let mut reply = [0; 64];
            let length = ErrorReply { transaction_id, text: fault.text() }.encode(&mut reply).unwrap();
            assert!(matches!(Response::parse(&reply[..length], Family::V4), Ok(Response::Error(_))));
        }
        Err(ParseError::Unanswerable(Unanswerable::TooShort)) => assert!(packet.len() < 16),
        Err(ParseError::Unanswerable(Unanswerable::WrongMagic)) => {
            assert_eq!(packet[8..12], [0; 4]);
            assert_ne!(packet[..8], ConnectionId::PROTOCOL_MAGIC.0);
        }
    }
}

fn check_fault(packet: &[u8], fault: Fault) {
    let action = u32::from_be_bytes(packet[8..12].try_into().unwrap());
    match fault {
        Fault::UnknownAction => assert!(action > 2),
        Fault::AnnounceTooShort => assert!(action == 1 && packet.len() < 98),
        Fault::FullScrape => assert!(action == 2 && packet.len() == 16),
        Fault::ScrapeTooShort => assert!(action == 2 && (17..36).contains(&packet.len())),
    }
}

fn check_announce(packet: &[u8], announce: &AnnounceRequest) {
    assert_written_back(packet, |buffer| announce.encode(buffer).unwrap());
    assert_eq!(announce.connection_id().0, packet[..8]);
    assert_eq!(announce.transaction_id().0, packet[12..16]);
    assert_eq!(announce.info_hash().0, packet[16..36]);
    assert_eq!(announce.peer_id().0, packet[36..56]);
    assert_eq!(announce.is_seeder(), packet[64..72] == [0; 8]);
    assert_eq!(announce.numwant().is_none(), packet[92] >= 0x80);
    assert_eq!(announce.port().to_be_bytes(), packet[96..98]);
    // What can be read is what can be written.
    assert_eq!(AnnounceRequest::new(&announce.fields()).fields(), announce.fields());
}

/// What `encode` writes is what the packet starts with, and nothing behind it changes.
fn assert_written_back(packet: &[u8], encode: impl FnOnce(&mut [u8]) -> usize) {
    let mut buffer = vec![0xa5; packet.len() + 1];
    let length = encode(&mut buffer);
    assert_eq!(buffer[..length], packet[..length]);
    assert!(buffer[length..].iter().all(|&byte| byte == 0xa5), "wrote past the end");
}
