//! What an announce with ten offers costs, from its text to the texts of ten messages for other peers, and
//! what it would cost with other ways to read JSON. Run with `cargo bench -p aquatic_ws_protocol`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

mod others;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_ws_protocol::{
    Announce, AnnounceReply, ClientMessage, Description, Limits, Offer, OfferId, OfferRelays, TrackerMessage,
};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

const OFFERS: usize = 10;

/// A session description as browsers make it for a data channel, with some candidates in it.
fn sdp() -> String {
    let candidate = |at: usize| {
        format!(
            "a=candidate:{at}28371{at} 1 udp {at}113937151 192.0.2.{at} 5{at}123 typ srflx raddr 0.0.0.0 rport 0 \
             generation 0 network-cost 999\r\n"
        )
    };
    let candidates: String = (1..=8).map(candidate).collect();
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
         c=IN IP4 0.0.0.0\r\n{candidates}a=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlzX\r\n\
         a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:\
         A1:2C:19:08\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"
    )
}

fn random_bytes(state: &mut u64) -> [u8; 20] {
    std::array::from_fn(|_| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    })
}

/// Messages that differ in all their random parts, so that branches on these are as hard to foresee as in a
/// tracker.
fn announces() -> Vec<String> {
    let mut state = 1;
    let offer = Description::write_offer(&sdp());
    let offer = Description::parse(&offer).unwrap();
    (0..64)
        .map(|_| {
            let mut text = String::new();
            let offers = (0..OFFERS).map(|_| random_bytes(&mut state));
            let offers = offers.map(|id| Offer { offer, offer_id: OfferId::from_bytes(&id) }).collect();
            let announce = Announce {
                info_hash: InfoHash(random_bytes(&mut state)),
                peer_id: PeerId(random_bytes(&mut state)),
                left: Some(1),
                event: AnnounceEvent::None,
                offers,
                bad_offers: 0,
            };
            ClientMessage::Announce(announce).encode(&mut text);
            text
        })
        .collect()
}

fn relayed(text: &str) -> [Vec<u8>; OFFERS] {
    let Ok(ClientMessage::Announce(announce)) = ClientMessage::parse(text, &Limits::default()) else {
        panic!("an announce")
    };
    let relays = OfferRelays::new(announce.info_hash, announce.peer_id);
    let mut offers = announce.offers.iter();
    std::array::from_fn(|_| {
        let mut out = Vec::new();
        relays.encode(offers.next().unwrap(), &mut out);
        out
    })
}

/// Measures something that is done to one message after the other.
fn each<R>(bencher: Bencher<'_, '_>, mut done: impl FnMut(&str) -> R) {
    let messages = announces();
    let length = messages.iter().map(String::len).sum::<usize>() / messages.len();
    let mut next = messages.iter().cycle();
    bencher.counter(BytesCount::new(length)).bench_local(|| done(black_box(next.next().unwrap())));
}

#[divan::bench]
fn announce_to_10_relays(bencher: Bencher<'_, '_>) {
    each(bencher, relayed);
}

#[divan::bench]
fn announce_to_10_relays_by_simd_json_tape(bencher: Bencher<'_, '_>) {
    let mut scratch = others::Scratch::new();
    each(bencher, |text| others::relayed_by_tape(text, &mut scratch));
}

#[divan::bench]
fn announce_to_10_relays_by_simd_json_serde(bencher: Bencher<'_, '_>) {
    let mut scratch = others::Scratch::new();
    each(bencher, |text| others::relayed_by_simd_serde(text, &mut scratch));
}

#[divan::bench]
fn announce_to_10_relays_by_serde_json_raw(bencher: Bencher<'_, '_>) {
    each(bencher, others::relayed_by_raw_value);
}

#[divan::bench]
fn read_announce(bencher: Bencher<'_, '_>) {
    each(bencher, |text| ClientMessage::parse(text, &Limits::default()).is_ok());
}

#[divan::bench]
fn read_announce_by_simd_json_tape_without_using_it(bencher: Bencher<'_, '_>) {
    let mut scratch = others::Scratch::new();
    each(bencher, |text| others::tape_only(text, &mut scratch));
}

#[divan::bench]
fn check_utf8(bencher: Bencher<'_, '_>) {
    each(bencher, |text| str::from_utf8(text.as_bytes()).is_ok());
}

#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    each(bencher, str::to_owned);
}

#[divan::bench]
fn read_relay(bencher: Bencher<'_, '_>) {
    let relays: Vec<_> = announces().iter().flat_map(|text| relayed(text)).collect();
    let mut next = relays.iter().cycle();
    bencher.bench_local(|| TrackerMessage::parse_bytes(black_box(next.next().unwrap())).is_ok());
}

#[divan::bench(sample_size = 1024)]
fn write_announce_reply(bencher: Bencher<'_, '_>) {
    let mut state = 1;
    let replies: Vec<_> = (0..64).map(|_| InfoHash(random_bytes(&mut state))).collect();
    let mut next = replies.iter().cycle();
    bencher.bench_local(|| {
        let mut text = String::new();
        AnnounceReply { info_hash: *next.next().unwrap(), interval: 120, complete: 3, incomplete: 45 }
            .encode(&mut text);
        text
    });
}
