//! What each command does. Answers at once, or with something that is asked again until it has an answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use aquatic_acme::AcmeReport;
use aquatic_cli_helpers::logger;
use aquatic_cluster::report::ClusterReport;
use aquatic_cluster::thread::Commands;
use aquatic_common::access_list::AccessListMode;
use aquatic_common::{Family, InfoHash, Prefix, Steering};
use aquatic_metrics::{ProcessFigures, Registry, Sample, names};
use aquatic_net::block_list::{Ban, BlockList, MAX_BANS, TooManyBans};
use aquatic_net::breaker::{Breakers, Protocol};
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::{DrainPlan, DrainTrigger, Engine, Health, MailboxSender, ReloadTrigger};
use aquatic_tracker::requests::{CLIENT_LENGTH, Counts, HeavyHitters};
use aquatic_tracker::snapshot::SnapshotTrigger;
use aquatic_tracker::{MAX_DECISIONS, RankBy, TooManyDecisions, TrackerSeed};
use serde_json::{Value, json};

use super::by_hand::ByHand;
use super::core::{CoreCommand, Ranked, Ranking, TorrentCounts};
use super::reply::{ErrorCode, Failure, Outcome, members};
use super::request::{
    self, BadArgument, BreakerFamily, BreakerProtocol, BreakerSetting, CORE_DEADLINE, MAX_COUNTING, MAX_TOP,
    RANK_DEADLINE, RELOAD_DEADLINE, RankedBy, Request, SNAPSHOT_DEADLINE, TopOf, parse_info_hash,
    parse_network,
};
use super::status;
use crate::config::Mode;
use crate::reload::ReloadReport;

/// Version of the protocol; changes when a reply loses a member.
const PROTOCOL: u32 = 1;

/// What can be commanded.
pub(crate) struct Controlled {
    pub(crate) mode: &'static str,
    pub(crate) registry: Registry,
    pub(crate) process: ProcessFigures,
    pub(crate) health: Health,
    pub(crate) epoch: Epoch,
    pub(crate) steering: Steering,
    pub(crate) by_hand: ByHand,
    pub(crate) reload: (ReloadTrigger, ReloadReport),
    pub(crate) drain: DrainTrigger,
    /// `None` without a state directory.
    pub(crate) snapshots: Option<SnapshotTrigger>,
    /// The certificate, if the tracker obtains it.
    pub(crate) certificate: Option<AcmeReport>,
    /// The cluster, if this tracker is a node of one.
    pub(crate) cluster: Option<(ClusterReport, Commands)>,
}

impl Controlled {
    /// The parts of a tracker without snapshots.
    pub(crate) fn of(
        mode: Mode,
        engine: &Engine,
        (seed, block_list, breakers): (&TrackerSeed, &Arc<BlockList>, &Breakers),
        reloads: ReloadReport,
    ) -> Self {
        Self {
            mode: mode.name(),
            registry: engine.registry().clone(),
            process: engine.process_figures(),
            health: engine.health(),
            epoch: engine.epoch(),
            steering: *seed.steering(),
            by_hand: ByHand::new(
                Arc::clone(seed.access_list()),
                Arc::clone(block_list),
                breakers.clone(),
                engine.epoch(),
            ),
            reload: (engine.reload_trigger(), reloads),
            drain: engine.drain_trigger(),
            snapshots: None,
            certificate: None,
            cluster: None,
        }
    }
}

/// Carries commands out.
pub(crate) struct Controller {
    parts: Controlled,
    cores: Vec<MailboxSender<CoreCommand>>,
    started: Duration,
    /// Whether a ranking is in progress.
    ranking: Arc<AtomicBool>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("cores", &self.cores.len()).finish_non_exhaustive()
    }
}

/// What is asked again until there is an answer. Dropping it gives up.
pub(super) type Pending = Box<dyn FnMut(Duration) -> Option<Outcome> + Send>;

/// An answer, or what is asked for one.
pub(super) enum Answer {
    Now(Outcome),
    Later(Pending),
}

impl Controller {
    /// A controller of a tracker with these cores.
    pub(super) fn new(parts: Controlled, cores: Vec<MailboxSender<CoreCommand>>) -> Self {
        let started = parts.epoch.elapsed();
        Self { parts, cores, started, ranking: Arc::default() }
    }

    /// The state of the cluster, and what sends commands to other nodes; `None` without a cluster.
    pub(super) fn cluster(&self) -> Option<&(ClusterReport, Commands)> {
        self.parts.cluster.as_ref()
    }

    /// Time since the tracker's epoch.
    pub(super) fn now(&self) -> Duration {
        self.parts.epoch.elapsed()
    }

    /// Begins to carry out a command.
    pub(super) fn execute(&self, request: Request) -> Answer {
        let answer = match request {
            Request::Status {} => Ok(Answer::Now(Ok(members(self.status())))),
            Request::Top { of: TopOf::Torrents, count, by, .. } => self.top_torrents(count, by),
            Request::Top { of, count, seconds, .. } => self.top_sources(of, count, seconds),
            Request::Torrent { info_hash } => self.torrent(&info_hash),
            Request::Ban { network, seconds } => self.ban(&network, seconds),
            Request::Unban { network } => self.unban(&network),
            Request::Bans {} => Ok(Answer::Now(Ok(members(self.bans())))),
            Request::Allow { info_hash } => self.decide(&info_hash, Some(true)),
            Request::Deny { info_hash } => self.decide(&info_hash, Some(false)),
            Request::Reset { info_hash } => self.decide(&info_hash, None),
            Request::Log { level } => {
                logger::set_level(level);
                log::info!("the level of the log is changed through the control socket");
                Ok(Answer::Now(Ok(members(json!({"level": level})))))
            }
            Request::Reload {} => Ok(Answer::Later(self.reload())),
            Request::Snapshot {} => self.snapshot(),
            Request::Connections {} => {
                Ok(Answer::Now(Ok(members(status::connections(&self.parts.registry.samples())))))
            }
            Request::Breaker { protocol, family, mode } => self.breaker(protocol, family, mode),
            Request::Drain { notice, limit } => self.drain(notice, limit),
            Request::Cluster { request } => self.spread(*request),
        };
        answer.unwrap_or_else(|failure| Answer::Now(Err(failure)))
    }

    fn status(&self) -> Value {
        let Controlled { mode, registry, process, health, by_hand, .. } = &self.parts;
        let ByHand { access_list, block_list, .. } = by_hand;
        let state = if health.is_draining() {
            "draining"
        } else if health.first_stalled().is_some() {
            "stalled"
        } else {
            "serving"
        };
        let mut status = json!({
            "protocol": PROTOCOL,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "mode": mode,
            "state": state,
            "uptime_seconds": self.now().saturating_sub(self.started).as_secs(),
            "log_level": log::max_level().as_str().to_lowercase(),
            "access_list": {
                "mode": access_list.mode(),
                "entries": access_list.len(),
                "by_hand": access_list.decisions().len(),
            },
            "bans": block_list.bans().len(),
        });
        if let Some(certificate) = &self.parts.certificate {
            status["certificate"] = status::certificate(&certificate.get());
        }
        if let Some((cluster, _)) = &self.parts.cluster {
            status["cluster"] = status::cluster(&cluster.get());
        }
        let counts = status::counts(&registry.samples(), &process.samples(), self.now());
        status.as_object_mut().into_iter().for_each(|status| status.extend(members(counts.clone())));
        status
    }

    fn top_torrents(&self, count: usize, by: RankedBy) -> Result<Answer, Failure> {
        let in_progress = self.begin_ranking(count)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let (reply, receiver) = channel();
        let by = match by {
            RankedBy::Peers => RankBy::Peers,
            RankedBy::Seeders => RankBy::Seeders,
            RankedBy::Leechers => RankBy::Leechers,
        };
        // Families are ranked apart, so the largest of both together may come later in each.
        let ranking = Ranking { by, most: 2 * count, cancelled: Arc::clone(&cancelled), reply };
        for core in &self.cores {
            core.try_send(CoreCommand::Rank(ranking.clone())).map_err(|_| no_response())?;
        }
        drop(ranking);
        let mut gathered = Gathered::new(self.cores.len(), receiver, self.now() + RANK_DEADLINE);
        let cancel = CancelOnDrop(cancelled);
        Ok(Answer::Later(Box::new(move |now| {
            let _held = (&in_progress, &cancel);
            let ranked = match gathered.poll(now)? {
                Ok(ranked) => ranked,
                Err(failure) => return Some(Err(failure)),
            };
            Some(Ok(members(ranking_reply(ranked, by, count))))
        })))
    }

    /// Marks that a ranking with this number of rows is in progress. There is one at a time.
    fn begin_ranking(&self, count: usize) -> Result<InProgress, Failure> {
        if !(1..=MAX_TOP).contains(&count) {
            let text = format!("{count} rows are out of bounds, choose from 1 to {MAX_TOP}");
            return Err(Failure::new(ErrorCode::BadArgument, text));
        }
        if self.ranking.swap(true, Ordering::Relaxed) {
            let text = "a ranking is being made for another connection; try again once that has ended";
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        Ok(InProgress(Arc::clone(&self.ranking)))
    }

    fn top_sources(&self, of: TopOf, count: usize, seconds: u64) -> Result<Answer, Failure> {
        if !(1..=MAX_COUNTING).contains(&seconds) {
            let text = format!("{seconds} seconds are out of bounds, choose from 1 to {MAX_COUNTING}");
            return Err(Failure::new(ErrorCode::BadArgument, text));
        }
        let in_progress = self.begin_ranking(count)?;
        let time = Duration::from_secs(seconds);
        let (reply, receiver) = channel();
        for core in &self.cores {
            core.try_send(CoreCommand::Count(time, reply.clone())).map_err(|_| no_response())?;
        }
        drop(reply);
        let deadline = self.now() + time + CORE_DEADLINE;
        let mut gathered = Gathered::new(self.cores.len(), receiver, deadline);
        Ok(Answer::Later(Box::new(move |now| {
            let _held = &in_progress;
            Some(gathered.poll(now)?.map(|counts| members(sources_reply(of, &counts, count, seconds))))
        })))
    }

    fn torrent(&self, text: &str) -> Result<Answer, Failure> {
        let info_hash = parse_info_hash(text)?;
        let owner = self.parts.steering.owner(&info_hash);
        let (reply, receiver) = channel();
        let core = self.cores.get(owner).ok_or_else(no_response)?;
        core.try_send(CoreCommand::Torrent(info_hash, reply)).map_err(|_| no_response())?;
        let list = Arc::clone(&self.parts.by_hand.access_list);
        let mut gathered = Gathered::new(1, receiver, self.now() + CORE_DEADLINE);
        Ok(Answer::Later(Box::new(move |now| {
            let counts = match gathered.poll(now)? {
                Ok(counts) => counts.first().copied().unwrap_or_default(),
                Err(failure) => return Some(Err(failure)),
            };
            let decision = list.decisions().into_iter().find(|(decided, _)| *decided == info_hash);
            Some(Ok(members(json!({
                "info_hash": info_hash.to_string(),
                "served": list.allows(&info_hash),
                "by_hand": decision.map(|(_, serve)| if serve { "allow" } else { "deny" }),
                "core": owner,
                "held": !counts.elsewhere,
                "swarms": swarms(&counts),
            }))))
        })))
    }

    fn ban(&self, text: &str, seconds: Option<u64>) -> Result<Answer, Failure> {
        let prefix = parse_network(text)?;
        let until = match seconds.map(request::seconds).transpose()? {
            Some(time) if time.is_zero() => {
                return Err(BadArgument("a block of 0 seconds ends before it begins".to_owned()).into());
            }
            time => time.map(|time| self.now() + time),
        };
        let _change = self.parts.by_hand.change()?;
        let was_known = self.parts.by_hand.block_list.ban(Ban { prefix, until }).map_err(|TooManyBans| {
            let text = format!(
                "{MAX_BANS} networks are blocked by hand already; put networks into the file that \
                 rate_limits.block_list_path names"
            );
            Failure::new(ErrorCode::Limit, text)
        })?;
        let lasts = seconds.map_or_else(|| "until the tracker stops".to_owned(), |s| format!("for {s} s"));
        log::info!("control: {} is blocked {lasts}", shown(&prefix));
        Ok(Answer::Now(Ok(members(json!({
            "network": prefix.to_string(), "seconds": seconds, "was_known": was_known,
        })))))
    }

    fn unban(&self, text: &str) -> Result<Answer, Failure> {
        let prefix = parse_network(text)?;
        let _change = self.parts.by_hand.change()?;
        if !self.parts.by_hand.block_list.unban(prefix) {
            let text = format!(
                "{prefix} is not blocked by hand. \"aquatic ctl bans\" lists what is; networks of the block list \
                 file are removed there"
            );
            return Err(Failure::new(ErrorCode::BadArgument, text));
        }
        log::info!("control: {} is not blocked by hand any more", shown(&prefix));
        Ok(Answer::Now(Ok(members(json!({"network": prefix.to_string()})))))
    }

    fn bans(&self) -> Value {
        let now = self.now();
        let networks: Vec<Value> = self
            .parts
            .by_hand
            .block_list
            .bans()
            .into_iter()
            .map(|Ban { prefix, until }| {
                let left = until.map(|until| until.saturating_sub(now).as_secs());
                json!({"network": prefix.to_string(), "seconds": left})
            })
            .collect();
        let (allowed, denied): (Vec<_>, Vec<_>) =
            self.parts.by_hand.access_list.decisions().into_iter().partition(|(_, serve)| *serve);
        let names = |decisions: Vec<(InfoHash, bool)>| -> Value {
            decisions.into_iter().map(|(info_hash, _)| info_hash.to_string()).collect()
        };
        json!({"networks": networks, "allowed": names(allowed), "denied": names(denied)})
    }

    fn decide(&self, text: &str, serve: Option<bool>) -> Result<Answer, Failure> {
        let info_hash = parse_info_hash(text)?;
        let _change = self.parts.by_hand.change()?;
        let list = &self.parts.by_hand.access_list;
        let before = list.decide(info_hash, serve).map_err(|TooManyDecisions| {
            let text = format!(
                "{MAX_DECISIONS} torrents are decided on by hand already; put torrents into the file that \
                 access_list.path names"
            );
            Failure::new(ErrorCode::Limit, text)
        })?;
        if serve.is_none() && before.is_none() {
            let text = format!(
                "nothing is decided by hand about {info_hash}. \"aquatic ctl bans\" lists what is; torrents of the \
                 access list file are removed there"
            );
            return Err(Failure::new(ErrorCode::BadArgument, text));
        }
        let done = match serve {
            Some(true) => "allowed by hand",
            Some(false) => "denied by hand",
            None => "decided by the access list again",
        };
        log::info!("control: torrent {info_hash} is {done}");
        let served = list.allows(&info_hash);
        Ok(Answer::Now(Ok(members(json!({"info_hash": info_hash.to_string(), "served": served})))))
    }

    fn reload(&self) -> Pending {
        let (trigger, report) = self.parts.reload.clone();
        let registry = self.parts.registry.clone();
        let (before, _) = report.get();
        let counted = ReloadCounts::of(&registry.samples());
        let list = Arc::clone(&self.parts.by_hand.access_list);
        let had_list = list.mode() != AccessListMode::Off;
        let deadline = self.now() + RELOAD_DEADLINE;
        trigger.request();
        Box::new(move |now| {
            if now >= deadline {
                let text = "the reload has not ended within a minute; the log tells when it does";
                return Some(Err(Failure::new(ErrorCode::Busy, text)));
            }
            let (reloads, outcome) = report.get();
            let since = ReloadCounts::of(&registry.samples()).since(&counted);
            if reloads == before {
                return None;
            }
            // Now that the configuration says whether there is to be one.
            if (had_list || list.is_reloadable()) && since.is_unknown("access_list") {
                return None;
            }
            Some(reload_reply(outcome?, &since))
        })
    }

    fn snapshot(&self) -> Result<Answer, Failure> {
        let Some(snapshots) = self.parts.snapshots.clone() else {
            let text = "there is no state directory to save a snapshot in; set state_directory and restart";
            return Err(Failure::new(ErrorCode::Unavailable, text));
        };
        let registry = self.parts.registry.clone();
        let saved = registry.sum(&names::SNAPSHOTS_SAVED);
        if !snapshots.request() {
            let text = "a snapshot is being loaded or saved; try again once that has ended";
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        let begin = self.now();
        Ok(Answer::Later(Box::new(move |now| {
            if snapshots.is_busy() && now.saturating_sub(begin) < SNAPSHOT_DEADLINE {
                return None;
            }
            if registry.sum(&names::SNAPSHOTS_SAVED) == saved {
                let text = "the snapshot has not been saved; the log says why";
                return Some(Err(Failure::new(ErrorCode::Failed, text)));
            }
            Some(Ok(members(json!({
                "bytes": registry.sum(&names::SNAPSHOT_SIZE),
                "seconds": now.saturating_sub(begin).as_secs_f64(),
            }))))
        })))
    }

    /// Sets breakers if a mode is named, of all protocols and families unless some are named, and tells of
    /// all.
    fn breaker(
        &self,
        protocol: Option<BreakerProtocol>,
        family: Option<BreakerFamily>,
        mode: Option<BreakerSetting>,
    ) -> Result<Answer, Failure> {
        let breakers = &self.parts.by_hand.breakers;
        if let Some(mode) = mode {
            let _change = self.parts.by_hand.change()?;
            let mut set: Vec<(Protocol, Family)> = match protocol.map(Protocol::from) {
                Some(protocol) => Family::ALL.map(|family| (protocol, family)).into(),
                None => breakers.status().iter().map(|status| (status.protocol, status.family)).collect(),
            };
            set.retain(|(_, each)| family.is_none_or(|family| Family::from(family) == *each));
            for (protocol, family) in set {
                breakers
                    .set(protocol, family, mode.into())
                    .map_err(|error| Failure::new(ErrorCode::Unavailable, error.to_string()))?;
            }
        }
        let rows = breakers.status().into_iter().map(|status| {
            json!({
                "protocol": status.protocol.name(),
                "family": status.family.name(),
                "mode": status.mode.name(),
                "state": status.state.name(),
                "seconds": status.age.as_secs(),
            })
        });
        let rows: Vec<Value> = rows.collect();
        Ok(Answer::Now(Ok(members(json!({"breakers": rows})))))
    }

    fn drain(&self, notice: u64, limit: u64) -> Result<Answer, Failure> {
        let plan = DrainPlan { notice: request::seconds(notice)?, limit: request::seconds(limit)? };
        self.parts.drain.begin(plan);
        let connections = self.parts.registry.sum(&names::CONNECTIONS);
        Ok(Answer::Now(Ok(members(json!({
            "notice": notice, "limit": limit, "connections": connections,
        })))))
    }
}

/// How logs name a network that has been blocked by hand.
fn shown(prefix: &Prefix) -> String {
    match prefix.shown() {
        shown if shown == *prefix => shown.to_string(),
        shown => format!("an address or network in {shown}"),
    }
}

impl From<BadArgument> for Failure {
    fn from(error: BadArgument) -> Self {
        Self::new(ErrorCode::BadArgument, error.0)
    }
}

fn no_response() -> Failure {
    let text = "a core does not respond; \"aquatic ctl status\" tells its state, and the log since when";
    Failure::new(ErrorCode::Busy, text)
}

/// Marks that something is in progress, until dropped.
struct InProgress(Arc<AtomicBool>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Tells the cores that nobody waits any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replies of cores, as they come in.
struct Gathered<T> {
    wanted: usize,
    received: Vec<T>,
    receiver: Receiver<T>,
    deadline: Duration,
}

impl<T> Gathered<T> {
    fn new(wanted: usize, receiver: Receiver<T>, deadline: Duration) -> Self {
        Self { wanted, received: Vec::new(), receiver, deadline }
    }

    /// The replies, once all have come.
    fn poll(&mut self, now: Duration) -> Option<Result<Vec<T>, Failure>> {
        loop {
            if self.received.len() == self.wanted {
                return Some(Ok(std::mem::take(&mut self.received)));
            }
            match self.receiver.try_recv() {
                Ok(reply) => self.received.push(reply),
                Err(TryRecvError::Empty) if now < self.deadline => return None,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Some(Err(no_response())),
            }
        }
    }
}

/// The counts of a torrent, one element for each kind of swarm that is served.
fn swarms(counts: &TorrentCounts) -> Vec<Value> {
    let bittorrent = counts.bittorrent.iter().flat_map(|counts| Family::ALL.into_iter().zip(counts));
    let bittorrent = bittorrent.map(|(family, counts)| {
        json!({
            "swarms": names::BITTORRENT,
            "family": family.name(),
            "seeders": counts.complete,
            "leechers": counts.incomplete,
            "downloaded": counts.downloaded,
        })
    });
    let webtorrent = counts.webtorrent.iter().map(|counts| {
        json!({
            "swarms": names::WEBTORRENT,
            "seeders": counts.complete,
            "leechers": counts.incomplete,
            "downloaded": counts.downloaded,
        })
    });
    bittorrent.chain(webtorrent).collect()
}

/// Seeders and leechers of all swarms of a torrent.
fn totals(counts: &TorrentCounts) -> (u64, u64) {
    let bittorrent = counts.bittorrent.iter().flatten().map(|counts| (counts.complete, counts.incomplete));
    let webtorrent = counts.webtorrent.iter().map(|counts| (counts.complete, counts.incomplete));
    bittorrent.chain(webtorrent).fold((0, 0), |(seeders, leechers), (complete, incomplete)| {
        (seeders + u64::from(complete), leechers + u64::from(incomplete))
    })
}

fn ranking_reply(ranked: Vec<Ranked>, by: RankBy, count: usize) -> Value {
    let longest = ranked.iter().map(|ranked| ranked.longest_step).max().unwrap_or_default();
    let mut torrents: Vec<(InfoHash, TorrentCounts)> =
        ranked.into_iter().flat_map(|ranked| ranked.torrents).collect();
    torrents.sort_by_key(|(info_hash, counts)| {
        let (seeders, leechers) = totals(counts);
        let rank = match by {
            RankBy::Peers => seeders + leechers,
            RankBy::Seeders => seeders,
            RankBy::Leechers => leechers,
        };
        (std::cmp::Reverse(rank), *info_hash)
    });
    torrents.truncate(count);
    let rows: Vec<Value> = torrents
        .iter()
        .map(|(info_hash, counts)| {
            let (seeders, leechers) = totals(counts);
            json!({"info_hash": info_hash.to_string(), "seeders": seeders, "leechers": leechers})
        })
        .collect();
    json!({"torrents": rows, "longest_step_us": longest.as_micros() as u64})
}

fn sources_reply(of: TopOf, counts: &[Counts], most: usize, seconds: u64) -> Value {
    match of {
        TopOf::Clients => {
            let mut all = HeavyHitters::default();
            counts.iter().for_each(|counts| all.merge(&counts.clients));
            let row = |(id, count): ([u8; CLIENT_LENGTH], u64)| json!({"client": id.escape_ascii().to_string(), "count": count});
            let rows: Vec<Value> = all.top(most).into_iter().map(row).collect();
            json!({"clients": rows, "total": all.total(), "seconds": seconds})
        }
        TopOf::Prefixes | TopOf::Torrents => {
            let mut all = HeavyHitters::default();
            counts.iter().for_each(|counts| all.merge(&counts.networks));
            let row = |(prefix, count): (Prefix, u64)| json!({"network": prefix.to_string(), "count": count});
            let rows: Vec<Value> = all.top(most).into_iter().map(row).collect();
            json!({"prefixes": rows, "total": all.total(), "seconds": seconds})
        }
    }
}

/// What a reload reads besides the configuration, and the metric that counts it.
const RELOADED: [(&str, &aquatic_metrics::Metric); 3] = [
    ("access_list", &names::ACCESS_RELOADS),
    ("block_list", &names::BLOCK_LIST_RELOADS),
    ("certificate", &names::CERTIFICATE_RELOADS),
];

/// Reloads so far, done and failed, of each file.
struct ReloadCounts(HashMap<&'static str, [u64; 2]>);

impl ReloadCounts {
    fn of(samples: &[Sample]) -> Self {
        let count = |metric, outcome| status::sum(samples, metric, Some(("outcome", outcome)));
        let counts = RELOADED.map(|(file, metric)| (file, [count(metric, "done"), count(metric, "failed")]));
        Self(counts.into())
    }

    fn since(mut self, before: &Self) -> Self {
        for (file, counts) in &mut self.0 {
            let before = before.0.get(file).copied().unwrap_or_default();
            for (count, before) in counts.iter_mut().zip(before) {
                *count = count.saturating_sub(before);
            }
        }
        self
    }

    /// Whether nothing has been counted about a file.
    fn is_unknown(&self, file: &str) -> bool {
        self.0.get(file).is_none_or(|counts| *counts == [0, 0])
    }
}

fn reload_reply(configuration: Result<String, String>, since: &ReloadCounts) -> Outcome {
    let failed: Vec<&str> = RELOADED
        .iter()
        .filter(|(file, _)| since.0.get(file).is_some_and(|[_, failed]| *failed > 0))
        .map(|(file, _)| *file)
        .collect();
    match configuration {
        Err(error) => Err(Failure::new(
            ErrorCode::Failed,
            format!("the configuration is not reloaded, the previous one stays in effect: {error}"),
        )),
        Ok(_) if !failed.is_empty() => Err(Failure::new(
            ErrorCode::Failed,
            format!(
                "the configuration is reloaded, but not: {}. The previous one stays in use; the log says why",
                failed.join(", ").replace('_', " ")
            ),
        )),
        Ok(changes) => {
            let done: Vec<&str> =
                RELOADED.iter().filter(|(file, _)| !since.is_unknown(file)).map(|(file, _)| *file).collect();
            Ok(members(json!({"configuration": changes, "reloaded": done})))
        }
    }
}
