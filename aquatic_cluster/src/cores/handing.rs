//! Handing torrents out to other nodes.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aquatic_common::Family;
use aquatic_runtime::Core;
use aquatic_tracker::snapshot::format::{write_peer, write_torrent};
use aquatic_tracker::snapshot::{SaveSwarms, SavedPeer, SavedTorrent};
use aquatic_tracker::{LocalTracker, SaveFilter, SavePass};
use tokio::sync::mpsc::error::TrySendError;

use super::{HandOut, STEP};
use crate::pull::{Totals, What};

/// Length of torrents from which on a piece is full, in bytes. A piece exceeds it by less than one part of a
/// torrent: 512 peers.
const PIECE_LENGTH: usize = 224 * 1024;

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// Pause while pieces have to be waited for.
const RETRY: Duration = Duration::from_millis(1);

/// Torrents of one family that a core hands out.
#[derive(Debug)]
pub struct Piece {
    /// Family of the peers.
    pub family: Family,
    /// Torrents in the encoding of snapshots. Empty from a core that has handed out all.
    pub content: Vec<u8>,
    /// Numbers of torrents and peers in it.
    pub totals: Totals,
}

/// Gathers what a shard hands out.
#[derive(Default)]
struct Pieces {
    current: Option<Piece>,
    full: Vec<Piece>,
}

fn piece(family: Family) -> Piece {
    let content = Vec::with_capacity(PIECE_LENGTH + PIECE_LENGTH / 8);
    Piece { family, content, totals: Totals::default() }
}

impl SaveSwarms for Pieces {
    fn torrent(&mut self, torrent: SavedTorrent) {
        let has_room = |piece: &Piece| piece.family == torrent.family && piece.content.len() < PIECE_LENGTH;
        if !self.current.as_ref().is_some_and(has_room) {
            self.full.extend(self.current.replace(piece(torrent.family)));
        }
        if let Some(piece) = &mut self.current {
            piece.totals.torrents += 1;
            write_torrent(&torrent, &mut piece.content);
        }
    }

    fn peer(&mut self, peer: SavedPeer) {
        if let Some(piece) = &mut self.current {
            piece.totals.peers += 1;
            write_peer(&peer, &mut piece.content);
        }
    }
}

/// Hands out what was asked for, in steps.
pub(super) async fn run(core: &Rc<Core>, tracker: &LocalTracker, order: HandOut) {
    let pass = if order.second { SavePass::SecondPull } else { SavePass::FirstPull };
    let mut pieces = Pieces::default();
    let filter = match (order.what, &order.parts) {
        (What::Own { max_age }, _) => SaveFilter::Own { max_age },
        (What::Parts(_), Some(parts)) => SaveFilter::Parts(parts),
        (What::All | What::Parts(_), _) => SaveFilter::All,
    };
    tracker.state().begin_saving(pass);
    let mut ended = false;
    while !ended {
        if order.cancelled.load(Ordering::Relaxed) {
            return tracker.state().abandon_saving(pass);
        }
        let begin = core.tick();
        while !ended && core.tick().saturating_sub(begin) < STEP {
            let ago = core.now().0.saturating_sub(order.at.0);
            ended = tracker.state().save((pass, filter), (core.now(), ago), SLICE, &mut pieces).ended;
        }
        for piece in std::mem::take(&mut pieces.full) {
            if !give(core, &order, piece).await {
                return tracker.state().abandon_saving(pass);
            }
        }
        core.yield_now().await;
    }
    if let Some(last) = pieces.current.take()
        && !give(core, &order, last).await
    {
        return;
    }
    // An empty piece says that this core has nothing more.
    let end = Piece { family: Family::V4, content: Vec::new(), totals: Totals::default() };
    let _ = give(core, &order, end).await;
}

/// Gives a piece to the thread, waiting for room. Returns whether it has been taken.
async fn give(core: &Core, order: &HandOut, mut piece: Piece) -> bool {
    loop {
        if order.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        match order.pieces.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => piece = back,
        }
        core.sleep(RETRY).await;
    }
}
