//! The task that serves a socket: receives batches, has them served, sends the replies.

use std::rc::Rc;
use std::time::Duration;

use aquatic_net::breaker::Protocol;
use aquatic_net::udp::{BATCH, Batch, QueueState, SendErrors};
use aquatic_runtime::intake::IntakeTask;
use aquatic_tracker::Reason;

use super::{ALL, BATCHES_PER_YIELD, ListenerState, State, wait};
use crate::forwarded::Forwarded;
use crate::handler::Listener;
use crate::overload::{Activity, DATAGRAM_BYTES};

/// A batch smaller than this has probably emptied the socket: to wait costs less than to ask for more, and is
/// over at the core's next look if there is more.
const PROBABLY_ALL: usize = 4;

/// If the core has slept at least so long, what wakes it is a request that comes alone, most of the time.
/// What has come with it is received after the next wait, in a batch. A core that has other work does not
/// sleep: then any number may be there.
const LONE_AFTER: Duration = Duration::from_micros(15);

/// Number of datagrams that are received together from a receive buffer that was full: it may have no room
/// for a whole batch. Half of the short ones that fit, as others take more memory.
fn all_at_once(queue: QueueState) -> usize {
    let fit = (f64::from(queue.size) / DATAGRAM_BYTES) as usize;
    if fit == 0 { BATCH } else { (fit / 2).clamp(1, BATCH) }
}

/// Receives, serves and sends until the executor ends.
pub(super) async fn listen(state: &Rc<State>, index: usize) {
    let Some(listener) = state.listeners.get(index) else { return };
    let socket = listener.socket.get_ref();
    let about = Listener { index, family: socket.family() };
    let mut batch = Batch::new();
    let mut forwarded = Forwarded::default();
    let mut activity = Activity::default();
    let mut expects_one = false;
    let intake = state.core.intake().join();
    intake.opened().await;
    // A process that had the socket before may have been killed. One that still serves needs its filter.
    let _none_there = socket.remove_filter();
    let all = all_at_once(state.begin_with(index, listener));
    loop {
        if intake.is_closed() {
            state.read_queue(index, listener);
            listener.remove_filter();
            intake.opened().await;
        }
        let mut waited = false;
        for _ in 0..BATCHES_PER_YIELD {
            if intake.is_closed() {
                break;
            }
            let asked = if expects_one { 1 } else { BATCH };
            let received = if expects_one { batch.receive_one(socket) } else { batch.receive(socket) };
            activity.was_empty |= matches!(received, Ok(received) if received < asked.min(all));
            match received {
                Ok(0) => {
                    waited = true;
                    expects_one = wait_idle(state, listener, (&intake, &mut activity)).await;
                }
                Ok(received) => {
                    // As of the end of the wait, or of the batch before.
                    let at = state.core.time();
                    state.counters.borrow().batch(index, received);
                    let (dropped, reason) = if state.breakers.is_open(Protocol::Udp, about.family) {
                        (ALL, Reason::Breaker)
                    } else {
                        (state.control_overload(index, &batch, &mut activity), Reason::Overload)
                    };
                    state.handler.borrow_mut().drop_unread(dropped, reason);
                    let left = state.serve_batch(about, &mut batch, &mut forwarded);
                    state.ask_owners(&mut forwarded);
                    send(state, listener, &mut batch).await;
                    state.count_served(received - left, at);
                    if received < PROBABLY_ALL {
                        waited = true;
                        expects_one = wait_idle(state, listener, (&intake, &mut activity)).await;
                    }
                }
                Err(error) => wait(state, Err(error)).await,
            }
        }
        if !waited {
            listener.socket.leave();
        }
        state.core.yield_now().await;
    }
}

/// Waits for datagrams. Returns whether a single one is to be expected.
async fn wait_idle(
    state: &State,
    listener: &ListenerState,
    (intake, activity): (&IntakeTask, &mut Activity),
) -> bool {
    let (since, slept) = (state.core.time(), state.core.slept());
    listener.waits.set(true);
    let ready = intake.unless_closed(listener.socket.readable()).await.unwrap_or(Ok(()));
    // The core sleeps only if no socket that is waited for has anything to read.
    let is_lone = ready.is_ok() && state.core.slept().saturating_sub(slept) >= LONE_AFTER;
    wait(state, ready).await;
    listener.waits.set(false);
    activity.idle += state.core.time().saturating_sub(since);
    activity.was_empty |= is_lone;
    is_lone
}

/// Sends the replies of a batch, waiting for room in the send buffer.
async fn send(state: &State, listener: &ListenerState, batch: &mut Batch) {
    let mut errors = SendErrors::default();
    while !batch.send(listener.socket.get_ref(), &mut errors) {
        wait(state, listener.socket.writable().await).await;
    }
    if errors != SendErrors::default() {
        state.counters.borrow().send_errors(&errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_without_room_for_a_batch_is_full_with_less() {
        let all = |size| all_at_once(QueueState { size, ..QueueState::default() });
        assert_eq!([all(0), all(4 << 20), all(106_496)], [BATCH; 3], "unknown, and the usual sizes");
        assert_eq!((all(40_000), all(2304)), (26, 1));
    }
}
