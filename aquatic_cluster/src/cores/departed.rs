//! Telling other nodes again of peers that have left: a node that has missed changes hears of those that live
//! by its pull, and of the others by this.

use std::time::Duration;

use aquatic_tracker::replication::{MAX_BATCH, Published, record_length};

use super::{ClusterLink, FromCore, Inner, STEP};

/// Records between two looks at the clock.
const SLICE: usize = 64;

/// Pause after a batch: 6 MB/s at most.
const PAUSE: Duration = Duration::from_millis(10);

/// Tells of them in steps, until there are no more, or another pass has begun.
pub(super) async fn tell(inner: &Inner, max_age: u32, link: &ClusterLink) {
    let Inner { core, tracker, telling, told_again, .. } = inner;
    let pass = telling.get().wrapping_add(1);
    telling.set(pass);
    let (mut cursor, is_lost) = tracker.state().begin_telling_departed(max_age, core.now());
    if is_lost {
        log::info!(
            "cluster: not all peers that left in the last {max_age} s are remembered; other nodes may know some \
             of them until they are too old"
        );
    }
    let mut batch: Option<Published> = None;
    while telling.get() == pass {
        let begin = core.tick();
        let mut full = None;
        let mut has_more = true;
        while full.is_none() && has_more && core.tick().saturating_sub(begin) < STEP {
            let next = tracker.state().tell_departed(&mut cursor, core.now(), SLICE);
            has_more = next.is_some();
            full = add(&mut batch, next);
        }
        if let Some(Published { family, records, until }) = full {
            let ago = core.now() - until;
            told_again.add((records.len() / record_length(family)) as u64);
            link.send(FromCore::Changes { family, records, ago });
            core.sleep(PAUSE).await;
        } else if !has_more {
            return;
        } else {
            core.yield_now().await;
        }
    }
}

/// Removes peers, in steps, that another node has brought back which had not heard that they left here.
pub(super) async fn sweep(inner: &Inner) {
    let Inner { core, tracker, .. } = inner;
    let (mut cursor, _) = tracker.state().begin_telling_departed(u32::MAX, core.now());
    let mut has_more = true;
    while has_more {
        let begin = core.tick();
        while has_more && core.tick().saturating_sub(begin) < STEP {
            has_more = tracker.state().tell_departed(&mut cursor, core.now(), SLICE).is_some();
        }
        core.yield_now().await;
    }
}

/// Adds records to a batch, if they fit it. Otherwise they are the next batch, and the one before is
/// returned.
fn add(batch: &mut Option<Published>, next: Option<Published>) -> Option<Published> {
    let fits = |batch: &Published, next: &Published| {
        (batch.family, batch.until) == (next.family, next.until)
            && batch.records.len() + next.records.len() <= MAX_BATCH
    };
    match (batch.as_mut(), next) {
        (Some(batch), Some(next)) if fits(batch, &next) => {
            batch.records.extend(next.records);
            None
        }
        (_, next) => std::mem::replace(batch, next).filter(|full| !full.records.is_empty()),
    }
}
