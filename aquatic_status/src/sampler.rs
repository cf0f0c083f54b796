//! The thread that reads the metrics once a second and makes what viewers get.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use aquatic_http_protocol::PlainReply;
use aquatic_metrics::{Counter, Gauge, ProcessFigures, Registry, names};
use aquatic_net::listen::BindError;
use aquatic_runtime::clock::{Epoch, calendar_seconds};
use aquatic_runtime::state_directory::names::{STATUS, UNUSABLE_STATUS};
use aquatic_runtime::{
    Core, Engine, MailboxReceiver, MailboxSender, Serving, StateDirectory, StopHold, mailboxes,
};
use aquatic_web::metrics_endpoint::MetricsSources;
use aquatic_web::side_listener::{Responder, SideListener, SideReply, encode};
use aquatic_web::{PageRequest, Pages};
use arc_swap::ArcSwap;
use flate2::Compression;

use crate::config::StatusConfig;
use crate::documents::{Document, Event, KEPT_EVENTS, Kind, Published, Shared, Slot};
use crate::figures::{Figures, ROUTES};
use crate::file;
use crate::history::{self, History, Sampled, Values};
use crate::latency;
use crate::opentracker;
use crate::page;
use crate::report::{CertificateReport, ClusterReport, Moment, View};
use crate::site::{Answer, Assets, Proxies, Site};
use crate::streams::{CorePages, SideStreams};

/// Seconds between two times that the file is written: what a tracker that is killed forgets at most.
const SAVE_INTERVAL: u64 = 60;

/// Seconds for which a document is made every second, and compressed, after it was asked for. Compressing the
/// documents that have no slot would take more time than all else that the thread does in a second.
const WANTED: u64 = 10;

/// Seconds after which a document is made again that nobody asks for. Each has a second of its own, so that
/// they are not all made at once.
const STALE: u64 = 15;

/// Seconds between two comments in a stream, so that proxies do not take it for idle.
const COMMENT_INTERVAL: u64 = 15;

/// Limits whose use operators see; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections.
    pub connections: u64,
    /// Maximum number of peers.
    pub peers: u64,
    /// Maximum number of torrents.
    pub torrents: u64,
}

/// Limits that a reload changes.
#[derive(Clone, Debug)]
struct SharedLimits(Arc<Mutex<Limits>>);

impl SharedLimits {
    fn set(&self, limits: Limits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn get(&self) -> Limits {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes what a reload changes.
#[derive(Clone, Debug)]
pub struct Changes {
    limits: SharedLimits,
    proxies: Arc<ArcSwap<Proxies>>,
}

impl Changes {
    /// Replaces the limits and the proxies.
    pub fn set(&self, limits: Limits, proxies: Proxies) {
        self.limits.set(limits);
        self.proxies.store(Arc::new(proxies));
    }
}

/// What the page depends on besides its own section.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Section `[status]`.
    pub config: &'a StatusConfig,
    /// Announce URLs of the ports, with `{host}` for the name of the tracker.
    pub announce_urls: Vec<String>,
    /// Limits whose use is shown.
    pub limits: Limits,
    /// Proxies whose requests are not of this machine.
    pub proxies: Proxies,
    /// What tells the state of the certificate, if the tracker obtains it.
    pub certificate: Option<CertificateSource>,
    /// What tells the state of the cluster, if this tracker is a node of one.
    pub cluster: Option<ClusterSource>,
}

/// Tells the state of the certificate.
#[derive(Clone)]
pub struct CertificateSource(Arc<dyn Fn() -> CertificateReport + Send + Sync>);

impl CertificateSource {
    /// Asks a function, once a second.
    pub fn new(source: impl Fn() -> CertificateReport + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSource").finish_non_exhaustive()
    }
}

/// Tells the state of the cluster.
#[derive(Clone)]
pub struct ClusterSource(Arc<dyn Fn() -> ClusterReport + Send + Sync>);

impl ClusterSource {
    /// Asks a function, once a second.
    pub fn new(source: impl Fn() -> ClusterReport + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Debug for ClusterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSource").finish_non_exhaustive()
    }
}

/// A core's part of the status page.
#[derive(Debug)]
pub struct CoreStatus {
    site: Site,
    notices: MailboxReceiver<()>,
}

impl CoreStatus {
    /// Begins to answer on a core.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn start(self, core: &Rc<Core>) -> io::Result<Rc<dyn Pages>> {
        Ok(Rc::new(CorePages::start(self.site, self.notices, core)?))
    }
}

/// Has the engine run the sampler, and the page's own listener if there is one. Returns each core's part, in
/// core order, and what changes limits and proxies; `None` where the page is off or nobody could reach it.
///
/// # Errors
/// The address cannot be bound, or too many files are open.
pub fn open(
    settings: Settings<'_>,
    serves_tcp: bool,
    engine: &mut Engine,
) -> anyhow::Result<Option<(Vec<CoreStatus>, Changes)>> {
    let Settings { config, announce_urls, limits, proxies, certificate, cluster } = settings;
    if !config.enable || !(serves_tcp || config.own_address) {
        return Ok(None);
    }
    let shared = Shared::new(config.max_streams);
    let assets = Assets::new();
    let proxies = Arc::new(ArcSwap::from_pointee(proxies));
    let site = Site::new(config, Arc::clone(&proxies), Arc::clone(&assets), Arc::clone(&shared));
    let (cores, receivers) = mailboxes(if config.on_cores() { engine.cores() } else { 0 }, 1)
        .context("cannot make the mailboxes of the status page")?;
    let side = Arc::<SideStreams>::default();
    if config.own_address {
        listen(config, site.clone(), &side, engine)?;
    }
    let limits = SharedLimits(Arc::new(Mutex::new(limits)));
    let given = &config.announce_urls;
    let page = page::Page::new(&assets);
    let mut sampler = Sampler {
        announce_urls: if given.is_empty() { announce_urls } else { given.clone() },
        limits: limits.clone(),
        certificate,
        cluster,
        page,
        cores,
        side,
        ..Sampler::new(engine, shared)
    };
    // The first request may come before the first second is over.
    sampler.tick();
    let (sender, stop) = channel();
    engine.add_side_thread("aquatic-sampler", move || sampler.run(&stop));
    engine.before_stop(move |hold| {
        // Without the thread there is nothing to wait for: the hold is dropped.
        let _ = sender.send(hold);
    });
    let on_core = |notices| CoreStatus { site: site.clone(), notices };
    Ok(Some((receivers.into_iter().map(on_core).collect(), Changes { limits, proxies })))
}

/// Binds the page's own address.
fn listen(
    config: &StatusConfig,
    site: Site,
    side: &Arc<SideStreams>,
    engine: &mut Engine,
) -> anyhow::Result<()> {
    let listener = SideListener::bind(config.address, engine.listeners())
        .map_err(BindError::classified)
        .context("status page")?;
    log::info!("status page: http://{}{}", listener.address(), config.path);
    let responder = SidePages { site, metrics: MetricsSources::new(engine), side: Arc::clone(side) };
    listener.serve(engine, ("status", &names::STATUS_UNSERVED), Arc::new(responder));
    Ok(())
}

/// The page at its own address, with health and, for operators, metrics.
struct SidePages {
    site: Site,
    metrics: MetricsSources,
    side: Arc<SideStreams>,
}

impl Responder for SidePages {
    fn respond(&self, request: &PageRequest<'_>) -> SideReply {
        let not_found = || {
            encode(&PlainReply::text(aquatic_http_protocol::Status::NotFound, "not found\n"), request.framing)
        };
        match request.head.path {
            b"/health" => SideReply::whole(self.metrics.health(request.framing)),
            b"/metrics" if self.site.is_operator(request) => SideReply::whole(self.metrics.metrics(request)),
            _ => match self.site.answer(request) {
                Some(answer) => self.send(answer, request),
                None => SideReply::whole(not_found()),
            },
        }
    }
}

impl SidePages {
    fn send(&self, answer: Answer, request: &PageRequest<'_>) -> SideReply {
        let framing = answer.framing(request.framing);
        let mut bytes = vec![0; 2048];
        let written = answer.encode_head(framing, &mut bytes).unwrap_or_default();
        bytes.truncate(written);
        match answer {
            _ if !framing.body => {}
            Answer::Document { document, gzip, .. } => bytes.extend_from_slice(&document.bytes(gzip)),
            Answer::Text(text) => bytes.extend_from_slice(text.text.as_bytes()),
            Answer::Unchanged { .. } => {}
            Answer::Stream(subscription) => {
                let side = Arc::clone(&self.side);
                let take_over = Box::new(move |stream| side.add(stream, subscription));
                return SideReply { bytes, take_over: Some(take_over) };
            }
        }
        SideReply::whole(bytes)
    }
}

/// Metrics about the page itself.
struct Counts {
    requests: Counter,
    denied: Counter,
    sent: Counter,
    streams: Gauge,
    refused: Counter,
    slow: Counter,
    failures: Counter,
}

struct Sampler {
    shared: Arc<Shared>,
    registry: Registry,
    process: ProcessFigures,
    epoch: Epoch,
    serving: Serving,
    started: Duration,
    last: Duration,
    history: History,
    state: Option<StateDirectory>,
    saved: u64,
    is_failing: bool,
    figures: Figures,
    earlier: Figures,
    latency: latency::Window,
    announce_urls: Vec<String>,
    limits: SharedLimits,
    certificate: Option<CertificateSource>,
    cluster: Option<ClusterSource>,
    page: page::Page,
    cores: Vec<MailboxSender<()>>,
    side: Arc<SideStreams>,
    counts: Counts,
}

impl Sampler {
    fn new(engine: &Engine, shared: Arc<Shared>) -> Self {
        let metrics = engine.registry().main_thread();
        let now = engine.epoch().elapsed();
        let state = engine.state_directory().cloned();
        Self {
            shared,
            registry: engine.registry().clone(),
            process: engine.process_figures(),
            epoch: engine.epoch(),
            serving: engine.serving(),
            started: now,
            last: now,
            history: state.as_ref().map(load).unwrap_or_default(),
            state,
            saved: calendar(),
            is_failing: false,
            figures: Figures::default(),
            earlier: Figures::default(),
            latency: latency::Window::default(),
            announce_urls: Vec::new(),
            limits: SharedLimits(Arc::default()),
            certificate: None,
            cluster: None,
            page: page::Page::default(),
            cores: Vec::new(),
            side: Arc::default(),
            counts: Counts {
                requests: metrics.counter(&names::STATUS_REQUESTS, &[]),
                denied: metrics.counter(&names::STATUS_DENIED, &[]),
                sent: metrics.counter(&names::STATUS_SENT, &[]),
                streams: metrics.gauge(&names::STATUS_STREAMS, &[]),
                refused: metrics.counter(&names::STATUS_STREAMS_REFUSED, &[]),
                slow: metrics.counter(&names::STATUS_STREAMS_SLOW, &[]),
                failures: metrics.counter(&names::STATE_WRITE_FAILURES, &[("file", STATUS)]),
            },
        }
    }

    /// Runs for as long as the process does. History is saved once more when it is told to stop.
    fn run(mut self, stop: &Receiver<StopHold>) {
        let mut next = self.epoch.elapsed();
        loop {
            let now = self.epoch.elapsed();
            match stop.recv_timeout(next.saturating_sub(now)) {
                Ok(hold) => {
                    self.tick();
                    self.save();
                    drop(hold);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.tick();
                    // Seconds that were missed are not made up for, and the next sample is one of a second
                    // again.
                    next = next_tick(next, self.epoch.elapsed());
                }
                // The process is stopping.
                Err(RecvTimeoutError::Disconnected) => return self.last_ticks(),
            }
        }
    }

    /// Goes on while the cores finish, so that streams end.
    fn last_ticks(&mut self) {
        loop {
            self.tick();
            pause();
        }
    }

    /// Samples, makes the documents and tells the viewers.
    fn tick(&mut self) {
        let (passed, last) = since(self.last, self.epoch.elapsed());
        self.last = last;
        self.transfer_counts();
        let mut samples = self.registry.samples();
        samples.extend(self.process.samples());
        let figures = Figures::of(&samples);
        let sampled = Sampled {
            time: calendar(),
            milliseconds: u64::try_from(passed.as_millis()).unwrap_or(u64::MAX),
            values: values(&figures, &self.figures, passed, self.latency.add(&self.registry.histograms())),
        };
        self.history.add(&sampled);
        self.earlier = std::mem::replace(&mut self.figures, figures);
        self.publish(&sampled);
        if sampled.time.abs_diff(self.saved) >= SAVE_INTERVAL {
            self.save();
        }
    }

    fn transfer_counts(&self) {
        let take = |number: &AtomicU64| number.swap(0, Ordering::Relaxed);
        self.counts.requests.add(take(&self.shared.requests));
        self.counts.denied.add(take(&self.shared.denied));
        self.counts.sent.add(take(&self.shared.sent));
        self.counts.refused.add(take(&self.shared.streams_refused));
        self.counts.slow.add(take(&self.shared.streams_slow));
        self.counts.streams.set(self.shared.streams.load(Ordering::Relaxed) as u64);
    }

    fn publish(&mut self, sampled: &Sampled) {
        let moment = Moment {
            time: sampled.time,
            uptime: self.last.saturating_sub(self.started).as_secs(),
            figures: &self.figures,
            earlier: &self.earlier,
            milliseconds: sampled.milliseconds,
            values: &sampled.values,
            history: &self.history,
            latency: &self.latency.latencies(),
            limits: self.limits.get(),
            streams: (self.shared.streams.load(Ordering::Relaxed), self.shared.max_streams),
            announce_urls: &self.announce_urls,
            certificate: self.certificate.as_ref().map(|CertificateSource(source)| source()),
            cluster: self.cluster.as_ref().map(|ClusterSource(source)| source()),
        };
        let previous = self.shared.published.load_full();
        let json = View::ALL.map(|view| json_of(&moment, view));
        let mut slots = previous.slots.clone();
        // At first, cores are still adding their metrics.
        let level = |asked: u64| {
            let is_wanted = moment.time <= asked.saturating_add(WANTED) || moment.uptime < WANTED;
            is_wanted.then(Compression::fast)
        };
        for (slot, document) in Slot::all().zip(&mut slots) {
            let level = level(self.shared.asked(slot));
            if level.is_some() || (moment.time + slot.index() as u64).is_multiple_of(STALE) {
                *document = Arc::new(slot_document(&moment, slot, (&self.page, level)));
            }
        }
        let level = level(self.shared.summary_asked());
        let xml = opentracker::everything(&moment).into_bytes();
        let id = previous.events.back().map_or(moment.time, |last| moment.time.max(last.id + 1));
        let published = Published {
            events: with_event(&previous.events, id, &json),
            json: json.map(|json| Arc::new(Document::new("application/json", json, level))),
            slots,
            opentracker: Arc::new(Document::new("text/xml; charset=utf-8", xml, level)),
        };
        self.shared.published.store(Arc::new(published));
        self.side.send();
        if self.shared.streams.load(Ordering::Relaxed) > 0 {
            for core in &self.cores {
                // If the mailbox is full, the core has not yet heard of the previous event.
                let _ = core.try_send(());
            }
        }
    }

    fn save(&mut self) {
        self.saved = calendar();
        // During an upgrade, the file belongs to the process that serves.
        let Some(state) = self.state.as_ref().filter(|_| !self.serving.is_elsewhere()) else { return };
        let bytes = file::encode(&self.history);
        let result = state.replace(STATUS, |file| file.write_all(&bytes));
        if let Err(error) = &result {
            self.counts.failures.add(1);
            if !self.is_failing {
                log::warn!(
                    "the figures of the status page cannot be saved to {}: {error}. A restart will forget those of \
                     the time since it last worked; make room, or check the permissions",
                    state.path().join(STATUS).display()
                );
            }
        }
        self.is_failing = result.is_err();
    }
}

#[allow(clippy::disallowed_methods, reason = "the thread has nothing else to do")]
fn pause() {
    std::thread::sleep(Duration::from_millis(250));
}

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time of the tick after one that was due at `due` and has ended now.
fn next_tick(due: Duration, now: Duration) -> Duration {
    let next = due + INTERVAL;
    if next > now { next } else { now + INTERVAL }
}

/// Whole milliseconds since the last sample, and up to when they are: what is left counts for the next one.
fn since(last: Duration, now: Duration) -> (Duration, Duration) {
    let passed = now.saturating_sub(last);
    let whole = Duration::new(passed.as_secs(), passed.subsec_millis() * 1_000_000);
    (whole, last + whole)
}

fn calendar() -> u64 {
    u64::try_from(calendar_seconds()).unwrap_or_default()
}

/// History and totals of the previous process. A file that cannot be used is put aside.
fn load(state: &StateDirectory) -> History {
    let path = state.path().join(STATUS);
    let mut bytes = Vec::new();
    let read = state.open_file(STATUS).and_then(|file| match file {
        Some(file) => file.take(file::MAX_SIZE).read_to_end(&mut bytes).map(|_| true),
        None => Ok(false),
    });
    let problem = match read {
        Ok(false) => return History::default(),
        Ok(true) => match file::decode(&bytes) {
            Ok(history) => return history,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let kept = if state.rename(STATUS, UNUSABLE_STATUS).is_ok() {
        format!("; it is kept as {UNUSABLE_STATUS}")
    } else {
        String::new()
    };
    log::warn!(
        "the figures of the status page in {} are not used: {problem}. Totals and charts begin anew{kept}",
        path.display()
    );
    History::default()
}

/// Values of all series: of counts, what is new since the figures of some time ago.
fn values(now: &Figures, before: &Figures, passed: Duration, times: latency::Second) -> Values {
    let nanoseconds = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
    let busiest = now.busy(before, nanoseconds).fold(0.0, f64::max);
    let mut values = [0; history::COUNT];
    for route in 0..ROUTES {
        let count = |figures: &Figures| figures.requests.get(route).copied().flatten().unwrap_or_default();
        if let Some(value) = values.get_mut(route) {
            *value = count(now).saturating_sub(count(before));
        }
    }
    let (seeders, leechers) = now.peers();
    for (series, value) in [
        (history::REQUESTS, values.iter().take(ROUTES).sum()),
        (history::REFUSED, now.refused.saturating_sub(before.refused)),
        (history::DROPPED, now.dropped.saturating_sub(before.dropped)),
        (history::RECEIVED, now.received.saturating_sub(before.received)),
        (history::SENT, now.sent.saturating_sub(before.sent)),
        (history::PEERS, seeders + leechers),
        (history::SEEDERS, seeders),
        (history::TORRENTS, now.torrents()),
        (history::CONNECTIONS, now.all_connections()),
        (history::BUSY, (busiest * 1000.0).round() as u64),
        (history::MEMORY, now.memory),
        (history::LATENCY_SAMPLES, times.requests),
        (history::P50, times.p50),
        (history::P99, times.p99),
    ] {
        values[series] = value;
    }
    values
}

fn json_of(moment: &Moment<'_>, view: View) -> Vec<u8> {
    // Serializing to memory what has string keys only does not fail.
    serde_json::to_vec(&moment.report(view, None)).unwrap_or_default()
}

fn slot_document(
    moment: &Moment<'_>,
    slot: Slot,
    (page, level): (&page::Page, Option<Compression>),
) -> Document {
    let report = moment.report(slot.view, Some(slot.range));
    match slot.kind {
        Kind::Page => {
            let html = page.render(&report, slot.range, slot.view);
            Document::new("text/html; charset=utf-8", html.into_bytes(), level)
        }
        Kind::History => {
            let json = serde_json::to_vec(&report).unwrap_or_default();
            Document::new("application/json", json, level)
        }
    }
}

/// The events with another one, without those that are too old.
fn with_event(events: &VecDeque<Event>, id: u64, json: &[Vec<u8>; 2]) -> VecDeque<Event> {
    let skipped = (events.len() + 1).saturating_sub(KEPT_EVENTS);
    let mut events: VecDeque<Event> = events.iter().skip(skipped).cloned().collect();
    let comment = if id.is_multiple_of(COMMENT_INTERVAL) { ": still here\n" } else { "" };
    let views = json.each_ref().map(|json| {
        let head = format!("{comment}id: {id}\ndata: ");
        [head.as_bytes(), json, b"\n\n"].concat().into()
    });
    events.push_back(Event { id, views });
    events
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aquatic_common::config::PrivilegesConfig;

    use super::*;

    #[test]
    fn samples_are_a_second_apart_and_cover_all_time() {
        let at = Duration::from_micros;
        assert_eq!(next_tick(at(5_000_000), at(5_004_321)), at(6_000_000));
        assert_eq!(next_tick(at(5_000_000), at(9_500_000)), at(10_500_000), "after a pause");
        let (mut last, mut covered) = (at(123), Duration::ZERO);
        for second in 1..=100_000 {
            let (passed, next) = since(last, at(123 + second * 1_000_700));
            (covered, last) = (covered + passed, next);
        }
        assert!(at(100_000 * 1_000_700) - covered < at(1000), "{covered:?}");
    }

    #[test]
    fn events_are_numbered_and_bounded() {
        let mut events = VecDeque::new();
        for id in 1..200 {
            events = with_event(&events, id, &[b"{}".to_vec(), b"[]".to_vec()]);
        }
        assert_eq!((events.len(), events[0].id), (KEPT_EVENTS, 140));
        assert_eq!(&*events[0].views[1], b"id: 140\ndata: []\n\n");
        assert_eq!(&*events[10].views[0], b": still here\nid: 150\ndata: {}\n\n");
    }

    #[test]
    fn counts_are_those_since_the_previous_figures() {
        let before = Figures { requests: [Some(5); ROUTES], refused: 1, ..Figures::default() };
        let now = Figures { requests: [Some(7); ROUTES], refused: 0, memory: 9, ..Figures::default() };
        let times = latency::Second { requests: 3, p50: 4, p99: 5 };
        let values = values(&now, &before, Duration::from_secs(1), times);
        assert_eq!((values[0], values[history::REQUESTS], values[history::REFUSED]), (2, 12, 0));
        assert_eq!((values[history::MEMORY], values[history::P99]), (9, 5));
    }

    #[test]
    fn files_that_cannot_be_used_are_put_aside() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(temporary.path(), &PrivilegesConfig::default()).unwrap();
        assert_eq!(load(&state), History::default());
        let mut history = History::default();
        history.add(&Sampled { time: 1_800_000_000, milliseconds: 1000, values: [3; history::COUNT] });
        let path = temporary.path().join(STATUS);
        fs::write(&path, file::encode(&history)).unwrap();
        assert_eq!(load(&state), history);
        fs::write(&path, "rubbish").unwrap();
        assert_eq!(load(&state), History::default());
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(temporary.path().join(UNUSABLE_STATUS)).unwrap(), "rubbish");
    }
}
