//! Sending requests for parts that other nodes hold, and the replies to theirs.

use std::rc::Rc;
use std::time::Duration;

use aquatic_runtime::Core;
use aquatic_tracker::LocalTracker;

use super::{Channel, ClusterLink, FromCore, Inner, STEP};

/// Time over which requests are collected.
const BATCH: Duration = Duration::from_millis(1);

/// The same while there are none.
const IDLE_BATCH: Duration = Duration::from_millis(5);

/// Time without requests after which there are none.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// Items of messages between two looks at the clock.
const SLICE: usize = 16;

/// Announces for which there was no holder that are looked at between two batches.
const LATE: usize = 128;

/// Hands messages to the thread for as long as the process runs.
pub(super) async fn run(core: &Rc<Core>, tracker: &LocalTracker, link: &ClusterLink) {
    let mut sent = Duration::ZERO;
    loop {
        let is_idle = core.time().saturating_sub(sent) >= IDLE_AFTER;
        core.sleep(if is_idle { IDLE_BATCH } else { BATCH }).await;
        if link.is_connected() {
            tracker.send_late(LATE);
        }
        while let Some((to, body)) = tracker.take_message() {
            sent = core.time();
            // Numbers of nodes come from the thread, and what is dropped is counted: the request runs into
            // its deadline.
            if let Ok(to) = u8::try_from(to) {
                link.send(FromCore::Messages { to, channel: Channel::Parts, body });
            }
        }
    }
}

/// Handles messages of other nodes in steps, until there are no more.
pub(super) async fn serve(inner: &Inner) {
    let Inner { core, tracker, messages, is_serving, .. } = inner;
    let mut begin = core.tick();
    loop {
        let next = messages.borrow_mut().pop_front();
        let Some((from, body)) = next else {
            is_serving.set(false);
            return;
        };
        let mut items: &[u8] = &body;
        while !items.is_empty() {
            tracker.receive_message(from.into(), &mut items, SLICE);
            if core.tick().saturating_sub(begin) >= STEP {
                core.yield_now().await;
                begin = core.tick();
            }
        }
    }
}
