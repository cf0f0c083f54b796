//! What holds for any bytes that are taken for a snapshot. For the tests and the fuzz target `snapshot`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use aquatic_common::{Family, InfoHash, Seconds};
use aquatic_swarm::{HashKey, Origin, SaveFilter, SavePass, Shard, ShardLimits};
use aquatic_tracker::snapshot::format::{
    HEADER_LENGTH, Header, Kind, SectionHeader, Torrent, write_peer, write_torrent,
};
use aquatic_tracker::snapshot::stream::{Chunks, Damage, Reader, Writer};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

/// Time at which everything happens, with the tick of the store in which ages are exact.
const NOW: Seconds = Seconds(1 << 20);

/// The beginning of a snapshot with the right checksum.
pub(crate) const HEADER: Header = Header { epoch: [4; 16], since_epoch: 77, calendar: 1_700_000_000 };

/// Checks a file. The first byte says how the rest becomes one: as it is, behind a header, or as sections
/// with checksums that are right: one byte for the kind and whether the section is damaged, one for its
/// number, two for its length, and its content.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    match how % 4 {
        0 => check_file(rest),
        1 => check_file(&[&HEADER.encode(), rest].concat()),
        _ => check_file(&file_of_sections(rest)),
    }
}

fn file_of_sections(mut rest: &[u8]) -> Vec<u8> {
    let mut file = HEADER.encode().to_vec();
    while let [what, number, low, high, behind @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
        let (content, next) = behind.split_at(length);
        let kind = match what & 7 {
            0..=2 => Kind::Torrents(Family::V4),
            3..=5 => Kind::Torrents(Family::V6),
            6 => Kind::End,
            _ => Kind::Unknown(u32::from(*what) + 4),
        };
        let begin = file.len();
        file.extend_from_slice(&SectionHeader::encode(kind, u64::from(*number), content));
        file.extend_from_slice(content);
        if what & 0x80 != 0 && what & 0x40 != 0 {
            // A bit of the header or the content is wrong.
            let at = begin + usize::from(*number) % (file.len() - begin);
            file[at] ^= 1 << (what >> 3 & 7);
        }
        rest = next;
    }
    file
}

/// Reads a file to its end, stores what is in it, saves it again and reads that.
fn check_file(bytes: &[u8]) {
    let Ok(mut reader) = Reader::begin(bytes) else { return };
    assert!(bytes.len() >= HEADER_LENGTH);
    let limits = ShardLimits { max_peers: 1 << 30, max_peers_per_address: 1 << 20, ..ShardLimits::default() };
    let mut shard = Shard::new(limits, HashKey([7; 16]));
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut read = 0;
    while let Some((family, mut content)) = reader.next_section() {
        read += content.len();
        while !content.is_empty() {
            let torrent = Torrent::take(family, &mut content).unwrap();
            check_torrent(&torrent);
            let _ = shard.restore((&torrent.saved, Origin::Own), torrent.peers(), NOW, &mut rng);
        }
    }
    assert!(read <= bytes.len(), "nothing is read twice");
    let damage = reader.damage();
    assert_eq!(reader.totals().is_none(), damage.truncated, "{damage:?}");
    shard.check_invariants().unwrap();
    check_saved(&mut shard);
}

fn check_torrent(torrent: &Torrent<'_>) {
    let peers: Vec<_> = torrent.peers().collect();
    assert_eq!(peers.len(), torrent.saved.peers as usize);
    let mut written = Vec::new();
    write_torrent(&torrent.saved, &mut written);
    peers.iter().for_each(|peer| write_peer(peer, &mut written));
    let again = Torrent::take(torrent.saved.family, &mut written.as_slice()).unwrap();
    assert_eq!(again.saved, torrent.saved);
    assert!(again.peers().eq(peers));
}

type Peers = BTreeSet<(InfoHash, SocketAddr, bool, bool)>;

fn check_saved(shard: &mut Shard) {
    let mut chunks = Chunks::default();
    let pass = (SavePass::Snapshot, SaveFilter::All);
    shard.begin_saving(pass.0);
    while !shard.save(pass, (NOW, 0), 1000, &mut chunks).ended {}
    let mut file = Vec::new();
    let mut writer = Writer::begin(&mut file, &HEADER).unwrap();
    while let Some(chunk) = chunks.pop_full() {
        writer.write(&chunk).unwrap();
    }
    writer.write(&chunks.finish()).unwrap();
    writer.finish().unwrap();

    let mut reader = Reader::begin(file.as_slice()).unwrap();
    let (mut stored, mut saved) = (Peers::new(), Peers::new());
    while let Some((family, mut content)) = reader.next_section() {
        while !content.is_empty() {
            let torrent = Torrent::take(family, &mut content).unwrap();
            let info_hash = torrent.saved.info_hash;
            saved.extend(torrent.peers().map(|peer| (info_hash, peer.address, peer.seeder, peer.remote)));
        }
    }
    assert_eq!(reader.damage(), Damage::default());
    shard.for_each_stamp(|info_hash, address, known| {
        stored.insert((info_hash, address, known.is_seeder(), known.is_remote()));
    });
    assert_eq!(stored, saved);
}
