//! What holds for any packet that the other process of a hand-over sends. For the tests and the fuzz target
//! `handover_message`.

use super::message::{Awaited, MAX_DESCRIPTORS, Message};

/// Checks that packets, each behind a byte with its length in units of 4 bytes, are messages that are written
/// as they were read, and lead a hand-over to its end in one order only.
pub(crate) fn check_bytes(mut bytes: &[u8]) {
    let (mut awaited, mut taken) = (Awaited::Started, 0);
    while let Some((&length, rest)) = bytes.split_first() {
        let (packet, others) = rest.split_at(rest.len().min(usize::from(length) * 4));
        bytes = others;
        let Ok(message) = Message::decode(packet) else { continue };
        check_message(packet, &message);
        if let Ok(next) = awaited.after(&message) {
            taken += 1;
            awaited = next;
        }
        assert!(!awaited.describe().is_empty());
    }
    assert!(taken <= 3, "started, loaded, serving");
}

fn check_message(packet: &[u8], message: &Message) {
    let written = message.encode();
    assert_eq!(Message::decode(&written).as_ref(), Ok(message));
    match message {
        // Its text is made valid UTF-8.
        Message::Refused(_) => {}
        Message::Sockets(cores) => assert!(!cores.is_empty() && cores.len() <= MAX_DESCRIPTORS),
        Message::Hello(_)
        | Message::Begin
        | Message::Started(_)
        | Message::Loaded
        | Message::Switch
        | Message::Serving
        | Message::Done
        | Message::ByHand { .. } => assert_eq!(written, packet),
    }
}
