//! Several cores in one thread, over UDP, HTTP and WebTorrent at once: random announces, stops, scrapes,
//! offers, answers, ends of connections, expiry and changes of the access list, while batches between cores
//! are delayed and overtake each other. Each reply and each relay is compared with a naive model of the whole
//! tracker.
//!
//! A failure prints its seed; `AQUATIC_SIMULATION_SEED=… cargo test -p aquatic --test simulation` repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod core;
mod model;
mod network;
mod nodes;
mod webtorrent;
mod ws_client;
mod ws_model;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::{AccessListConfig, CleaningConfig, LimitsConfig};
use aquatic_common::expiry::Expire;
use aquatic_common::{AccessListMode, AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_http::Handled;
use aquatic_runtime::Secrets;
use aquatic_swarm::{Announce, Families, FamilySet, SwarmCounts};
use aquatic_tracker::{
    Admission, IntervalPolicy, OwnerResponse, PeerRules, SharedAccessList, Stretch, TrackerSeed,
    TrackerSettings, Waiter,
};
use aquatic_ws::{RequestContext, WsConfig, WsSeed};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::core::{Core, MAX_PEERS, Responded, Told, event_name, no_proxies, told_over_udp};
use crate::model::Model;
use crate::network::{Batch, Network};
use crate::webtorrent::{WsClient, WsOperation};
use crate::ws_model::WsModel;

const SEEDS: u64 = 12;
const STEPS: u32 = 4000;
const CORES: usize = 3;
const TORRENTS: u8 = 7;
/// Seconds; ages are exact at multiples of the resolution of the store.
const RESOLUTION: u32 = 16;
const MAX_AGE: u32 = 60 * RESOLUTION;

/// How a reply is finished once other cores have responded.
enum Forwarded {
    UdpAnnounce,
    UdpScrape(Box<aquatic_udp::ForwardedScrape>),
    HttpAnnounce(aquatic_http::ForwardedAnnounce),
    HttpScrape(aquatic_http::ForwardedScrape),
}

enum Kind {
    Announce(Announce),
    Scrape(Vec<InfoHash>, FamilySet),
}

/// A request that has been forwarded.
struct Request {
    core: usize,
    kind: Kind,
    forwarded: Forwarded,
    /// As far as owners have applied it.
    expected: Option<Told>,
    ended: bool,
}

struct Simulation {
    rng: SmallRng,
    directory: TempDir,
    access_list: Arc<SharedAccessList>,
    denied: BTreeSet<InfoHash>,
    network: Rc<Network>,
    cores: Vec<Core>,
    model: Model,
    requests: Vec<Request>,
    now: Seconds,
    /// For deadlines, which are shorter than the resolution of ages.
    clock: Duration,
    replies: u32,
    timeouts: u32,
    /// Requests served at once because the owner slept.
    served_sleeping: u32,
    admission: Admission,
    ws_clients: Vec<WsClient>,
    ws_operations: Vec<WsOperation>,
    /// By operation: torrents whose owners it has not reached.
    ws_due: BTreeMap<usize, BTreeSet<InfoHash>>,
    ws_model: WsModel,
}

impl Simulation {
    fn new(number: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "").unwrap();
        let config = AccessListConfig { mode: AccessListMode::Deny, path, allow_empty: true };
        let access_list = SharedAccessList::load(&config).unwrap();
        let settings = TrackerSettings {
            access_list: config,
            cleaning: CleaningConfig::default(),
            limits: LimitsConfig { reserved_for_small_torrents: 0, ..LimitsConfig::default() },
            rules: PeerRules::default(),
            interval: IntervalPolicy { interval: 1800, jitter: 10 },
            stretch: Stretch::default(),
        };
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let secrets = Secrets::from_bytes(key);
        let seed = TrackerSeed::new(&settings, &secrets, CORES, Arc::clone(&access_list));
        let mut ws = WsConfig::default();
        ws.client.max_message_rate = 0;
        let ws = WsSeed::new(&ws, &no_proxies(), *seed.steering(), &access_list, &secrets);
        let network = Network::new(CORES);
        Self {
            rng: SmallRng::seed_from_u64(number),
            directory,
            access_list: Arc::clone(&access_list),
            denied: BTreeSet::new(),
            cores: (0..CORES).map(|core| Core::new((&seed, &ws), core, number, &network)).collect(),
            network,
            model: Model::default(),
            requests: Vec::new(),
            now: Seconds(1000 * RESOLUTION),
            clock: Duration::from_secs(100),
            replies: 0,
            timeouts: 0,
            served_sleeping: 0,
            admission: Admission::new(access_list),
            ws_clients: Vec::new(),
            ws_operations: Vec::new(),
            ws_due: BTreeMap::new(),
            ws_model: WsModel::default(),
        }
    }

    fn step(&mut self) {
        if self.rng.random_range(0..8) == 0 {
            self.network.sleeping.set(self.rng.random());
        }
        match self.rng.random_range(0..100) {
            0..19 => self.announce(),
            19..24 => self.scrape(),
            24..48 => self.ws_step(),
            48..88 => self.deliver_any(),
            88..91 => self.network.close(self.rng.random_range(0..CORES)),
            91..94 => self.pass_time(),
            94..96 => self.expire(),
            96..99 => {
                let core = self.rng.random_range(0..CORES);
                self.cores[core].owners.tick(self.clock);
                self.receive_responses(core);
                self.cores[core].ws.tick(self.clock);
                self.ws_receive();
            }
            _ => self.change_access_list(),
        }
    }

    fn torrent(&mut self) -> InfoHash {
        let number = self.rng.random_range(0..TORRENTS);
        InfoHash([number.wrapping_mul(37); 20])
    }

    fn torrents() -> impl Iterator<Item = InfoHash> {
        (0..TORRENTS).map(|number| InfoHash([number.wrapping_mul(37); 20]))
    }

    fn address(&mut self) -> SocketAddr {
        let (host, port) = (self.rng.random_range(1..=6), self.rng.random_range(1..=3));
        let ip: IpAddr = if self.rng.random() {
            Ipv4Addr::new(198, 18, 2, host).into()
        } else {
            Ipv6Addr::new(0x2001, 2, 0, host.into(), 0, 0, 0, 1).into()
        };
        SocketAddr::new(ip, port)
    }

    fn announce(&mut self) {
        use AnnounceEvent::{Completed, None, Started, Stopped};
        let over_udp = self.rng.random();
        let announce = Announce {
            info_hash: self.torrent(),
            address: self.address(),
            seeder: self.rng.random_range(0..3) == 0,
            event: [None, None, Started, Completed, Stopped][self.rng.random_range(0..5)],
            numwant: MAX_PEERS,
            families: if over_udp { Families::Own } else { Families::Both },
        };
        let at = self.rng.random_range(0..CORES);
        let told =
            if over_udp { self.announce_udp(at, &announce) } else { self.announce_http(at, &announce) };
        if let Some(told) = told {
            let expected = if self.denied.contains(&announce.info_hash) {
                Told::Refused("this tracker does not serve this torrent".to_owned())
            } else {
                self.expect_announce(&announce)
            };
            self.compare(&told, &expected);
        }
    }

    fn announce_udp(&mut self, at: usize, announce: &Announce) -> Option<Told> {
        let core = &mut self.cores[at];
        let datagram = core.announce_datagram(announce, self.now);
        let (told, forwarded) = core.datagram(datagram, announce.address, self.now);
        for (owner, forwarded) in forwarded.announces {
            let Core { owners, udp, buffer, .. } = &mut self.cores[at];
            let length = owners.with_sleeping(owner, |tracker| {
                udp.handle_forwarded_announce(&forwarded, (tracker, self.now), buffer)
            });
            if let Some(length) = length {
                self.served_sleeping += 1;
                return Some(told_over_udp(&buffer[..length], Family::of(announce.address.ip())));
            }
            self.network.send_udp(at, owner, self.requests.len(), forwarded);
            self.begin(at, Kind::Announce(*announce), Forwarded::UdpAnnounce, None);
        }
        told
    }

    fn announce_http(&mut self, at: usize, announce: &Announce) -> Option<Told> {
        let target = format!(
            "/announce?info_hash={}&peer_id=-XX0001-abcdefghijkl&port={}&uploaded=0&downloaded=0&left={}&compact=1{}",
            coded(&announce.info_hash),
            announce.address.port(),
            u8::from(!announce.seeder),
            event_name(announce.event)
        );
        match self.cores[at].request(&target, announce.address, self.now) {
            Handled::Reply(length) => Some(self.cores[at].told_over_http(length, &[])),
            Handled::Announce(forwarded) => {
                let Core { owners, http, buffer, .. } = &mut self.cores[at];
                let owner = owners.state().owner(&forwarded.announce.info_hash);
                let length = owners.with_sleeping(owner, |tracker| {
                    http.apply_forwarded(&forwarded, (tracker, self.now), buffer)
                });
                if let Some(length) = length {
                    self.served_sleeping += 1;
                    return Some(self.cores[at].told_over_http(length, &[]));
                }
                let waiter = self.waiter(at);
                let asked = forwarded.announce;
                self.begin(at, Kind::Announce(*announce), Forwarded::HttpAnnounce(forwarded), None);
                let room = (6 * MAX_PEERS as u32, 18 * MAX_PEERS as u32);
                self.cores[at].owners.announce(self.clock, &asked, room, waiter);
                None
            }
            Handled::Scrape(_) => panic!("an announce"),
        }
    }

    fn scrape(&mut self) {
        let at = self.rng.random_range(0..CORES);
        let count = self.rng.random_range(1..=4);
        let torrents: BTreeSet<InfoHash> = (0..count).map(|_| self.torrent()).collect();
        let torrents: Vec<InfoHash> = torrents.into_iter().collect();
        let source = self.address();
        let (families, told) = if self.rng.random() {
            let families = FamilySet::One(Family::of(source.ip()));
            let datagram = self.cores[at].scrape_datagram(&torrents, source, self.now);
            let (told, forwarded) = self.cores[at].datagram(datagram, source, self.now);
            for scrape in forwarded.scrapes {
                self.ask(at, &torrents, families, Forwarded::UdpScrape(Box::new(scrape)));
            }
            (families, told)
        } else {
            let hashes: Vec<String> =
                torrents.iter().map(|torrent| format!("info_hash={}", coded(torrent))).collect();
            let target = format!("/scrape?{}", hashes.join("&"));
            let told = match self.cores[at].request(&target, source, self.now) {
                Handled::Reply(length) => Some(self.cores[at].told_over_http(length, &torrents)),
                Handled::Scrape(forwarded) => {
                    self.ask(at, &torrents, FamilySet::Both, Forwarded::HttpScrape(forwarded));
                    None
                }
                Handled::Announce(_) => panic!("a scrape"),
            };
            (FamilySet::Both, told)
        };
        if let Some(told) = told {
            let counts = torrents.iter().map(|torrent| self.counts(torrent, families));
            self.compare(&told, &Told::Scrape(counts.collect()));
        }
    }

    /// Has the owners count, and notes what the torrents of this core and of those that sleep count now.
    fn ask(&mut self, at: usize, torrents: &[InfoHash], families: FamilySet, forwarded: Forwarded) {
        let waiter = self.waiter(at);
        let owner = |torrent| self.cores[at].owners.state().owner(torrent);
        let now = |torrent| owner(torrent) == at || self.network.is_asleep(owner(torrent));
        let at_once = torrents.iter().all(now);
        let counts = torrents.iter().map(|torrent| match now(torrent) {
            true => self.counts(torrent, families),
            false => SwarmCounts::default(),
        });
        let expected = Told::Scrape(counts.collect());
        self.begin(at, Kind::Scrape(torrents.to_vec(), families), forwarded, Some(expected));
        self.cores[at].owners.scrape(self.clock, torrents, families, waiter);
        assert_eq!(self.cores[at].inbox.0.borrow().len(), usize::from(at_once), "owners respond later");
        self.served_sleeping += u32::from(at_once);
        self.receive_responses(at);
    }

    fn waiter(&self, at: usize) -> Waiter {
        let respond = Rc::clone(&self.cores[at].inbox);
        Waiter { respond, token: self.requests.len() as u32 }
    }

    /// Notes a forwarded request; messages about it name its number.
    fn begin(&mut self, core: usize, kind: Kind, forwarded: Forwarded, expected: Option<Told>) {
        *self.network.request.borrow_mut() = Some(self.requests.len());
        self.requests.push(Request { core, kind, forwarded, expected, ended: false });
    }

    fn counts(&self, torrent: &InfoHash, families: FamilySet) -> SwarmCounts {
        if self.denied.contains(torrent) {
            SwarmCounts::default()
        } else {
            self.model.counts(torrent, families)
        }
    }

    /// The counts of a torrent if a core owns it.
    fn counts_of(&self, core: usize, torrent: &InfoHash, families: FamilySet) -> Option<SwarmCounts> {
        let owns = self.cores[core].owners.state().owns(torrent);
        owns.then(|| self.counts(torrent, families))
    }

    /// Applies an announce to the model.
    fn expect_announce(&mut self, announce: &Announce) -> Told {
        let mut expected = self.model.announce(announce, self.now.0);
        if announce.families == Families::Own {
            // Replies over UDP do not have it.
            expected.counts.downloaded = 0;
        }
        Told::Announce(expected)
    }

    fn compare(&mut self, told: &Told, expected: &Told) {
        assert_eq!(told, expected, "at {:?}", self.now);
        self.replies += 1;
    }

    fn deliver_any(&mut self) {
        let waiting = self.network.waiting();
        if !waiting.is_empty() {
            let chosen = self.rng.random_range(0..waiting.len());
            self.deliver(waiting[chosen]);
        }
    }

    fn deliver(&mut self, queue: (usize, usize, usize)) {
        let (from, to, _) = queue;
        match self.network.take(queue) {
            Batch::Tracker(mut messages, requests) => {
                requests.into_iter().for_each(|number| self.apply_to_model(number, to));
                *self.network.request.borrow_mut() = None;
                self.cores[to].owners.receive(from, &mut messages, self.now);
                self.receive_responses(to);
            }
            Batch::Ws(mut batch, operations) => {
                operations.into_iter().for_each(|number| self.apply_ws(number, to));
                let (admission, now, time) = (&self.admission, self.now, self.clock);
                let mut context = RequestContext { admission, now, time, rng: &mut self.rng };
                self.cores[to].ws.receive_batch(from, &mut batch, &mut context);
                self.ws_receive();
            }
            Batch::Udp(announces) => {
                for (number, announce) in announces {
                    self.apply_to_model(number, to);
                    let Core { udp, owners, buffer, .. } = &mut self.cores[to];
                    let mut state = owners.state();
                    let length = udp.handle_forwarded_announce(&announce, (&mut state, self.now), buffer);
                    drop(state);
                    let family = Family::of(announce.announce.address.ip());
                    let told = told_over_udp(&buffer[..length], family);
                    self.end(number, &told);
                }
            }
        }
    }

    /// Applies a request to the model at the moment at which an owner applies it.
    fn apply_to_model(&mut self, number: usize, owner: usize) {
        match &self.requests[number].kind {
            Kind::Announce(announce) => {
                let announce = *announce;
                let expected = self.expect_announce(&announce);
                self.requests[number].expected = Some(expected);
            }
            Kind::Scrape(torrents, families) => {
                let counts: Vec<_> =
                    torrents.iter().map(|torrent| self.counts_of(owner, torrent, *families)).collect();
                let Some(Told::Scrape(expected)) = &mut self.requests[number].expected else {
                    panic!("a scrape")
                };
                for (slot, counts) in expected.iter_mut().zip(counts) {
                    *slot = counts.unwrap_or(*slot);
                }
            }
        }
    }

    /// Finishes the replies whose responses have come.
    fn receive_responses(&mut self, at: usize) {
        let responses = std::mem::take(&mut *self.cores[at].inbox.0.borrow_mut());
        for (number, responded) in responses {
            assert_eq!(self.requests[number].core, at);
            let failed = matches!(responded, Responded::Failed(_));
            let Some(told) = self.finish(at, number, responded) else {
                self.requests[number].ended = true;
                continue;
            };
            if failed {
                assert!(matches!(&told, Told::Refused(text) if text.contains("overloaded")), "{told:?}");
                assert!(!std::mem::replace(&mut self.requests[number].ended, true));
                self.timeouts += 1;
            } else {
                self.end(number, &told);
            }
        }
    }

    /// What the client is told; `None` if nothing.
    fn finish(&mut self, at: usize, number: usize, responded: Responded) -> Option<Told> {
        let Request { forwarded, kind, .. } = &self.requests[number];
        let Core { udp, http, owners, buffer, .. } = &mut self.cores[at];
        let torrents = match kind {
            Kind::Scrape(torrents, _) => torrents.as_slice(),
            Kind::Announce(_) => &[],
        };
        let mut state = owners.state();
        let tracker = &mut *state;
        let length = match (forwarded, responded) {
            (Forwarded::UdpScrape(scrape), Responded::Scraped(counts)) => {
                let length = udp.finish_scrape(scrape, &counts, buffer);
                return Some(told_over_udp(&buffer[..length], scrape.family));
            }
            (Forwarded::UdpScrape(_), Responded::Failed(_)) => return None,
            (Forwarded::HttpAnnounce(forwarded), Responded::Announced(announced, v4, v6)) => {
                let response = OwnerResponse { announced, v4: &v4, v6: &v6 };
                http.finish_announce(forwarded, Ok(response), tracker, buffer)
            }
            (Forwarded::HttpAnnounce(forwarded), Responded::Failed(error)) => {
                http.finish_announce(forwarded, Err(error), tracker, buffer)
            }
            (Forwarded::HttpScrape(forwarded), Responded::Scraped(counts)) => {
                http.finish_scrape(forwarded, Ok(&counts), tracker, buffer)
            }
            (Forwarded::HttpScrape(forwarded), Responded::Failed(error)) => {
                http.finish_scrape(forwarded, Err(error), tracker, buffer)
            }
            _ => panic!("a response to another kind of request"),
        };
        drop(state);
        Some(self.cores[at].told_over_http(length, torrents))
    }

    /// Ends a forwarded request with its reply.
    fn end(&mut self, number: usize, told: &Told) {
        let request = &mut self.requests[number];
        assert!(!std::mem::replace(&mut request.ended, true), "a request ends once");
        let expected = request.expected.clone().unwrap();
        self.compare(told, &expected);
    }

    fn pass_time(&mut self) {
        self.now = Seconds(self.now.0 + RESOLUTION * self.rng.random_range(0..8));
        self.clock += Duration::from_millis(self.rng.random_range(0..600));
    }

    fn expire(&mut self) {
        let core = self.rng.random_range(0..CORES);
        self.expire_core(core);
    }

    /// Runs a pass of expiry in steps.
    fn expire_core(&mut self, core: usize) {
        let mut tracker = self.cores[core].owners.state();
        while !tracker.expire(self.now, MAX_AGE, 20).pass_ended {}
        self.model.expire(core, (self.now.0, MAX_AGE), |torrent| tracker.owns(torrent));
        drop(tracker);
        self.ws_expire(core);
    }

    fn change_access_list(&mut self) {
        let torrent = self.torrent();
        if !self.denied.remove(&torrent) {
            self.denied.insert(torrent);
        }
        let text: String = self.denied.iter().map(|torrent| format!("{torrent}\n")).collect();
        std::fs::write(self.directory.path().join("list"), text).unwrap();
        self.access_list.reload().unwrap();
    }

    /// Lets everything arrive, and compares what the cores own with the model.
    fn settle(&mut self) {
        while let Some(queue) = self.network.waiting().first() {
            self.deliver(*queue);
        }
        assert!(self.requests.iter().all(|request| request.ended), "each request has ended");
        self.ws_settle();
        for torrent in Self::torrents() {
            let owner = self.cores[0].owners.state().owner(&torrent);
            for families in [FamilySet::One(Family::V4), FamilySet::One(Family::V6), FamilySet::Both] {
                let counts = self.cores[owner].owners.state().scrape(&torrent, families);
                assert_eq!(counts, self.counts(&torrent, families));
            }
        }
    }

    fn run(&mut self) {
        (0..STEPS).for_each(|_| self.step());
        self.settle();
        self.now = Seconds(self.now.0 + 2 * MAX_AGE);
        (0..CORES).for_each(|core| self.expire_core(core));
        assert_eq!((self.model.peers(), self.ws_model.peers()), (0, 0));
        self.settle();
    }
}

/// All bytes percent-coded.
fn coded(info_hash: &InfoHash) -> String {
    info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// Names the seed of a run that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with AQUATIC_SIMULATION_SEED={}", self.0);
        }
    }
}

#[test]
fn every_reply_is_that_of_one_tracker() {
    let chosen = std::env::var("AQUATIC_SIMULATION_SEED").ok().map(|seed| seed.parse().unwrap());
    let (mut replies, mut forwarded, mut timeouts, mut sleeping) = (0, 0, 0, 0);
    let (mut offers, mut answers, mut takeovers) = (0, 0, 0);
    for number in chosen.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let seed = Seed(number);
        let mut simulation = Simulation::new(number);
        simulation.run();
        replies += simulation.replies;
        forwarded += simulation.requests.len();
        timeouts += simulation.timeouts;
        sleeping += simulation.served_sleeping;
        offers += simulation.ws_model.relayed.0;
        answers += simulation.ws_model.relayed.1;
        takeovers += simulation.ws_model.takeovers;
        drop(seed);
    }
    println!("{replies} replies compared, {forwarded} requests forwarded, {timeouts} timed out");
    println!("{sleeping} requests served with the tracker of a sleeping core");
    println!("{offers} offers and {answers} answers relayed, {takeovers} peers taken over");
    assert!(replies > 1000 && forwarded > 500 && sleeping > 500, "the simulation does what it is for");
    assert!(offers > 1000 && answers > 200 && takeovers > 20 || chosen.is_some(), "WebTorrent, too");
}
