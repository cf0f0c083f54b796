//! Connection to the NATS servers: subscriptions, publishing with bounded memory, and what happens to it.
//!
//! There is one connection, which `async-nats` makes again for as long as the process runs. While there is
//! none, nothing is kept for it: what is published is dropped and counted, and receivers ask for what they
//! lack.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use aquatic_metrics::CoreMetrics;
use aquatic_metrics::{Counter, Gauge, names};
use async_nats::{Client, ClientError, Event, ServerError, Subject, Subscriber};
use bytes::Bytes;
use futures_lite::Stream;
use tokio::sync::mpsc;

use crate::access::Access;

/// Messages of one subscription that have not been read yet: 32 MB of full batches. Further ones are dropped,
/// which shows as a gap.
const MAX_UNREAD: usize = 512;

/// Messages on their way to the task of the client, besides those that wait here.
const MAX_IN_CLIENT: usize = 32;

/// Shortest and longest pause before a connection is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Time without drops after which messages are received completely again.
const QUIET: Duration = Duration::from_secs(10);

/// Time without a connection, where there was one, after which the reason is told.
const REASON: Duration = Duration::from_secs(30);

/// Shortest time between two log lines about the same kind of refusal.
const REFUSALS: Duration = Duration::from_secs(60);

/// What the rest of the thread hears of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is one, the first or a later one.
    Connected,
    /// There is none any more.
    Disconnected,
}

/// Connection of this node. Its parts are used at the same time.
pub(crate) struct Nats {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) events: Events,
    is_connected: bool,
    /// Whether there ever was a connection.
    has_been: bool,
    /// Since when there is none, once that has been said.
    said_away: Option<Duration>,
    away_since: Duration,
    /// Whether it was told why there is no connection.
    said_why: bool,
    /// For another attempt, of which the reason of a failure is known.
    access: Access,
    node: String,
    /// When messages were last dropped because they were not read in time.
    slow_at: Option<Duration>,
    last_refusal: Option<Duration>,
    counters: Counters,
}

/// What is received.
pub(crate) struct Incoming {
    subscriptions: Vec<Subscriber>,
    /// Subscription that is asked first, so that none waits for ever.
    first: usize,
    bytes: Counter,
}

/// What waits to be sent.
pub(crate) struct Outgoing {
    client: Client,
    queue: VecDeque<(Subject, Bytes)>,
    queued: usize,
    max_queued: usize,
}

/// What happens to the connection.
pub(crate) struct Events(mpsc::UnboundedReceiver<Event>);

struct Counters {
    connected: Gauge,
    disconnects: Counter,
    dropped_away: Counter,
    dropped_pending: Counter,
    dropped_unread: Counter,
    sent: Counter,
}

impl Counters {
    fn new(metrics: &CoreMetrics) -> Self {
        let dropped = |reason| metrics.counter(&names::CLUSTER_DROPPED, &[("reason", reason)]);
        Self {
            connected: metrics.gauge(&names::CLUSTER_CONNECTED, &[]),
            disconnects: metrics.counter(&names::CLUSTER_DISCONNECTS, &[]),
            dropped_away: dropped("disconnected"),
            dropped_pending: dropped("max_pending"),
            dropped_unread: dropped("unread"),
            sent: metrics.counter(&names::CLUSTER_BYTES, &[("direction", "sent")]),
        }
    }
}

/// Subjects that a node subscribes to. Changes come first: they are what waits while the cores have enough to
/// do.
pub(crate) fn subscribed(prefix: &str, node: &str) -> Vec<String> {
    vec![
        format!("{prefix}.changes.*.*"),
        format!("{prefix}.webtorrent.*.*"),
        format!("{prefix}.hello.*"),
        format!("{prefix}.control"),
        format!("{prefix}.pull.{node}"),
        format!("{prefix}.ws.{node}"),
        format!("{prefix}.parts.{node}"),
    ]
}

/// First part of all subjects of a cluster.
pub(crate) fn prefix(name: &str) -> String {
    format!("aquatic.{name}")
}

/// Pause before an attempt to connect: grows to [`LONGEST_PAUSE`], and differs between nodes.
fn pause(attempts: usize, random: u32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
}

/// The text of an error and of its causes, as far as they say something else.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Tries to connect once more, and returns why that fails. What the client tells of its own attempts lacks
/// the causes.
async fn why_not(access: &Access, node: &str) -> Option<String> {
    let attempt =
        async { access.options(node)?.connect(access.servers()).await.map_err(std::io::Error::other) };
    attempt.await.err().map(|error| with_causes(&error))
}

impl Nats {
    /// Begins to connect, and subscribes. Does not wait for a server.
    ///
    /// # Errors
    /// Nothing that depends on a server.
    pub(crate) async fn open(
        access: &Access,
        node: &str,
        subjects: &[String],
        (max_queued, now): (usize, Duration),
        metrics: &CoreMetrics,
    ) -> anyhow::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let options = access.options(node).context("the credentials for NATS cannot be used")?;
        let options = options
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempts| pause(attempts, rand::random()))
            .subscription_capacity(MAX_UNREAD)
            .client_capacity(MAX_IN_CLIENT)
            .event_callback(move |event| {
                // Without a receiver the process is ending.
                let _ = sender.send(event);
                std::future::ready(())
            });
        let client = options.connect(access.servers()).await.context("the NATS servers cannot be used")?;
        let mut subscriptions = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let subscriber = client.subscribe(subject.clone()).await.context("cannot subscribe")?;
            subscriptions.push(subscriber);
        }
        let bytes = metrics.counter(&names::CLUSTER_BYTES, &[("direction", "received")]);
        Ok(Self {
            incoming: Incoming { subscriptions, first: 0, bytes },
            outgoing: Outgoing { client, queue: VecDeque::new(), queued: 0, max_queued },
            events: Events(events),
            is_connected: false,
            has_been: false,
            said_away: None,
            away_since: now,
            said_why: false,
            access: access.clone(),
            node: node.to_owned(),
            slow_at: None,
            last_refusal: None,
            counters: Counters::new(metrics),
        })
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Has a message sent as soon as possible, or drops and counts it. Returns whether it was taken.
    pub(crate) fn publish(&mut self, subject: Subject, message: Vec<u8>) -> bool {
        if !self.is_connected {
            self.counters.dropped_away.add(1);
            return false;
        }
        let length = message.len();
        if !self.outgoing.push(subject, message) {
            self.counters.dropped_pending.add(1);
            return false;
        }
        self.counters.sent.add(length as u64);
        true
    }

    /// Takes note of an event, and says what an operator should know.
    pub(crate) fn note(&mut self, event: &Event, now: Duration) -> Option<Change> {
        match event {
            Event::Connected => {
                self.connected(now);
                return Some(Change::Connected);
            }
            Event::Disconnected => {
                self.disconnected(now);
                return Some(Change::Disconnected);
            }
            Event::SlowConsumer(_) => {
                self.counters.dropped_unread.add(1);
                if self.slow_at.replace(now).is_none() {
                    log::warn!(
                        "cluster: more is received than the cores take in, so messages are dropped; other nodes are asked for \
                         what is missing"
                    );
                }
            }
            Event::ClientError(error) => self.failed(error, now),
            Event::ServerError(error) => self.refused(error, now),
            Event::LameDuckMode => {
                log::info!("cluster: the NATS server is going to stop; another one will be used")
            }
            Event::Draining | Event::Closed => {}
        }
        None
    }

    fn connected(&mut self, now: Duration) {
        self.is_connected = true;
        self.counters.connected.set(1);
        let info = self.outgoing.client.server_info();
        let server = if info.server_name.is_empty() { "NATS server" } else { &info.server_name };
        if self.has_been || self.said_away.is_some() {
            let away = now.saturating_sub(self.away_since);
            log::info!("cluster: connected to NATS again after {:.1} s", away.as_secs_f64());
        } else {
            log::info!("cluster: connected to {server}");
        }
        self.has_been = true;
        self.said_away = None;
        self.said_why = false;
    }

    fn disconnected(&mut self, now: Duration) {
        if !std::mem::take(&mut self.is_connected) {
            return;
        }
        self.counters.connected.set(0);
        self.counters.disconnects.add(1);
        self.counters.dropped_away.add(self.outgoing.clear());
        self.away_since = now;
        self.said_away = Some(now);
        log::warn!(
            "cluster: the connection to NATS is lost; this node serves alone until there is one again"
        );
    }

    /// Says why there is no connection: at once if there never was one, and later in an outage, of which one
    /// line has been logged.
    fn failed(&mut self, error: &ClientError, now: Duration) {
        log::debug!("cluster: no connection to NATS: {error}");
        let is_time = !self.has_been || now.saturating_sub(self.away_since) >= REASON;
        if self.is_connected || self.said_why || !is_time {
            return;
        }
        self.said_why = true;
        self.said_away.get_or_insert(now);
        let (access, node) = (self.access.clone(), self.node.clone());
        tokio::spawn(async move {
            // There is one meanwhile, if that says nothing.
            if let Some(why) = why_not(&access, &node).await {
                log::warn!(
                    "cluster: no NATS server can be used ({why}); this node serves alone and tries again. \"aquatic doctor\" \
                     says more"
                );
            }
        });
    }

    fn refused(&mut self, error: &ServerError, now: Duration) {
        let is_new = self.last_refusal.is_none_or(|last| now.saturating_sub(last) >= REFUSALS);
        if is_new {
            self.last_refusal = Some(now);
            log::error!(
                "cluster: the NATS server refuses something: {error}. Check the permissions of the user there"
            );
        }
    }

    /// Says that messages are read in time again, once that is so.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.slow_at.is_some_and(|at| now.saturating_sub(at) >= QUIET) {
            self.slow_at = None;
            log::info!("cluster: what is received is taken in completely again");
        }
    }
}

impl Outgoing {
    fn push(&mut self, subject: Subject, message: Vec<u8>) -> bool {
        if self.queued + message.len() > self.max_queued {
            return false;
        }
        self.queued += message.len();
        self.queue.push_back((subject, Bytes::from(message)));
        true
    }

    /// Drops all that waits. Returns the number of messages.
    fn clear(&mut self) -> u64 {
        let number = self.queue.len() as u64;
        self.queue.clear();
        self.queued = 0;
        number
    }

    /// Whether messages wait to be sent.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Completes when the first message that waits has been given to the client. May be dropped at any time.
    pub(crate) async fn send_first(&mut self) {
        let Some((subject, message)) = self.queue.front().cloned() else { return };
        let length = message.len();
        // Fails for an empty subject, or if the client has ended: the process is ending then.
        let _ = self.client.publish(subject, message).await;
        self.queue.pop_front();
        self.queued = self.queued.saturating_sub(length);
    }

    /// Completes when all that was published has left this process, or the time is over.
    pub(crate) async fn flush(&mut self, limit: Duration) {
        let flushed = async {
            while self.has_queued() {
                self.send_first().await;
            }
            let _ = self.client.flush().await;
        };
        let _ = tokio::time::timeout(limit, flushed).await;
    }
}

impl Incoming {
    /// The next message. `reads_first` is whether the first subscription is read; otherwise its messages
    /// wait. May be dropped at any time.
    pub(crate) async fn next(&mut self, reads_first: bool) -> Vec<u8> {
        let count = self.subscriptions.len();
        let payload = poll_fn(|context| {
            for step in 0..count {
                let index = (self.first + step) % count;
                if index == 0 && !reads_first {
                    continue;
                }
                let Some(subscription) = self.subscriptions.get_mut(index) else { continue };
                if let Poll::Ready(Some(message)) = Pin::new(subscription).poll_next(context) {
                    self.first = index + 1;
                    return Poll::Ready(message.payload);
                }
            }
            Poll::Pending
        })
        .await;
        self.bytes.add(payload.len() as u64);
        // Usually nobody else holds it, so that nothing is copied.
        Vec::from(payload)
    }
}

impl Events {
    /// The next event. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let longest = |attempts| pause(attempts, u32::MAX);
        assert_eq!([1, 2, 3].map(longest), [50, 100, 200].map(Duration::from_millis));
        assert_eq!([8, 100, usize::MAX].map(longest), [LONGEST_PAUSE; 3]);
        assert_eq!(pause(100, 0), LONGEST_PAUSE / 2);
    }
}
