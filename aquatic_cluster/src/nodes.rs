//! Table of the nodes of the cluster: runs, replacement by younger runs, and nodes that are gone.

use std::collections::VecDeque;

use crate::Millis;
use crate::counters::Counters;
use crate::hello::{Hello, Holds, MAX_STREAMS, NodeName, StreamId, StreamKind};
use crate::machine::Heal;
use crate::streams::{Arrival, Stream};
use crate::wire::{Kind, Run};

/// Maximum number of other nodes. A node takes 20 KiB at most, by its streams.
pub const MAX_NODES: usize = 127;

/// Time without a hello after which a node is gone, in milliseconds.
pub const GONE_AFTER: Millis = 10_000;

/// Runs that have left or were replaced, whose messages are refused; the oldest are forgotten.
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
    /// All that the run before it had published until then is known.
    known_before: Option<Millis>,
    /// When it told that it has taken in peers of a run before it.
    pub(crate) restored: Option<Millis>,
    /// Milliseconds that its last message was on its way, beyond the fastest one.
    pub lag: Millis,
    /// Seconds that its calendar is ahead of ours.
    pub calendar_ahead: i64,
    /// Gaps in its streams so far.
    pub gaps: u64,
    /// When a gap was told of last, by kind of stream.
    pub(crate) gap_told: [Option<Millis>; 2],
    pub(crate) heal: Heal,
    transit: Transit,
    streams: Vec<(StreamId, Stream)>,
    /// Messages without streams of cores, by kind.
    others: [Stream; Kind::ALL.len()],
}

impl Node {
    fn new(number: u8, run: Run, hello: Hello, known_before: Option<Millis>, now: Millis) -> Self {
        let streams = hello.streams.iter().map(|(id, next)| (*id, Stream::starting_at(*next)));
        Self {
            number,
            run,
            since: now,
            heard: now,
            gone: false,
            known_until: None,
            known_before,
            restored: None,
            lag: 0,
            calendar_ahead: 0,
            gaps: 0,
            gap_told: [None; 2],
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

    /// Notes that the node has taken in peers of a run before it, which it does not publish: those of the
    /// time from which on that run's are not known are to be pulled.
    pub(crate) fn note_restored(&mut self, now: Millis) {
        self.restored = Some(now);
        self.known_until = self.known_before;
        self.heal.want(StreamKind::Changes);
    }

    /// Until when all that the run before it had published is known.
    pub(crate) fn known_before(&self) -> Option<Millis> {
        self.known_before
    }

    /// Whether it can hand out peers.
    pub(crate) fn holds_peers(&self) -> bool {
        self.hello.holds != Holds::Nothing
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

/// Run that has left the table for good, or as long as a younger one has its name.
#[derive(Debug)]
struct Ended {
    run: Run,
    /// The highest clock that it has told. Whatever tells a higher one is no copy.
    clock: u64,
    counters: Counters,
    has_left: bool,
}

/// Other nodes by run.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: Vec<Node>,
    ended: VecDeque<Ended>,
    /// Until when all that the last run of a name had published is known, for the names used last.
    known_by_name: VecDeque<(NodeName, Millis)>,
    /// Counters of runs that are forgotten.
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
        self.ended.iter().any(|ended| ended.run == run)
    }

    /// Sum of the last known counters of all runs that were ever seen.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let live = self.nodes.iter().map(|node| node.hello.counters);
        let ended = self.ended.iter().map(|ended| ended.counters);
        live.chain(ended).fold(self.past, Counters::plus)
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
        // A run that was replaced by mistake, as two nodes had one name, goes on telling of itself.
        if let Some(ended) = self.ended.iter_mut().find(|ended| ended.run == run) {
            if ended.has_left || hello.clock <= ended.clock {
                return Greeted::Ended;
            }
            ended.clock = hello.clock;
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
        let was_restored = node.hello.restored;
        node.hello = Hello { counters, name: node.hello.name.clone(), ..hello };
        if node.hello.restored && !was_restored {
            node.note_restored(now);
        }
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
            self.end(node.run, false);
        }
        if self.nodes.len() >= MAX_NODES {
            let oldest = self.nodes.iter().filter(|node| node.gone).min_by_key(|node| node.heard);
            let Some(oldest) = oldest.map(|node| node.run) else { return Greeted::Full };
            // It may return, so it has not ended.
            self.nodes.retain(|node| node.run != oldest);
        }
        let Some(number) = self.free_number() else { return Greeted::Full };
        let returned = self.take_ended(run);
        let counters = returned.as_ref().map(|ended| ended.counters).unwrap_or_default();
        let hello = Hello { counters: counters.max(hello.counters), ..hello };
        // What is known of the other node that had the name says nothing of one that returns.
        let known_before =
            self.known_by_name.iter().find(|(name, _)| *name == hello.name && returned.is_none());
        let known_before = known_before.map(|(_, until)| *until);
        let mut node = Node::new(number, run, hello, known_before, now);
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

    /// Removes a run: it has left for good, or was replaced.
    pub(crate) fn end(&mut self, run: Run, has_left: bool) {
        let Some(at) = self.nodes.iter().position(|node| node.run == run) else { return };
        let node = self.nodes.swap_remove(at);
        self.note_known(&node);
        if self.ended.len() >= MAX_ENDED_RUNS
            && let Some(forgotten) = self.ended.pop_front()
        {
            self.past = self.past.plus(forgotten.counters);
        }
        let Hello { clock, counters, .. } = node.hello;
        self.ended.push_back(Ended { run, clock, counters, has_left });
    }

    fn take_ended(&mut self, run: Run) -> Option<Ended> {
        let at = self.ended.iter().position(|ended| ended.run == run)?;
        self.ended.remove(at)
    }

    /// Remembers until when a run that ends is known.
    fn note_known(&mut self, node: &Node) {
        self.known_by_name.retain(|(name, _)| name != node.name());
        let Some(until) = node.known_until else { return };
        if self.known_by_name.len() >= MAX_NODES {
            self.known_by_name.pop_front();
        }
        self.known_by_name.push_back((node.name().clone(), until));
    }
}
