//! Table of the nodes of the cluster: runs, replacement by younger runs, and nodes that are gone.

use std::collections::VecDeque;

use crate::Millis;
use crate::counters::Counters;
use crate::hello::{Hello, MAX_STREAMS, NodeName, StreamId, StreamKind};
use crate::machine::Heal;
use crate::streams::{Arrival, Stream};
use crate::wire::{Kind, Run};

/// Maximum number of other nodes. A node takes 20 KiB at most, by its streams.
pub const MAX_NODES: usize = 127;

/// Time without a hello after which a node is gone, in milliseconds.
pub const GONE_AFTER: Millis = 10_000;

/// Runs that have ended, whose messages are refused; the oldest are forgotten.
pub const MAX_ENDED_RUNS: usize = 1024;

/// Maximum difference of calendars at which hellos are accepted, in seconds. So a copy of a hello of a
/// run that has ended is worth nothing an hour later.
pub const MAX_CLOCK_DIFFERENCE: u64 = 3600;

/// Length of the periods over which the shortest transit time is taken, in milliseconds.
const TRANSIT_PERIOD: Millis = 300_000;

/// Estimates how long messages of a node were on their way, without knowing its clock: longer than the
/// fastest one.
#[derive(Clone, Copy, Debug)]
struct Transit {
    /// Least difference of the clocks in this period, and in the one before.
    least: [i128; 2],
    until: Millis,
}

impl Transit {
    fn new(now: Millis, clock: u64) -> Self {
        Self { least: [difference(now, clock); 2], until: now.saturating_add(TRANSIT_PERIOD) }
    }

    fn observe(&mut self, now: Millis, clock: u64) {
        let difference = difference(now, clock);
        if now >= self.until {
            self.least = [difference, self.least[0]];
            self.until = now.saturating_add(TRANSIT_PERIOD);
        }
        self.least[0] = self.least[0].min(difference);
    }

    /// Milliseconds that have passed since the node's clock showed this.
    fn since(&self, now: Millis, clock: u64) -> Millis {
        let least = self.least[0].min(self.least[1]);
        u64::try_from(difference(now, clock).saturating_sub(least)).unwrap_or_default()
    }
}

fn difference(now: Millis, clock: u64) -> i128 {
    i128::from(now) - i128::from(clock)
}

/// Another node.
#[derive(Debug)]
pub struct Node {
    /// Number of the node's run in this process, below [`MAX_NODES`]. Another run has it only after this one
    /// was reported gone.
    pub number: u8,
    /// Its run.
    pub run: Run,
    /// What it last said of itself.
    pub hello: Hello,
    /// When its first hello was received.
    pub since: Millis,
    /// When its last hello was received.
    pub heard: Millis,
    /// Whether it is silent for [`GONE_AFTER`].
    pub gone: bool,
    /// All that it had published until then is known.
    pub known_until: Option<Millis>,
    /// Milliseconds that its last message was on its way, beyond the fastest one.
    pub lag: Millis,
    /// Seconds that its calendar is ahead of ours.
    pub calendar_ahead: i64,
    /// Gaps in its streams so far.
    pub gaps: u64,
    pub(crate) heal: Heal,
    transit: Transit,
    streams: Vec<(StreamId, Stream)>,
    /// Messages without streams of cores, by kind.
    others: [Stream; Kind::ALL.len()],
}

impl Node {
    fn new(number: u8, run: Run, hello: Hello, now: Millis) -> Self {
        let streams = hello.streams.iter().map(|(id, next)| (*id, Stream::starting_at(*next)));
        Self {
            number,
            run,
            since: now,
            heard: now,
            gone: false,
            known_until: None,
            lag: 0,
            calendar_ahead: 0,
            gaps: 0,
            heal: Heal::default(),
            transit: Transit::new(now, hello.clock),
            streams: streams.take(MAX_STREAMS).collect(),
            others: [Stream::starting_at(0); Kind::ALL.len()],
            hello,
        }
    }

    /// Whether this is the first message of its kind with this sequence number. What is too old to know is
    /// not.
    pub(crate) fn is_first(&mut self, kind: Kind, sequence: u64, now: Millis) -> bool {
        let index = usize::from(kind.number()).saturating_sub(1);
        let arrival = self.others.get_mut(index).map(|stream| stream.arrive(sequence, now));
        matches!(arrival, Some(Arrival::New { .. } | Arrival::Late))
    }

    /// Notes a batch of a stream.
    pub(crate) fn arrive(&mut self, id: StreamId, sequence: u64, now: Millis) -> Arrival {
        let Some(stream) = self.stream(id, 0) else { return Arrival::Duplicate };
        stream.arrive(sequence, now)
    }

    /// The stream, which begins here if it is new. `None` if there are too many.
    fn stream(&mut self, id: StreamId, next: u64) -> Option<&mut Stream> {
        let at = self.streams.iter().position(|(known, _)| *known == id);
        let at = match at {
            Some(at) => at,
            None if self.streams.len() < MAX_STREAMS => {
                self.streams.push((id, Stream::starting_at(next)));
                self.streams.len() - 1
            }
            None => return None,
        };
        self.streams.get_mut(at).map(|(_, stream)| stream)
    }

    /// Notes the sequence numbers of a hello. Returns batches lost by kind of stream.
    pub(crate) fn announce(&mut self, streams: &[(StreamId, u64)], now: Millis) -> [u64; 2] {
        let mut lost = [0_u64; 2];
        for (id, next) in streams {
            // A stream that was not known begins at 0: what it has published is missing.
            if let Some(stream) = self.stream(*id, 0) {
                let count = &mut lost[stream_index(id.kind)];
                *count = count.saturating_add(stream.announce(*next, now));
            }
        }
        lost
    }

    /// Gives up batches that have been missing for too long. Returns how many, by kind of stream.
    pub(crate) fn give_up(&mut self, now: Millis) -> [u64; 2] {
        let mut lost = [0_u64; 2];
        for (id, stream) in &mut self.streams {
            let count = &mut lost[stream_index(id.kind)];
            *count = count.saturating_add(stream.give_up(now));
        }
        lost
    }

    /// Whether no batch of changes is missing.
    pub(crate) fn is_in_order(&self) -> bool {
        let mut changes = self.streams.iter().filter(|(id, _)| id.kind == StreamKind::Changes);
        changes.all(|(_, stream)| stream.is_in_order())
    }

    /// Milliseconds since the node's clock showed this.
    pub(crate) fn since_clock(&self, now: Millis, clock: u64) -> Millis {
        self.transit.since(now, clock)
    }

    /// Takes in the clock of a message that has just been received.
    pub(crate) fn observe_clock(&mut self, now: Millis, clock: u64) {
        self.transit.observe(now, clock);
        self.lag = self.transit.since(now, clock);
    }

    /// Name of the node.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.hello.name
    }
}

/// When the run began by its own calendar, in milliseconds since 1970.
fn began(hello: &Hello) -> i128 {
    i128::from(hello.calendar) * 1000 - i128::from(hello.clock)
}

/// Index of a kind of stream in counts.
pub(crate) fn stream_index(kind: StreamKind) -> usize {
    match kind {
        StreamKind::Changes => 0,
        StreamKind::WebTorrent => 1,
    }
}

/// Other nodes by run.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: Vec<Node>,
    ended: VecDeque<Run>,
    /// Counters of runs that have left the table.
    past: Counters,
    next_number: u8,
}

/// Run that a younger one of the same name has replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) number: u8,
    pub(crate) run: Run,
    pub(crate) name: NodeName,
    pub(crate) was_gone: bool,
}

impl Replaced {
    fn of(node: &Node) -> Self {
        Self { number: node.number, run: node.run, name: node.name().clone(), was_gone: node.gone }
    }
}

/// What became of a hello.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Greeted {
    /// From a run that was not known. It replaces these.
    Joined(Vec<Replaced>),
    /// From a node that was gone.
    Returned,
    /// From a node that is here.
    Known,
    /// It is older than one received before, or a copy of it.
    Duplicate,
    /// Its run has ended.
    Ended,
    /// A younger run has its name.
    Replaced,
    /// Its calendar differs too much.
    Clock,
    /// There are too many nodes.
    Full,
}

impl Nodes {
    /// All nodes, gone ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut()
    }

    /// Nodes that are not gone.
    pub fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.gone)
    }

    /// The node whose run has this number.
    #[must_use]
    pub fn by_number(&self, number: u8) -> Option<&Node> {
        self.nodes.iter().find(|node| node.number == number)
    }

    pub(crate) fn by_run(&mut self, run: Run) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.run == run)
    }

    pub(crate) fn has_ended(&self, run: Run) -> bool {
        self.ended.contains(&run)
    }

    /// Sum of the last known counters of all runs that were ever seen.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.nodes.iter().fold(self.past, |sum, node| sum.plus(node.hello.counters))
    }

    /// Takes in a hello.
    pub(crate) fn greet(
        &mut self,
        run: Run,
        sequence: u64,
        hello: Hello,
        now: Millis,
        calendar: u64,
    ) -> Greeted {
        if self.has_ended(run) {
            return Greeted::Ended;
        }
        if hello.calendar.abs_diff(calendar) > MAX_CLOCK_DIFFERENCE {
            return Greeted::Clock;
        }
        let ahead = i64::try_from(i128::from(hello.calendar) - i128::from(calendar)).unwrap_or_default();
        let Some(node) = self.by_run(run) else { return self.join(run, sequence, hello, now, ahead) };
        if !node.is_first(Kind::Hello, sequence, now) || hello.clock < node.hello.clock {
            return Greeted::Duplicate;
        }
        node.observe_clock(now, hello.clock);
        let counters = node.hello.counters.max(hello.counters);
        node.hello = Hello { counters, name: node.hello.name.clone(), ..hello };
        node.heard = now;
        node.calendar_ahead = ahead;
        if std::mem::take(&mut node.gone) { Greeted::Returned } else { Greeted::Known }
    }

    fn join(&mut self, run: Run, sequence: u64, hello: Hello, now: Millis, ahead: i64) -> Greeted {
        let same_name = |node: &&Node| node.hello.name == hello.name;
        // A copy of an old hello looks young to those who have started since, but not by its calendar. A run
        // whose calendar was set back waits until the other one is gone, and so does one that began within a
        // second.
        let younger = |node: &Node| !node.gone && began(&node.hello) + 1000 > began(&hello);
        if self.nodes.iter().filter(same_name).any(younger) {
            return Greeted::Replaced;
        }
        let replaced: Vec<Replaced> = self.nodes.iter().filter(same_name).map(Replaced::of).collect();
        for node in &replaced {
            self.end(node.run);
        }
        if self.nodes.len() >= MAX_NODES {
            let oldest = self.nodes.iter().filter(|node| node.gone).min_by_key(|node| node.heard);
            let Some(oldest) = oldest.map(|node| node.run) else { return Greeted::Full };
            // It may return, so it has not ended.
            self.nodes.retain(|node| node.run != oldest);
        }
        let Some(number) = self.free_number() else { return Greeted::Full };
        let mut node = Node::new(number, run, hello, now);
        node.calendar_ahead = ahead;
        let _first = node.is_first(Kind::Hello, sequence, now);
        self.nodes.push(node);
        Greeted::Joined(replaced)
    }

    /// A number that no node has; the ones used last come last.
    fn free_number(&mut self) -> Option<u8> {
        let max = u8::try_from(MAX_NODES).unwrap_or(u8::MAX);
        let free = (0..max)
            .map(|step| (self.next_number.wrapping_add(step)) % max)
            .find(|number| self.by_number(*number).is_none())?;
        self.next_number = (free + 1) % max;
        Some(free)
    }

    /// Removes a run for good: it was replaced, or has left.
    pub(crate) fn end(&mut self, run: Run) {
        let Some(at) = self.nodes.iter().position(|node| node.run == run) else { return };
        let node = self.nodes.swap_remove(at);
        self.past = self.past.plus(node.hello.counters);
        if self.ended.len() >= MAX_ENDED_RUNS {
            self.ended.pop_front();
        }
        self.ended.push_back(run);
    }
}
