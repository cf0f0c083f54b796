//! Streams of events. A viewer costs a reference to the events that wait for it, which all share, and is
//! never waited for: one that falls behind is ended, and its browser connects again.
//!
//! On a core, the viewers are woken a few at a time, so that other tasks run in between. Beside the cores,
//! the sampler writes to the sockets without waiting.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use aquatic_runtime::{Core, MailboxReceiver};
use aquatic_web::{AfterReply, Body, Events, PageReply, PageRequest, Pages};

use crate::documents::Shared;
use crate::report::View;
use crate::site::{Answer, Site};

/// Events that a viewer may be behind while it is connected.
const MAX_BEHIND: u64 = 15;

/// Viewers that are woken before other tasks of the core run.
const WAKES_PER_YIELD: usize = 16;

/// A viewer's part in the events.
#[derive(Debug)]
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    view: View,
    /// Number of the last event that was taken; 0 for none.
    last: u64,
    /// Whether what was missed has been caught up with.
    is_current: bool,
}

/// What a viewer is sent next.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Arc<[u8]>),
    /// There is nothing new.
    Wait,
    /// The viewer is too far behind.
    End,
}

impl Subscription {
    /// A viewer that has seen events up to a number; 0 for none. `None` if there are too many viewers.
    pub(crate) fn new(shared: &Arc<Shared>, view: View, last: u64) -> Option<Self> {
        let take = |open: usize| (open < shared.max_streams).then_some(open + 1);
        if shared.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            shared.streams_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let published = shared.published.load();
        let range =
            published.events.front().map(|event| event.id)..=published.events.back().map(|event| event.id);
        // What is not in the ring cannot be replayed: the newest event then says all there is to say.
        let newest = range.end().unwrap_or_default();
        let is_known = last > 0 && range.contains(&Some(last));
        let last = if is_known { last } else { newest.saturating_sub(1) };
        Some(Self { shared: Arc::clone(shared), view, last, is_current: false })
    }

    /// Takes the next event.
    pub(crate) fn next(&mut self) -> Next {
        let published = self.shared.published.load();
        let events = &published.events;
        let first = events.partition_point(|event| event.id <= self.last);
        let behind = events.len() - first;
        let Some(event) = events.get(first) else {
            self.is_current = true;
            return Next::Wait;
        };
        if self.is_current && behind as u64 > MAX_BEHIND {
            self.shared.streams_slow.fetch_add(1, Ordering::Relaxed);
            return Next::End;
        }
        self.last = event.id;
        let Some(bytes) = event.views.get(self.view as usize) else { return Next::End };
        self.shared.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Next::Event(Arc::clone(bytes))
    }
}

impl Subscription {
    /// The event that was taken last could not be sent.
    fn put_back(&mut self, before: u64, bytes: &[u8]) {
        self.last = before;
        self.shared.sent.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A viewer that waits for the next event, and whether it is still to be told of one.
type Waiting = (Waker, Rc<Cell<bool>>);

/// Viewers of a core that wait for the next event.
#[derive(Default)]
struct Viewers {
    waiting: RefCell<Vec<Waiting>>,
    /// Those that are to be woken.
    due: RefCell<Vec<Waker>>,
    pacer: Cell<Option<Waker>>,
}

impl Viewers {
    /// There is a new event.
    fn notify(&self) {
        let mut due = self.due.borrow_mut();
        for (waker, waits) in self.waiting.borrow_mut().drain(..) {
            // It may wait for the next one before it is woken for this one.
            waits.set(false);
            due.push(waker);
        }
        drop(due);
        if let Some(pacer) = self.pacer.take() {
            pacer.wake();
        }
    }

    /// Wakes some. Returns whether there are more.
    fn wake_some(&self) -> bool {
        for _ in 0..WAKES_PER_YIELD {
            // Not in the condition, which would hold the borrow.
            let waker = self.due.borrow_mut().pop();
            let Some(waker) = waker else { return false };
            waker.wake();
        }
        true
    }

    fn poll_due(&self, context: &Context<'_>) -> Poll<()> {
        if self.due.borrow().is_empty() {
            self.pacer.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// Wakes viewers for as long as the core runs.
async fn pace(core: Rc<Core>, viewers: Rc<Viewers>) {
    loop {
        poll_fn(|context| viewers.poll_due(context)).await;
        while viewers.wake_some() {
            core.yield_now().await;
        }
    }
}

/// A stream on a core.
struct CoreStream {
    subscription: Subscription,
    viewers: Rc<Viewers>,
    /// Whether the viewer is among those that wait.
    waits: Rc<Cell<bool>>,
}

impl Events for CoreStream {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        match self.subscription.next() {
            Next::Event(bytes) => Poll::Ready(Some(bytes)),
            Next::End => Poll::Ready(None),
            Next::Wait => {
                // Once, however often the task is polled.
                if !self.waits.replace(true) {
                    let waiting = (context.waker().clone(), Rc::clone(&self.waits));
                    self.viewers.waiting.borrow_mut().push(waiting);
                }
                Poll::Pending
            }
        }
    }

    fn not_received(&mut self) {
        self.subscription.shared.streams_slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// The pages of one core.
pub struct CorePages {
    site: Site,
    viewers: Rc<Viewers>,
}

impl fmt::Debug for CorePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorePages").finish_non_exhaustive()
    }
}

impl CorePages {
    pub(crate) fn start(site: Site, notices: MailboxReceiver<()>, core: &Rc<Core>) -> io::Result<Self> {
        let viewers = Rc::<Viewers>::default();
        let notified = Rc::clone(&viewers);
        notices.attach(core, move |()| notified.notify())?;
        core.spawn(pace(Rc::clone(core), Rc::clone(&viewers)));
        Ok(Self { site, viewers })
    }
}

impl Pages for CorePages {
    fn respond(&self, request: &PageRequest<'_>, reply: &mut [u8]) -> Option<PageReply> {
        let answer = self.site.answer(request)?;
        let framing = answer.framing(request.framing);
        let written = answer.encode_head(framing, reply).unwrap_or_default();
        let body = match answer {
            _ if !framing.body => Body::Empty,
            Answer::Document { document, gzip, .. } => Body::Shared(document.bytes(gzip)),
            Answer::Text(text) => Body::Shared(text.text.as_bytes().into()),
            Answer::Unchanged { .. } => Body::Empty,
            Answer::Stream(subscription) => {
                let viewers = Rc::clone(&self.viewers);
                Body::Events(Box::new(CoreStream { subscription, viewers, waits: Rc::default() }))
            }
        };
        Some(PageReply { written, body, after: AfterReply::of(framing) })
    }
}

/// Streams beside the cores.
#[derive(Debug, Default)]
pub(crate) struct SideStreams(Mutex<Vec<SideStream<TcpStream>>>);

/// A viewer beside the cores.
#[derive(Debug)]
struct SideStream<W> {
    out: W,
    subscription: Subscription,
    /// Number of times in a row that the socket took nothing.
    blocked: u64,
}

impl SideStreams {
    /// Takes over a connection whose head has been sent.
    pub(crate) fn add(&self, stream: TcpStream, subscription: Subscription) {
        if stream.set_nonblocking(true).is_ok() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(SideStream {
                out: stream,
                subscription,
                blocked: 0,
            });
        }
    }

    /// Sends what is new. Streams whose client does not receive, or has gone, end.
    pub(crate) fn send(&self) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain_mut(SideStream::send_new);
    }
}

impl<W: Write> SideStream<W> {
    /// Returns whether the stream goes on.
    fn send_new(&mut self) -> bool {
        loop {
            let before = self.subscription.last;
            match self.subscription.next() {
                Next::Wait => return true,
                Next::End => return false,
                Next::Event(bytes) => match self.out.write(&bytes) {
                    Ok(written) if written == bytes.len() => self.blocked = 0,
                    // A part of an event is worth nothing.
                    Ok(_) => return self.end_as_slow(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // The next time. A viewer that has come back may have missed more than fits.
                        self.subscription.put_back(before, &bytes);
                        self.blocked += 1;
                        return self.blocked <= MAX_BEHIND || self.end_as_slow();
                    }
                    Err(_) => return false,
                },
            }
        }
    }

    fn end_as_slow(&self) -> bool {
        self.subscription.shared.streams_slow.fetch_add(1, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::documents::{Event, KEPT_EVENTS, Published};

    fn publish(shared: &Shared, ids: impl IntoIterator<Item = u64>) {
        let mut published = Published::clone(&shared.published.load());
        for id in ids {
            let bytes: Arc<[u8]> = id.to_string().into_bytes().into();
            published.events.push_back(Event { id, views: [Arc::clone(&bytes), bytes] });
            if published.events.len() > KEPT_EVENTS {
                published.events.pop_front();
            }
        }
        shared.published.store(Arc::new(published));
    }

    fn taken(subscription: &mut Subscription) -> Vec<String> {
        std::iter::from_fn(|| match subscription.next() {
            Next::Event(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Next::Wait => None,
            Next::End => Some("end".to_owned()),
        })
        .take(100)
        .collect()
    }

    #[test]
    fn a_viewer_who_comes_back_gets_what_it_missed() {
        let shared = Shared::new(10);
        publish(&shared, 1000..1100);
        let subscribe = |last| Subscription::new(&shared, View::Public, last).unwrap();
        assert_eq!(taken(&mut subscribe(0)), ["1099"]);
        assert_eq!(taken(&mut subscribe(1097)), ["1098", "1099"]);
        assert_eq!(taken(&mut subscribe(1040)).len(), 59, "all that are kept");
        assert_eq!(taken(&mut subscribe(500)), ["1099"], "too long ago");
        assert_eq!(taken(&mut subscribe(9999)), ["1099"], "from another tracker");
        let mut viewer = subscribe(1099);
        assert_eq!(taken(&mut viewer), [""; 0]);
        publish(&shared, [1100, 1101]);
        assert_eq!(taken(&mut viewer), ["1100", "1101"]);
    }

    #[test]
    fn viewers_that_fall_behind_are_ended_and_counted() {
        let shared = Shared::new(1);
        publish(&shared, 1..3);
        let mut viewer = Subscription::new(&shared, View::Public, 0).unwrap();
        assert!(Subscription::new(&shared, View::Public, 0).is_none(), "one is allowed");
        assert_eq!(taken(&mut viewer), ["2"]);
        publish(&shared, 3..=3 + MAX_BEHIND);
        assert!(matches!(viewer.next(), Next::End));
        assert_eq!(shared.streams_slow.load(Ordering::Relaxed), 1);
        assert_eq!(shared.streams_refused.load(Ordering::Relaxed), 1);
        drop(viewer);
        assert!(Subscription::new(&shared, View::Public, 0).is_some(), "the other one has gone");
        assert_eq!(shared.streams.load(Ordering::Relaxed), 0);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn viewers_are_woken_for_each_event_also_after_a_late_notice() {
        let shared = Shared::new(1);
        publish(&shared, [1]);
        let viewers = Rc::<Viewers>::default();
        let subscription = Subscription::new(&shared, View::Public, 0).unwrap();
        let mut stream = CoreStream { subscription, viewers: Rc::clone(&viewers), waits: Rc::default() };
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut poll = || stream.poll_next(&mut Context::from_waker(&waker)).is_ready();
        assert!(poll() && !poll() && !poll(), "the event that was there");
        for (event, wakes) in [(None, 1), (None, 2), (Some(2), 3), (Some(3), 4)] {
            publish(&shared, event);
            viewers.notify();
            assert!(!viewers.wake_some());
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes);
            assert_eq!(poll(), event.is_some());
            assert!(!poll() && !poll());
        }
        publish(&shared, [4]);
        viewers.notify();
        assert!(poll() && !poll(), "before it is woken");
        assert!(!viewers.wake_some() && !poll());
        publish(&shared, [5]);
        viewers.notify();
        assert!(!viewers.wake_some());
        assert_eq!(woken.0.load(Ordering::Relaxed), 6);
    }

    /// A socket with room for some bytes.
    struct Room(usize);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn side_streams_are_written_without_waiting() {
        let shared = Shared::new(10);
        publish(&shared, [10, 11, 12]);
        let stream = |room| {
            let subscription = Subscription::new(&shared, View::Public, 10).unwrap();
            SideStream { out: Room(room), subscription, blocked: 0 }
        };
        for (room, goes_on) in [(4, true), (2, true), (3, false)] {
            assert_eq!(stream(room).send_new(), goes_on, "{room}");
        }
        assert_eq!(shared.streams_slow.load(Ordering::Relaxed), 1, "a part of an event");
        let mut late = stream(2);
        assert!((0..MAX_BEHIND).all(|_| late.send_new()));
        late.out.0 = 2;
        assert!(
            late.send_new() && late.out.0 == 0 && late.subscription.last == 12,
            "what was missed is sent"
        );
        late.subscription.last = 10;
        assert!((0..MAX_BEHIND).all(|_| late.send_new()) && !late.send_new());
        assert_eq!(shared.streams_slow.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn viewers_are_woken_a_few_at_a_time() {
        let viewers = Viewers::default();
        let waker = Waker::noop();
        let viewer = (waker.clone(), Rc::default());
        viewers.waiting.borrow_mut().extend(std::iter::repeat_n(viewer, 2 * WAKES_PER_YIELD + 1));
        assert!(viewers.poll_due(&Context::from_waker(waker)).is_pending());
        viewers.notify();
        assert!(viewers.poll_due(&Context::from_waker(waker)).is_ready());
        assert!(viewers.wake_some() && viewers.wake_some());
        assert_eq!(viewers.due.borrow().len(), 1);
        assert!(!viewers.wake_some());
    }
}
