//! Measures saving and loading a snapshot: time, size, and the longest step of a core. Besides, the same of
//! ranking torrents for `aquatic ctl top torrents`.
//!
//! ```text
//! cargo run --release -p aquatic_tracker --example snapshot -- FILE [TORRENTS [PEERS]]
//! ```
//!
//! The file can be put into a state directory as `snapshot`, to measure the tracker as a whole.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "prints what it measures")]

use std::fs::File;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aquatic_common::config::LimitsConfig;
use aquatic_common::{AnnounceEvent, InfoHash, Seconds};
use aquatic_swarm::{
    Announce, Families, HashKey, Origin, PeerBuffers, RankBy, RankCursor, Restored, SaveFilter, SavePass,
    SavedPeer, Shard, ShardLimits, TopTorrents,
};
use aquatic_tracker::snapshot::format::{Header, Torrent};
use aquatic_tracker::snapshot::stream::{Chunks, Reader, Writer};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// As in the tracker.
const STEP: Duration = Duration::from_micros(200);
const SLICE: u64 = 256;

const NOW: Seconds = Seconds(100_000);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("the first argument is the file to write")?;
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u32>());
    let (torrents, peers) = (number(10_000_000)?, number(25_000_000)?);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut shard = new_shard(KEYS[0]);
    fill(&mut shard, torrents, peers, &mut rng);
    let stats = shard.stats().v4;
    println!("{} torrents, {} peers", stats.torrents, stats.seeders + stats.leechers);
    rank(&shard);
    save(&mut shard, &path)?;
    drop(shard);
    for (key, whose) in KEYS.into_iter().zip(["the same", "other"]) {
        println!("with {whose} keys:");
        load(&path, key, &mut rng)?;
    }
    Ok(())
}

/// Keys of the store: those of a process that goes on with a state directory, in whose order the snapshot
/// stands, and those of any other.
const KEYS: [HashKey; 2] = [HashKey([7; 16]), HashKey([8; 16])];

fn new_shard(key: HashKey) -> Shard {
    Shard::new(ShardLimits::share_of(&LimitsConfig::default(), 1), key)
}

/// Each torrent has a peer, and a few have many.
fn fill(shard: &mut Shard, torrents: u32, peers: u32, rng: &mut SmallRng) {
    for number in 0..peers {
        let skewed = rng.random::<f64>().powi(6) * f64::from(torrents);
        let torrent = if number < torrents { number } else { skewed as u32 };
        let mut info_hash = [0; 20];
        info_hash[..8].copy_from_slice(&u64::from(torrent).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        info_hash[8..12].copy_from_slice(&torrent.to_le_bytes());
        let announce = Announce {
            info_hash: InfoHash(info_hash),
            address: (Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1)), 6881).into(),
            seeder: rng.random_bool(0.4),
            event: AnnounceEvent::None,
            numwant: 0,
            families: Families::Own,
        };
        let now = Seconds(NOW.0 - rng.random_range(0..1800));
        shard.announce(&announce, now, rng, PeerBuffers::default());
    }
}

/// Durations of the steps of a core.
#[derive(Default)]
struct Steps {
    all: Vec<Duration>,
}

impl Steps {
    fn print(&mut self, what: &str) {
        self.all.sort_unstable();
        let at = |share: f64| self.all[((self.all.len() - 1) as f64 * share) as usize];
        let total: Duration = self.all.iter().sum();
        println!(
            "{what}: {total:.2?} of a core in {} steps; a step takes {:.0?} (median), {:.0?} (99.9 %), {:.0?} (longest)",
            self.all.len(),
            at(0.5),
            at(0.999),
            at(1.0)
        );
    }
}

fn rank(shard: &Shard) {
    let (mut cursor, mut top) = (RankCursor::default(), TopTorrents::new(RankBy::Peers, 200));
    let (mut steps, mut ended) = (Steps::default(), false);
    while !ended {
        let begin = Instant::now();
        while !ended && begin.elapsed() < STEP {
            ended = shard.rank(&mut cursor, SLICE, &mut top);
        }
        steps.all.push(begin.elapsed());
    }
    println!("the largest torrent has {} peers", top.into_sorted().first().map_or(0, |(count, _)| *count));
    steps.print("ranking");
}

fn save(shard: &mut Shard, path: &str) -> anyhow::Result<()> {
    let calendar = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let header = Header { epoch: [0; 16], since_epoch: u64::from(NOW.0), calendar };
    let begin = Instant::now();
    let mut file = File::create(path)?;
    let mut writer = Writer::begin(&mut file, &header)?;
    let (mut chunks, mut steps, mut ended) = (Chunks::default(), Steps::default(), false);
    shard.begin_saving(SavePass::Snapshot);
    while !ended {
        let begin = Instant::now();
        while !ended && begin.elapsed() < STEP {
            ended = shard.save((SavePass::Snapshot, SaveFilter::All), (NOW, 0), SLICE, &mut chunks).ended;
        }
        steps.all.push(begin.elapsed());
        while let Some(chunk) = chunks.pop_full() {
            writer.write(&chunk)?;
        }
    }
    writer.write(&chunks.finish())?;
    let (totals, bytes) = writer.finish()?;
    let written = begin.elapsed();
    file.sync_all()?;
    println!(
        "saved {} peers, {bytes} bytes ({:.1} per peer), in {written:.2?} and {:.2?} until it was on disk",
        totals.peers,
        bytes as f64 / totals.peers as f64,
        begin.elapsed()
    );
    steps.print("saving");
    Ok(())
}

fn load(path: &str, key: HashKey, rng: &mut SmallRng) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut reader = Reader::begin(BufReader::with_capacity(256 * 1024, File::open(path)?))?;
    let (mut shard, mut steps, mut restored) = (new_shard(key), Steps::default(), Restored::default());
    while let Some((family, mut content)) = reader.next_section() {
        while !content.is_empty() {
            let begin = Instant::now();
            while begin.elapsed() < STEP && !content.is_empty() {
                let (mut torrents, mut peers) = (Vec::new(), 0);
                while !content.is_empty() && torrents.len() < 32 && peers < 256 {
                    let torrent = Torrent::take(family, &mut content).ok().context("verified before")?;
                    peers += torrent.saved.peers;
                    torrents.push(torrent);
                }
                let hashes: Vec<InfoHash> = torrents.iter().map(|torrent| torrent.saved.info_hash).collect();
                shard.prefetch_scrape(family, &hashes);
                for torrent in torrents {
                    let peers = torrent.peers().map(|peer| SavedPeer { age: peer.age + 30, ..peer });
                    restored.add(shard.restore((&torrent.saved, Origin::Own), peers, NOW, rng));
                }
            }
            steps.all.push(begin.elapsed());
        }
    }
    println!("loaded {} peers in {:.2?}", restored.added, begin.elapsed());
    steps.print("loading");
    Ok(())
}
