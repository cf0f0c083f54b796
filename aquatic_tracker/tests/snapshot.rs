//! Snapshots as bytes: what is written is read, and what is not intact is left out, whatever happened to it.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::indexing_slicing,
    reason = "a test that finds anything else has failed"
)]

mod properties;

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aquatic_common::{Family, InfoHash};
use aquatic_swarm::{SaveSwarms, SavedPeer, SavedTorrent};
use aquatic_tracker::snapshot::format::{HEADER_LENGTH, Kind, SECTION_HEADER_LENGTH, SectionHeader, Torrent};
use aquatic_tracker::snapshot::stream::{Chunks, Damage, ReadError, Reader, Writer};
use properties::{HEADER, check_bytes};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

type Torrents = Vec<(SavedTorrent, Vec<SavedPeer>)>;

fn random_torrents(count: usize, rng: &mut impl Rng) -> Torrents {
    let mut torrents: Torrents = (0..count).map(|_| random_torrent(rng)).collect();
    torrents.sort_by_key(|(torrent, _)| torrent.family.index());
    torrents
}

fn random_torrent(rng: &mut impl Rng) -> (SavedTorrent, Vec<SavedPeer>) {
    let family = if rng.random() { Family::V4 } else { Family::V6 };
    let peers: Vec<SavedPeer> = (0..rng.random_range(1..40))
        .map(|_| SavedPeer {
            address: match family {
                Family::V4 => (Ipv4Addr::from_bits(rng.random()), rng.random()).into(),
                Family::V6 => (Ipv6Addr::from_bits(rng.random()), rng.random()).into(),
            },
            age: rng.random_range(0..1 << 24),
            seeder: rng.random(),
            completion_counted: rng.random(),
            remote: rng.random(),
        })
        .collect();
    let downloaded = rng.random::<u32>() >> rng.random_range(0..32);
    let info_hash = InfoHash(rng.random());
    (SavedTorrent { family, info_hash, downloaded, peers: peers.len() as u32 }, peers)
}

/// A snapshot with a section for about as many torrents.
fn write(torrents: &Torrents, per_section: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, &HEADER).unwrap();
    for part in torrents.chunks(per_section) {
        let mut chunks = Chunks::default();
        for (torrent, peers) in part {
            chunks.torrent(*torrent);
            peers.iter().for_each(|peer| chunks.peer(*peer));
        }
        while let Some(chunk) = chunks.pop_full() {
            writer.write(&chunk).unwrap();
        }
        writer.write(&chunks.finish()).unwrap();
    }
    let (totals, length) = writer.finish().unwrap();
    assert_eq!((totals.torrents as usize, length as usize), (torrents.len(), bytes.len()));
    bytes
}

fn read(bytes: &[u8]) -> Result<(Torrents, Damage), ReadError> {
    let mut reader = Reader::begin(bytes)?;
    assert_eq!(reader.header(), HEADER);
    let mut torrents = Torrents::new();
    while let Some((family, mut content)) = reader.next_section() {
        while !content.is_empty() {
            let torrent = Torrent::take(family, &mut content).unwrap();
            torrents.push((torrent.saved, torrent.peers().collect()));
        }
    }
    assert_eq!(reader.totals().is_none(), reader.damage().truncated);
    Ok((torrents, reader.damage()))
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..20 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let torrents = random_torrents([0, 1, 30, 5000][seed as usize % 4], &mut rng);
        let bytes = write(&torrents, [1, 7, 100_000][seed as usize % 3]);
        let (mut got, damage) = read(&bytes).unwrap();
        assert_eq!(damage, Damage::default(), "seed {seed}");
        // Chunks that are full are written later than they were begun.
        let key = |entry: &(SavedTorrent, Vec<SavedPeer>)| (entry.0.info_hash.0, entry.0.family.index());
        let mut expected = torrents;
        got.sort_by_key(key);
        expected.sort_by_key(key);
        assert!(got == expected, "seed {seed}");
    }
}

#[test]
fn a_file_that_ends_early_is_read_as_far_as_sections_are_complete() {
    let torrents = random_torrents(30, &mut Xoshiro256PlusPlus::seed_from_u64(1));
    let bytes = write(&torrents, 3);
    let mut longest = 0;
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Err(ReadError::Io(error)) => {
                assert!(len < HEADER_LENGTH && error.kind() == std::io::ErrorKind::UnexpectedEof);
            }
            Err(error) => panic!("{len}: {error}"),
            Ok((got, damage)) => {
                assert_eq!(damage, Damage { truncated: true, ..Damage::default() }, "length {len}");
                assert!(torrents.starts_with(&got) && got.len() >= longest, "length {len}");
                longest = got.len();
            }
        }
    }
    assert_eq!(longest, torrents.len());
}

#[test]
fn a_flipped_bit_costs_its_section_only() {
    let torrents = random_torrents(9, &mut Xoshiro256PlusPlus::seed_from_u64(2));
    let bytes = write(&torrents, 3);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok((got, damage)) = read(&damaged) else {
            assert!(bit / 8 < HEADER_LENGTH, "bit {bit}");
            continue;
        };
        assert_ne!(damage, Damage::default(), "bit {bit}");
        let known = got.iter().filter(|entry| torrents.contains(entry)).count();
        assert_eq!(known, got.len(), "bit {bit}: something else was read");
        let hashes: HashSet<_> =
            got.iter().map(|(torrent, _)| (torrent.info_hash, torrent.family.index())).collect();
        assert_eq!(hashes.len(), got.len(), "bit {bit}: something was read twice");
        // A length that is wrong makes what follows unreadable.
        if !damage.truncated {
            assert!(got.len() >= torrents.len() - 3, "bit {bit}: {} left", got.len());
        }
    }
}

#[test]
fn random_bytes_are_no_snapshot_and_random_sections_no_torrents() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    for round in 0..3000 {
        let mut bytes = vec![0; rng.random_range(0..2000)];
        rng.fill_bytes(&mut bytes);
        assert!(read(&bytes).is_err(), "round {round}");
        let behind_header = [&HEADER.encode()[..], &bytes].concat();
        let (torrents, damage) = read(&behind_header).unwrap();
        assert!(torrents.is_empty() && damage.truncated, "round {round}");
        // A checksum that is right does not make the content right.
        let kind = Kind::Torrents(if rng.random() { Family::V4 } else { Family::V6 });
        let header = SectionHeader::encode(kind, 0, &bytes);
        let (torrents, damage) = read(&[&HEADER.encode()[..], &header, &bytes].concat()).unwrap();
        let is_whole = damage.sections == 0;
        assert!(is_whole || torrents.is_empty(), "round {round}: a part of a section was read");
    }
}

#[test]
fn sections_that_are_missing_or_of_a_later_version_are_noticed_and_skipped() {
    let torrents = random_torrents(9, &mut Xoshiro256PlusPlus::seed_from_u64(4));
    let bytes = write(&torrents, 3);
    let section_length = |at: usize| {
        let header = bytes[at..at + SECTION_HEADER_LENGTH].try_into().unwrap();
        SECTION_HEADER_LENGTH + SectionHeader::decode(header).unwrap().length
    };
    let second = HEADER_LENGTH + section_length(HEADER_LENGTH);
    let third = second + section_length(second);
    let without_second = [&bytes[..second], &bytes[third..]].concat();
    let (got, damage) = read(&without_second).unwrap();
    assert_eq!(damage, Damage { missing: 1, ..Damage::default() });
    assert!(torrents.starts_with(&got[..1]) && got.len() < torrents.len());

    let later = [&SectionHeader::encode(Kind::Unknown(77), 1, b"later")[..], b"later"].concat();
    let replaced = [&bytes[..second], &later, &bytes[third..]].concat();
    let (got, damage) = read(&replaced).unwrap();
    assert_eq!((damage, got.len() < torrents.len()), (Damage::default(), true));

    let mut version = bytes.clone();
    version[8] = 9;
    let error = read(&version).unwrap_err().to_string();
    assert!(error.contains("its version, 9, is unknown"), "{error}");
    let foreign = read(&[b'x'; 200]).unwrap_err().to_string();
    assert!(foreign.contains("no snapshot"), "{foreign}");
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/snapshot");
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = corpus();
    assert!(corpus.len() >= 10, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| check_bytes(bytes));
}

#[test]
fn what_the_fuzz_target_knows_with_other_bytes() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    for bytes in corpus().iter().filter(|bytes| !bytes.is_empty()) {
        for _ in 0..50 {
            let mut changed = bytes[..rng.random_range(1..=bytes.len())].to_vec();
            let at = rng.random_range(0..changed.len());
            changed[at] = rng.random();
            check_bytes(&changed);
        }
    }
}
