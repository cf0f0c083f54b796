//! Memory and processor time of the WebTorrent swarms: `cargo bench -p aquatic_ws --bench swarms`.
//!
//! Each row fills swarms of one size, and reports resident memory per peer, the memory that `Stats` states,
//! announces per second while they grow and once they are full, offers and answers per second, and the time
//! of a pass of expiry per peer. Resident memory includes the overhead of the allocator.

#![allow(clippy::print_stdout, reason = "the table on standard output is what this program is for")]
#![allow(clippy::unwrap_used, reason = "a missing /proc ends the measurement")]

use std::hint::black_box;
use std::time::Duration;

use aquatic_common::expiry::Expire;
use aquatic_common::{Family, InfoHash, PeerId, Seconds};
use aquatic_ws::swarm::{Announce, Answer, ConnectionId, Network, OfferDigest, SwarmLimits, Swarms};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const PEERS: u32 = 1 << 20;
const CALLS: u32 = 1 << 19;
const OFFERS: usize = 5;
const AGE: u32 = 600;

const LIMITS: SwarmLimits = SwarmLimits {
    max_torrents: usize::MAX,
    max_peers: usize::MAX,
    max_peers_per_torrent: usize::MAX,
    max_peers_per_address: usize::MAX,
    max_offers: 1 << 24,
    max_offers_per_peer: 100,
    max_offer_age: 120,
};

/// Returns the processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn random_bytes(seed: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Swarms of `size` peers each.
struct Benchmark {
    size: u32,
    swarms: Swarms,
    rng: SmallRng,
    receivers: Vec<ConnectionId>,
    next_offer: u64,
}

impl Benchmark {
    fn peer(&self, number: u32) -> Announce {
        // Neighbouring numbers are in different torrents, so that swarms grow at the same time.
        let torrent = number % (PEERS / self.size);
        Announce {
            info_hash: InfoHash(random_bytes(u64::from(torrent))),
            peer_id: PeerId(random_bytes(1 << 40 | u64::from(number))),
            connection: ConnectionId { core: 0, slot: number, generation: 1 },
            network: Network::from_bits(number.wrapping_mul(0x9e37_79b1)),
            family: Family::V4,
            seeder: (number / (PEERS / self.size)).is_multiple_of(3),
            stopped: false,
            may_be_added: true,
        }
    }

    fn random_peers(&mut self) -> Vec<Announce> {
        let numbers: Vec<u32> = (0..CALLS).map(|_| self.rng.random_range(0..PEERS)).collect();
        numbers.into_iter().map(|number| self.peer(number)).collect()
    }

    fn announce_all(&mut self, announces: &[Announce], offers: usize, now: u32) -> f64 {
        let begin = cpu();
        for announce in announces {
            let mut digests = [OfferDigest(0); OFFERS];
            digests.iter_mut().zip(self.next_offer..).for_each(|(digest, number)| digest.0 = number);
            self.next_offer += OFFERS as u64;
            let (swarms, receivers) = (&mut self.swarms, &mut self.receivers);
            let offers = &digests[..offers];
            black_box(swarms.announce(announce, offers, Seconds(now), &mut self.rng, receivers));
        }
        rate(announces.len(), begin)
    }

    /// Announces with offers, each of which is answered by those who receive it.
    fn meet(&mut self, announces: &[Announce], now: u32) -> f64 {
        let begin = cpu();
        for announce in announces {
            let digests = [OfferDigest(self.next_offer), OfferDigest(self.next_offer + 1)];
            self.next_offer += 2;
            let (swarms, receivers) = (&mut self.swarms, &mut self.receivers);
            swarms.announce(announce, &digests, Seconds(now), &mut self.rng, receivers);
            let receivers = std::mem::take(&mut self.receivers);
            for (receiver, offer) in receivers.iter().zip(digests) {
                let answer = Answer {
                    info_hash: announce.info_hash,
                    peer_id: self.peer(receiver.slot).peer_id,
                    connection: *receiver,
                    to_peer_id: announce.peer_id,
                    offer,
                };
                assert!(self.swarms.answer(&answer, Seconds(now)).is_ok());
            }
            self.receivers = receivers;
        }
        rate(announces.len(), begin)
    }

    /// Returns the time of a pass of expiry per peer.
    fn pass(&mut self, now: u32) -> f64 {
        let begin = cpu();
        while !self.swarms.expire(Seconds(now), AGE, 10_000).pass_ended {}
        (cpu() - begin).as_nanos() as f64 / f64::from(PEERS)
    }
}

fn rate(calls: usize, begin: Duration) -> f64 {
    calls as f64 / (cpu() - begin).as_secs_f64() / 1e6
}

fn row(size: u32) {
    let before = resident();
    let mut bench = Benchmark {
        size,
        swarms: Swarms::new(LIMITS, [7; 16]),
        rng: SmallRng::seed_from_u64(1),
        receivers: Vec::new(),
        next_offer: 0,
    };
    let mut grow = 0.0;
    for first in (0..PEERS).step_by(CALLS as usize) {
        let announces: Vec<Announce> = (first..first + CALLS).map(|number| bench.peer(number)).collect();
        grow += bench.announce_all(&announces, 0, 0) / f64::from(PEERS / CALLS);
    }
    let memory = (resident() - before) as f64 / f64::from(PEERS);
    let stated = bench.swarms.stats().bytes as f64 / f64::from(PEERS);
    let announces = bench.random_peers();
    let plain = bench.announce_all(&announces, 0, 1);
    let offering = bench.announce_all(&announces[..announces.len() / 8], OFFERS, 1);
    let meeting = bench.meet(&announces[..announces.len() / 8], 1);
    // Ends the pass that began with the first torrent.
    bench.pass(2);
    let (kept, expired) = (bench.pass(2), bench.pass(AGE + 3));
    println!(
        "{size:>7} {memory:>10.1} {stated:>9.1} {grow:>9.2} {plain:>9.2} {offering:>9.2} {meeting:>9.2} {kept:>9.1} {expired:>9.1}"
    );
}

fn main() {
    println!("  peers      bytes     bytes       M/s       M/s       M/s       M/s         ns        ns");
    println!("   each   per peer    stated   growing  announce    offers   answers      kept   expired");
    // A process of its own for each row: memory that a row leaves behind would be used by the next.
    match std::env::args().skip(1).find(|word| word != "--bench") {
        Some(size) => row(size.parse().unwrap()),
        None => {
            for size in [1, 2, 8, 32, 64, 1024, 65_536] {
                let program = std::env::current_exe().unwrap();
                let output = std::process::Command::new(program).arg(size.to_string()).output().unwrap();
                let table = String::from_utf8_lossy(&output.stdout).into_owned();
                println!("{}", table.lines().last().unwrap_or_default());
            }
        }
    }
}
