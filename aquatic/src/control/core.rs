//! A core's part: tells what it has about torrents, in steps that are too short to delay requests.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::InfoHash;
use aquatic_runtime::{Core, MailboxReceiver};
use aquatic_tracker::requests::Counts;
use aquatic_tracker::{LocalTracker, RankBy, RankCursor, SwarmCounts, TopTorrents};
use aquatic_ws::WsOverview;
use aquatic_ws::swarm;

/// Longest time spent at a stretch, as in expiry. Afterwards the other tasks of the core run.
const STEP: Duration = Duration::from_micros(200);

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// WebTorrent torrents between two looks at the clock.
const WS_SLICE: usize = 256;

/// Pause between two steps: a ranking takes at most a sixth of a core.
const PAUSE: Duration = Duration::from_millis(1);

/// What the control thread asks of a core.
#[derive(Debug)]
pub(super) enum CoreCommand {
    /// Tell the counts of a torrent, which this core owns.
    Torrent(InfoHash, Sender<TorrentCounts>),
    /// Tell the largest torrents of this core.
    Rank(Ranking),
    /// Count requests for so long, and tell what was counted.
    Count(Duration, Sender<Counts>),
}

/// Order to rank torrents.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    pub(super) by: RankBy,
    /// Number of torrents that are wanted.
    pub(super) most: usize,
    /// Ends it before its time.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) reply: Sender<Ranked>,
}

/// Counts of a torrent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TorrentCounts {
    /// Of UDP and HTTP peers, by family; `None` if neither is served.
    pub(super) bittorrent: Option<[SwarmCounts; 2]>,
    /// Of WebTorrent peers; `None` if they are not served.
    pub(super) webtorrent: Option<swarm::Counts>,
    /// Whether other nodes of the cluster hold the UDP and HTTP peers.
    pub(super) elsewhere: bool,
}

/// The largest torrents of a core.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    pub(super) torrents: Vec<(InfoHash, TorrentCounts)>,
    /// Longest time that the core worked for it at a stretch.
    pub(super) longest_step: Duration,
}

/// One core's end of the control thread.
#[derive(Debug)]
pub(crate) struct CoreControl(pub(super) MailboxReceiver<CoreCommand>);

/// What a core has to tell about.
#[derive(Clone)]
pub(crate) struct CoreParts {
    pub(crate) core: Rc<Core>,
    pub(crate) tracker: Option<Rc<LocalTracker>>,
    pub(crate) ws: Option<WsOverview>,
}

impl CoreControl {
    /// Serves the control thread on this core.
    ///
    /// # Errors
    /// The mailbox cannot be waited for.
    pub(crate) fn attach(self, parts: CoreParts) -> anyhow::Result<()> {
        let core = Rc::clone(&parts.core);
        let receive = move |command| match command {
            // Without a receiver nobody waits any more.
            CoreCommand::Torrent(info_hash, reply) => drop(reply.send(parts.counts(&info_hash))),
            CoreCommand::Count(time, reply) => {
                let parts = parts.clone();
                let core = Rc::clone(&parts.core);
                core.spawn(async move { parts.count_requests(time, reply).await });
            }
            CoreCommand::Rank(ranking) => {
                let parts = parts.clone();
                let core = Rc::clone(&parts.core);
                core.spawn(async move { parts.rank(ranking).await });
            }
        };
        self.0.attach(&core, receive).context("cannot wait for the control thread")
    }
}

impl CoreParts {
    fn counts(&self, info_hash: &InfoHash) -> TorrentCounts {
        TorrentCounts {
            bittorrent: self.tracker.as_ref().map(|tracker| tracker.state().counts(info_hash)),
            webtorrent: self.ws.as_ref().map(|ws| ws.counts(info_hash)),
            elsewhere: self.tracker.as_ref().is_some_and(|tracker| !tracker.state().holds(info_hash)),
        }
    }

    async fn count_requests(&self, time: Duration, reply: Sender<Counts>) {
        let begun =
            self.tracker.as_ref().map(|tracker| (tracker, tracker.state().requests().begin_counting()));
        let begun_ws = self.ws.as_ref().map(|ws| (ws, ws.begin_counting()));
        self.core.sleep(time).await;
        let end =
            |(tracker, counting): (&Rc<LocalTracker>, u64)| tracker.state().requests().end_counting(counting);
        let mut counts = begun.map(end).unwrap_or_default();
        if let Some((ws, counting)) = begun_ws {
            counts.merge(&ws.end_counting(counting));
        }
        // Without a receiver it was given up.
        let _ = reply.send(counts);
    }

    async fn rank(&self, ranking: Ranking) {
        let mut top = TopTorrents::new(ranking.by, ranking.most);
        let mut longest_step = Duration::ZERO;
        let (mut cursor, mut position) = (RankCursor::default(), Some(0));
        let mut is_ranked = self.tracker.is_none();
        while !ranking.cancelled.load(Ordering::Relaxed) {
            let begin = self.core.tick();
            let mut spent = Duration::ZERO;
            while spent < STEP && !(is_ranked && position.is_none()) {
                match (&self.tracker, &self.ws, position) {
                    (Some(tracker), ..) if !is_ranked => {
                        is_ranked = tracker.state().rank(&mut cursor, SLICE, &mut top);
                    }
                    (_, Some(ws), Some(from)) => position = ws.rank(from, WS_SLICE, &mut top),
                    (_, None, _) | (_, _, None) => position = None,
                }
                spent = self.core.tick().saturating_sub(begin);
            }
            longest_step = longest_step.max(spent);
            if is_ranked && position.is_none() {
                break;
            }
            self.core.sleep(PAUSE).await;
        }
        let begin = self.core.tick();
        let found = top.into_sorted().into_iter();
        let torrents = found.map(|(_, info_hash)| (info_hash, self.counts(&info_hash))).collect();
        longest_step = longest_step.max(self.core.tick().saturating_sub(begin));
        let _ = ranking.reply.send(Ranked { torrents, longest_step });
    }
}
