//! What holds for any file that is read as an access list or as a block list. For the tests and the fuzz
//! target `lists`.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aquatic_common::list::{ListEntry, ListParser, ParseListError};
use aquatic_common::{Family, InfoHash, InfoHashSet, Prefix, PrefixSet};

/// Checks that all bytes but the first, in pieces of any size (one of them is the first byte), are read as by
/// a naive reader that sees them all at once: as info hashes and as networks.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((&piece, text)) = bytes.split_first() else { return };
    let piece = usize::from(piece);
    if let Some(info_hashes) = check_list(piece, text, |word| word.parse::<InfoHash>().ok()) {
        let set = InfoHashSet::from_unsorted(info_hashes.clone());
        assert!(info_hashes.iter().all(|info_hash| set.contains(info_hash)));
    }
    let network = |word: &str| word.parse::<Prefix>().ok().filter(|network| network.length() > 0);
    if let Some(networks) = check_list(piece, text, network) {
        check_networks(&networks);
    }
}

/// Checks how a text is read. Returns its entries if it is a list.
fn check_list<E: ListEntry + PartialEq + Debug>(
    piece: usize,
    text: &[u8],
    parse: impl Fn(&str) -> Option<E>,
) -> Option<Vec<E>> {
    let (entries, bad) = naive(text, parse);
    for piece in [1, piece.max(1), text.len().max(1)] {
        for allow_empty in [false, true] {
            let mut parser = ListParser::new(text.len() as u64);
            text.chunks(piece).for_each(|piece| parser.feed(piece));
            compare(&parser.finish(allow_empty), (&entries, bad), allow_empty);
        }
    }
    (bad == 0).then_some(entries)
}

/// Entries, and the number of lines that are none.
fn naive<E>(text: &[u8], parse: impl Fn(&str) -> Option<E>) -> (Vec<E>, u64) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut entries, mut bad) = (Vec::new(), 0);
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let begin = line.iter().position(|byte| !is_white(byte)).unwrap_or(line.len());
        let line = &line[begin..];
        let end = line.iter().position(|byte| *byte == b',' || is_white(byte)).unwrap_or(line.len());
        let word = &line[..end];
        if line.is_empty() || word.starts_with(b"#") || word.starts_with(b";") || word.starts_with(b"//") {
            continue;
        }
        match str::from_utf8(word).ok().and_then(&parse) {
            Some(entry) => entries.push(entry),
            None => bad += 1,
        }
    }
    (entries, bad)
}

fn compare<E: PartialEq + Debug>(
    read: &Result<Vec<E>, ParseListError>,
    (entries, bad): (&Vec<E>, u64),
    allow_empty: bool,
) {
    match read {
        Ok(read) => assert!(bad == 0 && read == entries && (allow_empty || !entries.is_empty())),
        Err(ParseListError::BadLines { first, total, .. }) => {
            assert_eq!((*total, first.len() as u64), (bad, bad.min(10)));
            assert!(first.is_sorted_by(|one, next| one.number < next.number));
        }
        Err(ParseListError::Empty { .. }) => assert!(!allow_empty && entries.is_empty() && bad == 0),
        Err(ParseListError::TooLong { .. }) => panic!("a text of less than a gigabyte is too long"),
    }
}

/// Checks that a set of networks holds the first and last address of each, and that a network is read as it
/// is written.
fn check_networks(networks: &[Prefix]) {
    let set: PrefixSet = networks.iter().copied().collect();
    assert!(set.len() <= networks.len());
    for network in networks {
        let (first, last) = network.range();
        for address in [first, last] {
            assert!(set.contains(address_of(network, address)), "{network}");
        }
        assert_eq!(network.to_string().parse(), Ok(*network));
    }
}

fn address_of(network: &Prefix, bits: u128) -> IpAddr {
    match network.family() {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}
