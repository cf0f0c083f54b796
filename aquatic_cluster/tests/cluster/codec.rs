//! Wire format: golden vectors, cut and extended inputs, any bytes, and the corpora of the fuzz targets.

use std::fs;
use std::path::Path;

use aquatic_cluster::counters::Counters;
use aquatic_cluster::hello::{Hello, Holds, MAX_NAME, NodeName, StreamId, StreamKind};
use aquatic_cluster::pull::{Chunk, PullMessage, Totals, What};
use aquatic_cluster::seal::{NotOpened, Secret, SecretLength};
use aquatic_cluster::wire::{Batch, Header, Kind, MAX_RECORDS, NotOurs, Run, ShortRun};
use aquatic_common::Family;
use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use crate::properties::{SECRET, check_message, check_operations, sealed};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header() -> Header {
    let run = Run(std::array::from_fn(|index| index as u8));
    Header { kind: Kind::Changes, core: 0x0102, run, sequence: 3, to: None }
}

fn directed() -> Header {
    Header { kind: Kind::Pull, to: Some(ShortRun([9; 8])), ..header() }
}

fn hello() -> Hello {
    let stream = |kind, core| StreamId { kind, core };
    Hello {
        clock: 5_000,
        calendar: 1_800_000_000,
        complete: Some(4),
        holds: Holds::Everything,
        restored: false,
        leaving: true,
        name: NodeName::new("fra-1").unwrap(),
        version: "0.1.0".to_owned(),
        own_peers: [7, 8],
        connections: 9,
        counters: Counters { announces: 10, scrapes: 11, completed: 12, published: 13 },
        streams: vec![(stream(StreamKind::Changes, 0), 14), (stream(StreamKind::WebTorrent, 255), 15)],
    }
}

fn pull_messages() -> Vec<(PullMessage<'static>, &'static str)> {
    let totals = Totals { torrents: 3, peers: 4 };
    let chunk = Chunk { session: 1, index: 2, clock: 3, family: Family::V6, torrents: &[0xaa, 0xbb] };
    let known = vec![(ShortRun([5; 8]), 6)];
    vec![
        (PullMessage::Begin { pull: 1, what: What::All }, "010100000000"),
        (PullMessage::Begin { pull: 1, what: What::Own { max_age: 2 } }, "01010000000102000000"),
        (
            PullMessage::Begun { pull: 1, session: 2, known },
            "020100000002000000010005050505050505050600\
            0000",
        ),
        (PullMessage::Busy { pull: 1 }, "0301000000"),
        (PullMessage::Next { session: 1, index: 2 }, "040100000002000000"),
        (
            PullMessage::Chunk(chunk),
            "05010000000200000003000000000000000\
            6aabb",
        ),
        (
            PullMessage::End { session: 1, index: 2, totals },
            "060100000002000000030000000000000004000000\
            00000000",
        ),
        (PullMessage::Wait { session: 1 }, "0701000000"),
        (PullMessage::Unknown { session: 1 }, "0801000000"),
        (PullMessage::Keep { session: 1 }, "0901000000"),
        (PullMessage::Done { session: 1 }, "0a01000000"),
        (PullMessage::Again { kind: StreamKind::WebTorrent }, "0b02"),
    ]
}

#[test]
fn headers_are_written_as_documented() {
    let mut out = Vec::new();
    header().write(&mut out);
    assert_eq!(hex(&out), "61716301010201000102030405060708090a0b0c0d0e0f0300000000000000");
    let mut out = Vec::new();
    directed().write(&mut out);
    assert_eq!(hex(&out), "61716301040201000102030405060708090a0b0c0d0e0f03000000000000000909090909090909");
    for header in [header(), directed()] {
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!(Header::read(&out), Ok(header));
        for length in 0..out.len() {
            assert_eq!(Header::read(&out[..length]), Err(NotOurs::Foreign), "{length}");
        }
        out[3] = 2;
        assert_eq!(Header::read(&out), Err(NotOurs::Version(2)));
        out[0] = b'b';
        assert_eq!(Header::read(&out), Err(NotOurs::Foreign));
    }
}

/// Nodes of one version understand each other only as long as this does not change.
#[test]
fn sealed_messages_are_the_same_for_all_nodes() {
    let message = sealed(&header(), b"body");
    assert_eq!(hex(&message[31..]), "80725bb7559652028902eef590fc091557888ff1");
    assert_eq!(hex(&Secret::new(&SECRET).unwrap().derive("connection ids 20635")[..8]), "795286b1f209e7ee");
}

#[test]
fn every_changed_bit_breaks_the_seal() {
    let secret = Secret::new(&SECRET).unwrap();
    for header in [header(), directed()] {
        let message = sealed(&header, b"body");
        let own = header.to.unwrap_or(ShortRun([0; 8]));
        assert_eq!(secret.open(own, &mut message.clone()), Ok((header, &b"body"[..])));
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(secret.open(own, &mut changed).is_err(), "bit {bit}");
        }
        for length in 0..message.len() {
            assert!(secret.open(own, &mut message[..length].to_vec()).is_err());
        }
        let mut extended = [message.as_slice(), &[0]].concat();
        assert_eq!(secret.open(own, &mut extended), Err(NotOpened::Secret));
        let other = Secret::new(&[7; 32]).unwrap();
        assert_eq!(other.open(own, &mut message.clone()), Err(NotOpened::Secret));
    }
    let mut message = sealed(&directed(), b"body");
    assert_eq!(secret.open(ShortRun([8; 8]), &mut message), Err(NotOpened::OtherRun));
    let mut long = vec![0; 400_000];
    long[..31].copy_from_slice(&sealed(&header(), b"")[..31]);
    assert_eq!(secret.open(ShortRun([0; 8]), &mut long), Err(NotOpened::TooLong));
}

#[test]
fn secrets_have_a_least_length_and_are_not_shown() {
    assert_eq!(Secret::new(&[1; 31]).map(|_| ()), Err(SecretLength));
    assert_eq!(Secret::new(&[1; 4097]).map(|_| ()), Err(SecretLength));
    assert_eq!(format!("{:?}", Secret::new(&[1; 32]).unwrap()), "Secret { .. }");
}

#[test]
fn hellos_are_written_as_documented() {
    let mut out = Vec::new();
    hello().write(&mut out);
    let expected = [
        "8813000000000000",
        "00d2496b00000000",
        "05",
        "04000000",
        "056672612d31",
        "05302e312e30",
        "07000000000000000800000000000000",
        "09000000",
        "0a000000000000000b000000000000000c000000000000000d00000000000000",
        "0200",
        "0100000e00000000000000",
        "02ff000f00000000000000",
    ];
    assert_eq!(hex(&out), expected.concat());
    assert_eq!(Hello::read(&out), Ok(hello()));
    for length in 0..out.len() {
        assert!(Hello::read(&out[..length]).is_err(), "{length}");
    }
    out.extend_from_slice(b"of a later version");
    assert_eq!(Hello::read(&out), Ok(hello()));
    for (holds, restored, flags, last) in [
        (Holds::Parts(3), false, 1 | 2 | 4, Some(3)),
        (Holds::Everything, true, 1 | 4 | 8, None),
        (Holds::Nothing, false, 1 | 4 | 16, None),
    ] {
        let hello = Hello { holds, restored, ..hello() };
        out.clear();
        hello.write(&mut out);
        assert_eq!(out[16], flags, "{holds:?}");
        assert_eq!(out.last().copied().filter(|_| matches!(holds, Holds::Parts(_))), last);
        assert_eq!(Hello::read(&out), Ok(hello));
    }
}

#[test]
fn names_fit_into_subjects() {
    for name in ["a", "fra-1_B", &"n".repeat(MAX_NAME)] {
        assert_eq!(NodeName::new(name).unwrap().as_str(), name);
    }
    for name in ["", "a.b", "a*", "a>", "a b", "ä", &"n".repeat(MAX_NAME + 1)] {
        assert_eq!(NodeName::new(name), None, "{name}");
    }
    let mut out = Vec::new();
    hello().write(&mut out);
    out[22] = b'.';
    assert!(Hello::read(&out).is_err(), "a name that is no part of a subject");
}

#[test]
fn pull_messages_are_written_as_documented() {
    for (message, expected) in pull_messages() {
        let mut out = Vec::new();
        message.write(&mut out);
        assert_eq!(hex(&out), expected, "{message:?}");
        assert_eq!(PullMessage::read(&out), Ok(message.clone()));
        let is_chunk = matches!(message, PullMessage::Chunk(_));
        for length in 0..out.len() {
            // A chunk may be shorter, not empty.
            let cut = PullMessage::read(&out[..length]);
            assert!(cut.is_err() || is_chunk && length > 18, "{message:?} cut to {length}");
        }
        out.push(0);
        assert!(PullMessage::read(&out).is_err() || is_chunk, "{message:?} extended");
    }
}

#[test]
fn batches_are_written_as_documented() {
    for (family, number) in [(Some(Family::V4), "04"), (Some(Family::V6), "06"), (None, "00")] {
        let batch = Batch { clock: 1, family, records: &[1, 2, 3] };
        let mut out = Vec::new();
        batch.write(&mut out);
        assert_eq!(hex(&out), format!("0100000000000000{number}010203"));
        assert_eq!(Batch::read(&out), Ok(batch));
        assert!((0..10).all(|length| Batch::read(&out[..length]).is_err()));
    }
    let mut long = vec![0; 9 + MAX_RECORDS];
    assert!(Batch::read(&long).is_ok());
    long.push(0);
    assert!(Batch::read(&long).is_err());
}

#[test]
fn corpora_of_the_fuzz_targets() {
    for (target, check) in
        [("cluster_message", check_message as fn(&[u8])), ("cluster_operations", check_operations)]
    {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut replayed = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            check(&fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed >= 10, "only {replayed} files in {}", corpus.display());
    }
}

/// Writes what the corpora begin with; to be run when the format changes.
#[test]
#[ignore = "writes into the repository"]
fn write_corpora() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cluster_message");
    fs::create_dir_all(&corpus).unwrap();
    for (index, (message, _)) in pull_messages().into_iter().enumerate() {
        let mut out = Vec::new();
        message.write(&mut out);
        fs::write(corpus.join(format!("pull-{index:02}")), out).unwrap();
    }
    let mut out = Vec::new();
    hello().write(&mut out);
    fs::write(corpus.join("hello"), out).unwrap();
    let mut out = Vec::new();
    Batch { clock: 1, family: Some(Family::V4), records: &[7; 28] }.write(&mut out);
    fs::write(corpus.join("batch"), out).unwrap();
    fs::write(corpus.join("sealed"), sealed(&directed(), b"body")).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..200), first in 0..12_u8) {
        check_message(&bytes);
        check_message(&[&[first], bytes.as_slice()].concat());
        check_message(&[b"aqc\x01", bytes.as_slice()].concat());
    }

    #[test]
    fn any_operations_leave_a_node_within_its_bounds(bytes in vec(any::<u8>(), 0..2000)) {
        check_operations(&bytes);
    }
}
