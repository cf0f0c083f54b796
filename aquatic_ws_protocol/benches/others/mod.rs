//! The same work done with general readers of JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use simd_json::Buffers;
use simd_json::derived::ValueObjectAccessAsScalar;
use simd_json::prelude::Writable;

use super::OFFERS;

/// What simd-json keeps from message to message.
pub(crate) struct Scratch {
    text: Vec<u8>,
    buffers: Buffers,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { text: Vec::new(), buffers: Buffers::with_max_depth(64 * 1024, 16) }
    }
}

/// simd-json writes into what it reads, so it needs a copy.
pub(crate) fn tape_only(text: &str, scratch: &mut Scratch) -> bool {
    scratch.text.clear();
    scratch.text.extend_from_slice(text.as_bytes());
    simd_json::to_tape_with_buffers(&mut scratch.text, &mut scratch.buffers).is_ok()
}

fn bytes(text: &str) -> [u8; 20] {
    let mut bytes = [0; 20];
    let mut characters = text.chars();
    bytes.fill_with(|| u8::try_from(characters.next().unwrap()).unwrap());
    assert!(characters.next().is_none());
    bytes
}

pub(crate) fn relayed_by_tape(text: &str, scratch: &mut Scratch) -> [Vec<u8>; OFFERS] {
    scratch.text.clear();
    scratch.text.extend_from_slice(text.as_bytes());
    let tape = simd_json::to_tape_with_buffers(&mut scratch.text, &mut scratch.buffers).unwrap();
    let message = tape.as_value();
    assert_eq!(message.get_str("action"), Some("announce"));
    let info_hash = message.get_str("info_hash").unwrap();
    let peer_id = message.get_str("peer_id").unwrap();
    // Not used here, but a tracker needs them.
    divan::black_box((bytes(info_hash), bytes(peer_id)));
    let offers = message.get_array("offers").unwrap();
    let mut offers = offers.iter();
    std::array::from_fn(|_| {
        let offer = offers.next().unwrap();
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(b"{\"action\":\"announce\",\"info_hash\":");
        simd_json::to_writer(&mut out, info_hash).unwrap();
        out.extend_from_slice(b",\"peer_id\":");
        simd_json::to_writer(&mut out, peer_id).unwrap();
        out.extend_from_slice(b",\"offer\":");
        offer.get("offer").unwrap().write(&mut out).unwrap();
        out.extend_from_slice(b",\"offer_id\":");
        simd_json::to_writer(&mut out, offer.get_str("offer_id").unwrap()).unwrap();
        out.extend_from_slice(b"}");
        out
    })
}

#[derive(Deserialize)]
struct Message<'a, Opaque> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    info_hash: Cow<'a, str>,
    #[serde(borrow)]
    peer_id: Cow<'a, str>,
    offers: Vec<Offer<'a, Opaque>>,
}

#[derive(Deserialize)]
struct Offer<'a, Opaque> {
    offer: Opaque,
    #[serde(borrow)]
    offer_id: Cow<'a, str>,
}

#[derive(Serialize)]
struct Relay<'a, Opaque> {
    action: &'a str,
    info_hash: &'a str,
    peer_id: &'a str,
    offer: Opaque,
    offer_id: &'a str,
}

impl<Opaque: Serialize> Message<'_, Opaque> {
    fn relayed(&self, write: impl Fn(Relay<'_, &Opaque>, &mut Vec<u8>)) -> [Vec<u8>; OFFERS] {
        divan::black_box((bytes(&self.info_hash), bytes(&self.peer_id)));
        let mut offers = self.offers.iter();
        std::array::from_fn(|_| {
            let offer = offers.next().unwrap();
            let mut out = Vec::with_capacity(4096);
            let relay = Relay {
                action: &self.action,
                info_hash: &self.info_hash,
                peer_id: &self.peer_id,
                offer: &offer.offer,
                offer_id: &offer.offer_id,
            };
            write(relay, &mut out);
            out
        })
    }
}

pub(crate) fn relayed_by_simd_serde(text: &str, scratch: &mut Scratch) -> [Vec<u8>; OFFERS] {
    scratch.text.clear();
    scratch.text.extend_from_slice(text.as_bytes());
    let message: Message<'_, simd_json::BorrowedValue<'_>> =
        simd_json::serde::from_slice_with_buffers(&mut scratch.text, &mut scratch.buffers).unwrap();
    message.relayed(|relay, out| simd_json::to_writer(out, &relay).unwrap())
}

pub(crate) fn relayed_by_raw_value(text: &str) -> [Vec<u8>; OFFERS] {
    let message: Message<'_, &RawValue> = serde_json::from_str(text).unwrap();
    message.relayed(|relay, out| serde_json::to_writer(out, &relay).unwrap())
}
