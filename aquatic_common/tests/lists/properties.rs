//! What holds for any file that is read as an access list or as a list of networks. For the tests and the
//! fuzz target `lists`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aquatic_common::list::{ListParser, ParseListError};
use aquatic_common::{Family, InfoHash, InfoHashSet, Prefix, PrefixSet};

/// Checks that all bytes but the first, in pieces of any size (one of them is the first byte), are read as by
/// a naive reader that sees them all at once; and as a list of networks.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((&piece, text)) = bytes.split_first() else { return };
    let expected = naive(text);
    for piece in [1, usize::from(piece).max(1), text.len().max(1)] {
        for allow_empty in [false, true] {
            let mut parser = ListParser::new(text.len() as u64);
            text.chunks(piece).for_each(|piece| parser.feed(piece));
            compare(&parser.finish(allow_empty), &expected, allow_empty);
        }
    }
    if let Ok(text) = str::from_utf8(text) {
        check_networks(text);
    }
}

/// Info hashes, and the number of lines that are none.
fn naive(text: &[u8]) -> (BTreeSet<InfoHash>, u64) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut info_hashes, mut bad) = (BTreeSet::new(), 0);
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let begin = line.iter().position(|byte| !is_white(byte)).unwrap_or(line.len());
        let line = &line[begin..];
        let end = line.iter().position(|byte| *byte == b',' || is_white(byte)).unwrap_or(line.len());
        let word = &line[..end];
        if line.is_empty() || word.starts_with(b"#") || word.starts_with(b";") || word.starts_with(b"//") {
            continue;
        }
        match str::from_utf8(word).ok().and_then(|word| word.parse().ok()) {
            Some(info_hash) => {
                info_hashes.insert(info_hash);
            }
            None => bad += 1,
        }
    }
    (info_hashes, bad)
}

fn compare(
    read: &Result<InfoHashSet, ParseListError>,
    (info_hashes, bad): &(BTreeSet<InfoHash>, u64),
    allow_empty: bool,
) {
    match read {
        Ok(set) => {
            assert!(*bad == 0 && set.len() == info_hashes.len());
            assert!(info_hashes.iter().all(|info_hash| set.contains(info_hash)));
            assert!(allow_empty || !info_hashes.is_empty());
        }
        Err(ParseListError::BadLines { first, total }) => {
            assert_eq!((total, first.len() as u64), (bad, (*bad).min(10)));
            assert!(first.is_sorted_by(|one, next| one.number < next.number));
        }
        Err(ParseListError::Empty) => assert!(!allow_empty && info_hashes.is_empty() && *bad == 0),
        Err(ParseListError::TooLong) => panic!("a text of less than a gigabyte is too long"),
    }
}

/// Checks that a list of networks holds the first and last address of each of its lines, and that a network
/// is read as it is written.
fn check_networks(text: &str) {
    let lines = text.lines().map(str::trim);
    let lines =
        lines.filter(|line| !line.is_empty() && !["#", ";", "//"].iter().any(|sign| line.starts_with(sign)));
    let words = lines.map(|line| line.split_ascii_whitespace().next().unwrap_or_default());
    let networks: Vec<Result<Prefix, _>> = words.map(str::parse).collect();
    let bad = networks.iter().filter(|network| network.is_err()).count();
    match PrefixSet::parse_lines(text) {
        Ok(set) => {
            assert!(bad == 0 && set.len() <= networks.len());
            for network in networks.into_iter().flatten() {
                let (first, last) = network.range();
                for address in [first, last] {
                    assert!(set.contains(address_of(&network, address)), "{network}");
                }
                assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
        Err(error) => {
            assert!(bad > 0);
            assert!(error.to_string().starts_with(&format!("{bad} line(s)")), "{error}");
        }
    }
}

fn address_of(network: &Prefix, bits: u128) -> IpAddr {
    match network.family() {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}
