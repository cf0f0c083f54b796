//! Nodes in a network without delay: joining, gaps, runs, refusals.

use std::collections::{BTreeMap, BTreeSet};

use aquatic_cluster::counters::Counters;
use aquatic_cluster::hello::{Holds, StreamId, StreamKind};
use aquatic_cluster::machine::{JOIN_AGAIN_AFTER, Refusal, TICK};
use aquatic_cluster::nodes::MAX_NODES;
use aquatic_cluster::pull::{Totals, What};
use aquatic_cluster::puller::Outcome;
use aquatic_cluster::seal::Secret;
use aquatic_cluster::wire::{Header, Kind, Run};
use aquatic_cluster::{Action, Cluster, Notice, Status, Subject};
use aquatic_common::Family;

use crate::properties::{SECRET, node, node_that_holds, sealed};

const STREAM: StreamId = StreamId { kind: StreamKind::Changes, core: 1 };
const CALENDAR: u64 = 1_800_000_000;

/// Nodes, what was applied and loaded by each, and what each had to say.
pub(crate) struct Bus {
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<u8, Cluster>,
    sequences: BTreeMap<u8, u64>,
    applied: BTreeMap<u8, Vec<Vec<u8>>>,
    loaded: BTreeMap<u8, u32>,
    loading: BTreeMap<u8, i32>,
    pub(crate) passes: Vec<(u8, What)>,
    pub(crate) notices: BTreeMap<u8, Vec<Notice>>,
    again: u32,
    /// Nodes that tell again who has left, and of how many seconds.
    departed: Vec<(u8, u32)>,
    /// Messages of streams that are lost.
    lossy: bool,
    /// Nodes that have taken in peers of a run before.
    restored: BTreeSet<u8>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self {
            now: 1_000_000,
            nodes: BTreeMap::new(),
            sequences: BTreeMap::new(),
            applied: BTreeMap::new(),
            loaded: BTreeMap::new(),
            loading: BTreeMap::new(),
            passes: Vec::new(),
            notices: BTreeMap::new(),
            again: 0,
            departed: Vec::new(),
            lossy: false,
            restored: BTreeSet::new(),
        }
    }

    fn start(&mut self, run: u8, name: &str) {
        self.start_holding(run, name, Holds::Everything);
    }

    pub(crate) fn start_holding(&mut self, run: u8, name: &str, holds: Holds) {
        let mut started = node_that_holds(run, name, self.now, holds);
        started.connected(self.now);
        self.nodes.insert(run, started);
    }

    pub(crate) fn of(&mut self, run: u8) -> &mut Cluster {
        self.nodes.get_mut(&run).unwrap()
    }

    pub(crate) fn status(&self, run: u8) -> Status {
        let counters = Counters { announces: u64::from(run) * 10, ..Counters::default() };
        let restored = self.restored.contains(&run);
        Status { calendar: CALENDAR + self.now / 1000, counters, restored, ..Status::default() }
    }

    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / TICK {
            self.now += TICK;
            for run in self.nodes.keys().copied().collect::<Vec<_>>() {
                let (now, status) = (self.now, self.status(run));
                self.of(run).tick(now, &status);
            }
            self.settle();
        }
    }

    pub(crate) fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for run in self.nodes.keys().copied().collect::<Vec<_>>() {
                while let Some(action) = self.of(run).next_action() {
                    busy = true;
                    self.act(run, action);
                }
                if let Some(session) = self.of(run).wants_chunk() {
                    busy = true;
                    self.of(run).supply(session, Family::V4, vec![run; 10]);
                    self.of(run).pass_ended(session, Totals { torrents: 1, peers: 2 });
                }
            }
        }
    }

    fn act(&mut self, run: u8, action: Action) {
        let now = self.now;
        match action {
            Action::Send { subject, message } => {
                if !(self.lossy && matches!(subject, Subject::Changes(_) | Subject::WebTorrent(_))) {
                    for (_, other) in self.nodes.iter_mut().filter(|(other, _)| **other != run) {
                        let _refusal = other.receive(now, &mut message.clone());
                    }
                }
            }
            Action::Apply { records, .. } | Action::ApplyWebTorrent { records, .. } => {
                self.applied.entry(run).or_default().push(records);
            }
            Action::StartPass { session, what } => {
                self.passes.push((run, what));
                self.of(run).pass_started(now, session);
            }
            Action::Load { pull, .. } => {
                *self.loaded.entry(run).or_default() += 1;
                self.of(run).loaded(now, pull);
            }
            Action::PublishAgain => self.again += 1,
            Action::TellDeparted { max_age } => self.departed.push((run, max_age)),
            Action::Notice(notice) => self.notices.entry(run).or_default().push(notice),
            Action::BeginLoading { .. } => *self.loading.entry(run).or_default() += 1,
            Action::EndLoading { .. } => *self.loading.entry(run).or_default() -= 1,
            Action::EndPass { .. } | Action::Deliver { .. } | Action::HoldersChanged => {}
        }
    }

    fn publish(&mut self, run: u8, content: u8) {
        let now = self.now;
        let sequence = self.sequences.entry(run).or_default();
        let used = *sequence;
        *sequence += 1;
        self.of(run).publish(STREAM, used, now, (Some(Family::V4), &[content; 28]));
        self.settle();
    }

    fn has_noticed(&self, run: u8, found: impl Fn(&Notice) -> bool) -> bool {
        self.notices.get(&run).is_some_and(|notices| notices.iter().any(found))
    }

    /// Two nodes that are complete.
    fn pair() -> Self {
        let mut bus = Self::new();
        bus.start(1, "a");
        bus.run(4_000);
        bus.start(2, "b");
        bus.run(10_000);
        bus
    }
}

fn refused(node: &Cluster, refusal: Refusal) -> u64 {
    node.counts().refused[refusal as usize]
}

#[test]
fn a_node_alone_is_complete_and_the_next_pulls_everything_from_it() {
    let mut bus = Bus::new();
    bus.start(1, "a");
    bus.run(2_900);
    assert_eq!(bus.of(1).complete_since(), None);
    bus.run(200);
    assert!(bus.of(1).complete_since().is_some());
    bus.publish(1, 7);
    bus.start(2, "b");
    bus.run(10_000);
    assert!(bus.of(2).complete_since().is_some());
    assert_eq!((bus.loaded[&2], bus.passes.as_slice()), (1, &[(1, What::All)][..]));
    let completed = Outcome::Completed(Totals { torrents: 1, peers: 2 });
    assert!(bus.has_noticed(2, |notice| matches!(notice,
        Notice::PullEnded { outcome, .. } if *outcome == completed)));
    assert!(bus.has_noticed(2, |notice| *notice == Notice::Complete { pulled: true }));
    bus.run(60_000);
    assert_eq!(bus.passes.len(), 1, "nothing is pulled without need");
    assert_eq!(bus.loading[&2], 0, "what begins ends");
    assert_eq!(bus.of(1).totals().announces, 30);
    assert_eq!(bus.of(2).totals().announces, 30);
}

#[test]
fn nodes_that_start_together_do_not_wait_for_each_other() {
    let mut bus = Bus::new();
    for (run, name) in [(1, "a"), (2, "b"), (3, "c")] {
        bus.start(run, name);
        bus.run(100);
    }
    bus.run(20_000);
    assert!(bus.nodes.values().all(|node| node.complete_since().is_some()));
}

#[test]
fn batches_are_applied_once_and_gaps_are_pulled() {
    let mut bus = Bus::pair();
    bus.publish(1, 1);
    assert_eq!(bus.applied[&2], [vec![1; 28]]);
    bus.lossy = true;
    bus.publish(1, 2);
    bus.lossy = false;
    bus.passes.clear();
    bus.run(4_000);
    assert!(
        matches!(bus.passes.as_slice(), [(1, What::Own { max_age })] if (60..70).contains(max_age)),
        "a hello has shown the gap: {:?}",
        bus.passes
    );
    assert_eq!((bus.of(2).counts().gaps, bus.of(2).counts().lost), (1, 1));
    bus.run(120_000);
    assert_eq!(bus.passes.len(), 1, "the gap is closed");
    let behind = |bus: &Bus| bus.now - bus.nodes[&2].nodes().iter().next().unwrap().known_until.unwrap();
    assert!(behind(&bus) <= 2_000);
}

#[test]
fn gaps_that_go_on_are_pulled_ever_more_seldom() {
    let mut bus = Bus::pair();
    bus.passes.clear();
    bus.lossy = true;
    for _ in 0..600 {
        bus.publish(1, 1);
        bus.run(1_000);
    }
    assert!((8..20).contains(&bus.passes.len()), "{} pulls in ten minutes", bus.passes.len());
    bus.lossy = false;
    bus.run(180_000);
    bus.passes.clear();
    bus.run(60_000);
    assert!(bus.passes.is_empty());
}

#[test]
fn batches_that_a_core_had_to_drop_are_seen_as_gaps() {
    let mut bus = Bus::pair();
    bus.of(1).skip(STREAM, 3);
    bus.sequences.insert(1, 3);
    bus.passes.clear();
    bus.publish(1, 9);
    bus.run(5_000);
    assert_eq!(bus.of(1).counts().skipped, 3);
    assert_eq!((bus.of(2).counts().lost, bus.passes.len()), (3, 1));
    assert!(!bus.of(1).publish(STREAM, 3, 0, (Some(Family::V4), &[1; 28])), "a number is used once");
    let beyond = StreamId { core: 2, ..STREAM };
    assert!(!bus.of(1).publish(beyond, 0, 0, (Some(Family::V4), &[1; 28])), "a core that is not there");
}

#[test]
fn webtorrent_streams_are_published_again() {
    let mut bus = Bus::pair();
    let now = bus.now;
    let stream = StreamId { kind: StreamKind::WebTorrent, core: 0 };
    bus.lossy = true;
    assert!(bus.of(1).publish(stream, 0, now, (None, &[5])));
    bus.settle();
    bus.lossy = false;
    bus.run(5_000);
    assert_eq!(bus.again, 1);
    assert!(bus.of(1).publish(stream, 1, now, (None, &[6])));
    bus.settle();
    assert_eq!(bus.applied[&2], [vec![6]]);
}

#[test]
fn an_outage_is_healed_from_when_it_began_and_a_long_one_by_joining_again() {
    let mut bus = Bus::pair();
    bus.publish(1, 1);
    let now = bus.now;
    bus.of(2).disconnected(now);
    let away = bus.nodes.remove(&2).unwrap();
    bus.publish(1, 2);
    bus.run(100_000);
    assert!(bus.has_noticed(1, |notice| matches!(notice, Notice::NodeGone { left: false, .. })));
    bus.nodes.insert(2, away);
    let now = bus.now;
    bus.of(2).connected(now);
    bus.passes.clear();
    bus.run(20_000);
    assert!(
        matches!(bus.passes.as_slice(), [(1, What::Own { max_age })] if (160..170).contains(max_age)),
        "{:?}",
        bus.passes
    );
    assert!(bus.has_noticed(1, |notice| matches!(notice, Notice::NodeReturned { .. })));
    // After a long one all is well if nobody is missing.
    let long_outage = |bus: &mut Bus| {
        let now = bus.now;
        bus.of(2).disconnected(now - JOIN_AGAIN_AFTER);
        bus.of(2).connected(now);
        bus.passes.clear();
        bus.run(20_000);
    };
    long_outage(&mut bus);
    assert_eq!(bus.passes, []);
    bus.start(3, "c");
    bus.run(10_000);
    bus.nodes.remove(&3);
    bus.run(15_000);
    long_outage(&mut bus);
    assert_eq!(bus.passes, [(1, What::All)]);
    assert!(bus.of(2).complete_since().is_some());
}

#[test]
fn commands_are_obeyed_once_and_soon() {
    let mut bus = Bus::pair();
    let now = bus.now;
    assert!(bus.of(1).send_control(b"deny"));
    let Some(Action::Send { subject: Subject::Control, message }) = bus.of(1).next_action() else {
        panic!("it is sent");
    };
    assert_eq!(bus.of(2).receive(now, &mut message.clone()), Ok(()));
    let Some(Action::Deliver { kind: Kind::Control, body, .. }) = bus.of(2).next_action() else {
        panic!("it is delivered");
    };
    assert_eq!(body, b"deny");
    assert_eq!(bus.of(2).receive(now, &mut message.clone()), Err(Refusal::Duplicate));
    // A node that was started since cannot know.
    bus.nodes.remove(&2);
    bus.start(3, "b");
    bus.run(61_000);
    let now = bus.now;
    assert_eq!(bus.of(3).receive(now, &mut message.clone()), Err(Refusal::Duplicate));
}

#[test]
fn a_copy_of_a_hello_does_not_replace_a_node() {
    let mut bus = Bus::new();
    bus.start(1, "b");
    let (now, status) = (bus.now, bus.status(1));
    bus.of(1).tick(now, &status);
    let Some(Action::Send { message, .. }) = bus.of(1).next_action() else { panic!("a hello is due") };
    bus.nodes.remove(&1);
    bus.run(60_000);
    bus.start(2, "b");
    bus.run(5_000);
    bus.start(3, "c");
    bus.run(5_000);
    let now = bus.now;
    assert_eq!(bus.of(3).receive(now, &mut message.clone()), Err(Refusal::EndedRun));
    assert!(bus.of(3).nodes().live().all(|node| node.run == Run([2; 16])));
}

#[test]
fn a_node_without_a_connection_publishes_nothing_and_says_so() {
    let mut alone = node(1, "a", 0);
    assert!(!alone.publish(STREAM, 0, 0, (Some(Family::V4), &[1; 28])));
    alone.tick(100_000, &Status::default());
    assert_eq!((alone.next_action(), alone.counts().not_connected), (None, 1));
    assert!(!alone.send_control(b"reload") && !alone.send_to(0, Kind::Relay, b"offer"));
    alone.leave(0);
    assert_eq!(alone.next_action(), None);
}

#[test]
fn a_younger_run_replaces_an_older_one_of_its_name() {
    let mut bus = Bus::pair();
    let old = bus.nodes.remove(&2).unwrap();
    bus.start(3, "b");
    bus.run(8_000);
    let names = |bus: &Bus| -> Vec<(Run, bool)> {
        bus.nodes[&1].nodes().iter().map(|node| (node.run, node.gone)).collect()
    };
    assert_eq!(names(&bus), [(Run([3; 16]), false)]);
    assert!(bus.has_noticed(1, |notice| matches!(notice, Notice::NodeGone { left: false, .. })));
    // The old process was only asleep.
    bus.nodes.insert(2, old);
    bus.run(5_000);
    assert_eq!(names(&bus), [(Run([3; 16]), false)]);
    assert!(refused(&bus.nodes[&1], Refusal::EndedRun) > 0);
    assert!(bus.has_noticed(2, |notice| *notice == Notice::NameTaken));
    bus.nodes.remove(&2);
    assert_eq!(bus.of(1).totals().announces, 10 + 20 + 30, "what a run has counted stays counted");
}

#[test]
fn a_run_whose_name_was_taken_by_mistake_returns_when_the_other_has_left() {
    let mut bus = Bus::pair();
    bus.run(60_000);
    bus.start(3, "b");
    bus.run(10_000);
    let runs = |bus: &Bus| bus.nodes[&1].nodes().iter().map(|node| node.run.0[0]).collect::<Vec<_>>();
    assert_eq!(runs(&bus), [3], "the younger one has the name");
    assert!(refused(&bus.nodes[&1], Refusal::EndedRun) > 3, "the other one is shut out");
    let kept = bus.of(1).totals();
    assert_eq!(kept.announces, 10 + 20 + 30);
    let now = bus.now;
    bus.of(3).leave(now);
    bus.settle();
    bus.nodes.remove(&3);
    bus.publish(2, 5);
    bus.run(10_000);
    assert_eq!(runs(&bus), [2], "it is heard again");
    assert_eq!(bus.of(1).totals(), kept, "nothing is counted twice");
    assert!(bus.passes.contains(&(2, What::Own { max_age: u32::MAX })) || bus.loaded[&1] > 0);
    bus.publish(2, 6);
    assert_eq!(bus.applied[&1].last(), Some(&vec![6; 28]));
}

#[test]
fn a_copy_of_a_hello_does_not_bring_a_replaced_run_back() {
    let mut bus = Bus::pair();
    bus.run(60_000);
    let (now, status) = (bus.now, bus.status(2));
    bus.of(2).leave(now - 1);
    bus.of(2).tick(now, &status);
    let Some(Action::Send { message, .. }) = bus.of(2).next_action() else { panic!("it says goodbye") };
    bus.nodes.remove(&2);
    bus.run(3_000);
    bus.start(3, "b");
    bus.run(10_000);
    let now = bus.now;
    bus.of(3).leave(now);
    bus.settle();
    bus.nodes.remove(&3);
    // It was not received before, but tells of a time that has been heard of.
    let _first = bus.of(1).receive(now, &mut message.clone());
    assert_eq!(bus.of(1).receive(now, &mut message.clone()), Err(Refusal::EndedRun));
    assert_eq!(bus.of(1).nodes().iter().count(), 0);
}

#[test]
fn peers_of_a_saved_state_are_pulled_from_when_the_run_before_is_known() {
    let mut bus = Bus::pair();
    bus.publish(1, 1);
    bus.run(60_000);
    bus.nodes.remove(&1);
    bus.run(20_000);
    bus.start(3, "a");
    bus.run(12_000);
    bus.passes.clear();
    bus.restored.insert(3);
    bus.run(10_000);
    let [(3, What::Own { max_age })] = bus.passes.as_slice() else { panic!("{:?}", bus.passes) };
    assert!((60 + 32..60 + 45).contains(max_age), "of {max_age} s");
    bus.run(120_000);
    assert_eq!(bus.passes.len(), 1, "they are pulled once");
    let told = bus.departed.iter().find(|(run, _)| *run == 2).map(|(_, max_age)| *max_age);
    assert!(told.is_some_and(|told| (60 + 32..60 + 45).contains(&told)), "it is told who has left: {told:?}");
    // Of a node that was not known before all are.
    bus.restored.insert(4);
    bus.start(4, "c");
    bus.run(20_000);
    bus.passes.retain(|(_, what)| *what != What::All);
    let all = (4, What::Own { max_age: u32::MAX });
    assert_eq!(bus.passes[1..], [all, all], "by both others");
}

#[test]
fn the_goodbye_of_a_run_that_was_not_known_is_nothing_new() {
    let mut bus = Bus::pair();
    let mut successor = node(3, "a", bus.now);
    successor.connected(bus.now);
    bus.nodes.insert(3, successor);
    let now = bus.now;
    bus.of(1).leave(now);
    bus.settle();
    bus.nodes.remove(&1);
    bus.run(20_000);
    assert!(bus.has_noticed(2, |notice| matches!(notice, Notice::NodeGone { left: true, .. })));
    assert!(!bus.has_noticed(3, |notice| *notice == Notice::NameTaken), "its own predecessor");
    assert_eq!(bus.of(3).nodes().iter().count(), 1);
}

#[test]
fn stops_whose_news_is_late_do_not_say_what_they_came_after() {
    let mut bus = Bus::pair();
    let record = |flags| {
        let mut record = [7; 28];
        record[26] = flags;
        record
    };
    let [after, stopped] = [4 + 16, 4].map(record);
    for (sequence, late, expected) in [(0, 0, after), (1, 500, after), (2, 600, stopped)] {
        let now = bus.now;
        assert!(bus.of(1).publish(STREAM, sequence, now, (Some(Family::V4), &after)));
        let Some(Action::Send { mut message, .. }) = bus.of(1).next_action() else { panic!("it is sent") };
        assert_eq!(bus.of(2).receive(now + late, &mut message), Ok(()));
        let Some(Action::Apply { records, .. }) = bus.of(2).next_action() else { panic!("it is applied") };
        assert_eq!(records, expected, "{late} ms late");
    }
}

#[test]
fn one_outage_is_told_of_once() {
    let mut bus = Bus::pair();
    bus.lossy = true;
    for _ in 0..200 {
        bus.publish(1, 1);
    }
    bus.lossy = false;
    for _ in 0..100 {
        bus.publish(1, 1);
        bus.run(100);
    }
    bus.run(20_000);
    let gaps = bus.notices[&2].iter().filter(|notice| matches!(notice, Notice::Gap { .. })).count();
    assert!((1..=2).contains(&gaps), "{gaps}");
    assert_eq!((bus.of(2).counts().gaps, bus.of(2).counts().lost), (gaps as u64, 200));
}

#[test]
fn nodes_without_peers_neither_hand_out_any_nor_ask_for_them() {
    let mut bus = Bus::new();
    bus.start_holding(1, "ws", Holds::Nothing);
    bus.run(60_000);
    assert!(bus.of(1).complete_since().is_some());
    bus.start(2, "b");
    bus.run(12_000);
    assert!(bus.of(2).complete_since().is_some(), "it does not wait for a node that knows no peers");
    assert_eq!(bus.passes, []);
    bus.publish(2, 1);
    bus.start(3, "c");
    bus.run(12_000);
    assert_eq!(bus.passes, [(2, What::All)], "although the other node has been complete for longer");
    bus.start_holding(4, "ws2", Holds::Nothing);
    bus.lossy = true;
    bus.publish(2, 2);
    bus.lossy = false;
    bus.passes.clear();
    bus.run(60_000);
    assert!(bus.of(4).complete_since().is_some());
    assert!(matches!(bus.passes.as_slice(), [(2, What::Own { .. })]), "only by the third: {:?}", bus.passes);
    assert!(
        !bus.notices
            .keys()
            .any(|run| bus.has_noticed(*run, |notice| matches!(notice, Notice::OtherMode { .. })))
    );
}

#[test]
fn a_node_that_says_goodbye_is_gone_at_once() {
    let mut bus = Bus::pair();
    let now = bus.now;
    bus.of(2).leave(now);
    bus.settle();
    assert_eq!(bus.of(1).nodes().iter().count(), 0);
    assert!(bus.has_noticed(1, |notice| matches!(notice, Notice::NodeGone { left: true, .. })));
}

#[test]
fn directed_messages_reach_one_node_once() {
    let mut bus = Bus::pair();
    let number = bus.of(1).nodes().iter().next().unwrap().number;
    assert!(bus.of(1).send_to(number, Kind::Relay, b"offer"));
    let Some(Action::Send { subject: Subject::Relay(name), message }) = bus.of(1).next_action() else {
        panic!("it is sent");
    };
    assert_eq!(name.as_str(), "b");
    let now = bus.now;
    assert_eq!(bus.of(2).receive(now, &mut message.clone()), Ok(()));
    let sender = bus.of(2).nodes().iter().next().unwrap().number;
    let delivered = Action::Deliver { node: sender, kind: Kind::Relay, body: b"offer".to_vec() };
    assert_eq!(bus.of(2).next_action(), Some(delivered));
    assert_eq!(bus.of(2).receive(now, &mut message.clone()), Err(Refusal::Duplicate));
    let mut other = node(3, "c", 0);
    assert_eq!(other.receive(now, &mut message.clone()), Err(Refusal::OtherRun));
    assert_eq!(bus.of(1).receive(now, &mut message.clone()), Err(Refusal::OtherRun));
    assert!(!bus.of(1).send_to(number, Kind::Changes, b"not this way"));
}

#[test]
fn what_is_not_of_this_cluster_is_refused_by_reason() {
    let mut bus = Bus::pair();
    let now = bus.now;
    let header = Header { kind: Kind::Changes, core: 0, run: Run([2; 16]), sequence: 500, to: None };
    let body = [&[0; 8][..], &[4], &[1; 28]].concat();
    let good = sealed(&header, &body);
    let a = bus.of(1);
    assert_eq!(a.receive(now, &mut b"PING".to_vec()), Err(Refusal::Foreign));
    let mut later = good.clone();
    later[3] = 9;
    assert_eq!(a.receive(now, &mut later), Err(Refusal::Version));
    let mut other = Vec::new();
    Secret::new(&[9; 32]).unwrap().seal(&header, &body, &mut other);
    assert_eq!(a.receive(now, &mut other), Err(Refusal::Secret));
    let unknown = Header { run: Run([77; 16]), ..header };
    assert_eq!(a.receive(now, &mut sealed(&unknown, &body)), Err(Refusal::UnknownRun));
    assert_eq!(a.receive(now, &mut sealed(&header, b"x")), Err(Refusal::Malformed));
    let ours = Header { run: Run([1; 16]), ..header };
    assert_eq!(a.receive(now, &mut sealed(&ours, &body)), Ok(()), "its own message is ignored");
    assert_eq!(a.next_action(), None);
    assert_eq!(a.receive(now, &mut good.clone()), Ok(()));
    assert_eq!(a.receive(now, &mut good.clone()), Err(Refusal::Duplicate));
    assert_eq!(a.counts().refused.iter().sum::<u64>(), 6);
    assert!(Secret::new(&SECRET).is_ok());
}

#[test]
fn copies_of_old_hellos_and_wrong_calendars_are_refused() {
    let mut bus = Bus::pair();
    let (now, status) = (bus.now, bus.status(2));
    bus.of(2).tick(now + 2_000, &status);
    let Some(Action::Send { subject: Subject::Hello, message }) = bus.of(2).next_action() else {
        panic!("a hello is due");
    };
    let a = bus.of(1);
    assert_eq!(a.receive(now + 2_000, &mut message.clone()), Ok(()));
    assert_eq!(a.receive(now + 2_000, &mut message.clone()), Err(Refusal::Duplicate));
    let mut late = node(5, "e", 0);
    let status = Status { calendar: status.calendar + 4_000, ..status };
    late.tick(0, &status);
    assert_eq!(late.receive(0, &mut message.clone()), Err(Refusal::Clock));
}

#[test]
fn the_table_of_nodes_is_bounded() {
    let mut bus = Bus::new();
    bus.start(0, "observer");
    bus.run(100);
    let (now, status) = (bus.now, bus.status(0));
    for run in 1..=140 {
        let mut other = node(run, &format!("n{run}"), now);
        other.connected(now);
        other.tick(now, &status);
        while let Some(action) = other.next_action() {
            if let Action::Send { mut message, .. } = action {
                let full = usize::from(run) > MAX_NODES;
                let result = bus.of(0).receive(now, &mut message);
                assert_eq!(result, if full { Err(Refusal::TooManyNodes) } else { Ok(()) });
            }
        }
    }
    let numbers: BTreeSet<u8> = bus.of(0).nodes().iter().map(|node| node.number).collect();
    assert_eq!(numbers.len(), MAX_NODES);
    bus.run(11_000);
    bus.start(200, "late");
    bus.run(1_000);
    assert!(bus.of(0).nodes().live().any(|node| node.name().as_str() == "late"), "gone ones make room");
}
