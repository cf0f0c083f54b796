//! Several nodes of several cores, with messages between nodes.

use super::*;
use crate::nodes::changes::{self, RECORD_LENGTH};
use crate::nodes::counts::ChangeOutcome;
use crate::nodes::messages::{NodeMessage, Receiver, split};
use crate::swarm::{NodeConnection, NodeNumber};

const NODES: usize = 3;

struct Cluster(Vec<Cores>);

/// Returns the number that one node has given to another.
fn number(of: usize, on: usize) -> NodeNumber {
    NodeNumber::new((10 * on + of) as u8).unwrap()
}

fn node(of: NodeNumber) -> usize {
    usize::from(of.get()) % 10
}

impl Cluster {
    fn new() -> Self {
        let mut nodes: Vec<Cores> = (0..NODES).map(|_| Cores::new()).collect();
        nodes.iter_mut().flat_map(|node| &mut node.trackers).for_each(Tracker::join_cluster);
        Self(nodes)
    }

    /// Delivers everything within and between nodes.
    fn settle(&mut self) {
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for from in 0..NODES {
                self.0[from].settle();
                for core in 0..CORES {
                    is_done &= !self.deliver_from(from, core);
                }
            }
        }
    }

    /// Delivers what a core has for other nodes. Returns whether it had something.
    fn deliver_from(&mut self, from: usize, core: usize) -> bool {
        let now = self.0[from].now;
        let tracker = &mut self.0[from].trackers[core];
        tracker.advance_cluster(now);
        let mut records = Vec::new();
        while tracker.publish(now, &mut records) > 0 {}
        let messages: Vec<_> = std::iter::from_fn(|| tracker.take_node_messages()).collect();
        for to in (0..NODES).filter(|to| *to != from) {
            self.0[to].apply(number(from, to), &records);
        }
        for (to, messages) in &messages {
            self.0[node(*to)].receive_node_messages(number(from, node(*to)), messages);
        }
        !records.is_empty() || !messages.is_empty()
    }
}

impl Cores {
    fn apply(&mut self, node: NodeNumber, records: &[u8]) {
        let mut parts: [Vec<u8>; CORES] = Default::default();
        let steering = Steering::new(CORES, [6; 8]);
        changes::split(records, &steering, |core, record| parts[core].extend_from_slice(record));
        for (tracker, records) in self.trackers.iter_mut().zip(parts) {
            let (admission, now, time) = (&self.admission, self.now, self.time);
            let mut context = RequestContext { admission, now, time, rng: &mut self.rng };
            tracker.apply_changes(node, &records, 0, &mut context);
        }
    }

    fn receive_node_messages(&mut self, node: NodeNumber, messages: &[u8]) {
        let mut parts: [Vec<u8>; CORES] = Default::default();
        let steering = Steering::new(CORES, [6; 8]);
        split(messages, &steering, |core, message| parts[core].extend_from_slice(message));
        for (core, messages) in parts.iter().enumerate() {
            self.receive_on(core, node, messages);
        }
    }

    fn receive_on(&mut self, core: usize, node: NodeNumber, messages: &[u8]) {
        let (admission, now, time) = (&self.admission, self.now, self.time);
        let mut context = RequestContext { admission, now, time, rng: &mut self.rng };
        self.trackers[core].receive_node_messages(node, messages, &mut context);
    }

    fn dropped(&self, reason: RelayDrop) -> u64 {
        self.trackers.iter().map(|tracker| tracker.counters.relays_dropped[reason as usize].get()).sum()
    }

    fn applied(&self, outcome: ChangeOutcome) -> u64 {
        let counts = self.trackers.iter().map(|tracker| &tracker.nodes.as_ref().unwrap().counts);
        counts.map(|counts| counts.applied[outcome as usize]).sum()
    }
}

#[test]
fn offers_and_answers_travel_between_nodes() {
    for owner in 0..CORES {
        for (first, second) in [(0, 0), (0, 1), (1, 0), (2, 2)] {
            let mut cluster = Cluster::new();
            let torrent = cluster.0[0].torrent(owner);
            let (one, two) = (cluster.0[0].open(first), cluster.0[1].open(second));
            cluster.0[0].announce(one, torrent, 1, &["early"]);
            cluster.settle();
            cluster.0[1].announce(two, torrent, 2, &["a", "b"]);
            cluster.settle();
            let context = format!("owner {owner}, connections on {first} and {second}");
            assert_eq!(kinds(cluster.0[0].received(one)), ["reply 1", "offer of 2 a"], "{context}");
            assert_eq!(kinds(cluster.0[1].received(two)), ["reply 2"], "{context}");
            cluster.0[0].answer(one, torrent, 1, 2, "b");
            cluster.0[0].answer(one, torrent, 1, 2, "a");
            cluster.0[0].answer(one, torrent, 1, 2, "a");
            cluster.settle();
            assert_eq!(kinds(cluster.0[1].received(two)), ["answer of 1 a"], "{context}");
            assert!(kinds(cluster.0[0].received(one)).is_empty(), "{context}");
            assert_eq!(cluster.0.iter().map(Cores::peers).collect::<Vec<_>>(), [2; NODES]);
            assert_eq!(cluster.0[1].offers(), 0, "{context}");
            cluster.0[0].close(one);
            cluster.0[1].close(two);
            cluster.settle();
            assert_eq!(cluster.0.iter().map(Cores::peers).sum::<usize>(), 0, "{context}");
        }
    }
}

#[test]
fn a_client_of_two_nodes_is_reached_over_both() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(1);
    let twice = [0, 1].map(|node| cluster.0[node].open(0));
    let third = cluster.0[1].open(2);
    for (node, connection) in twice.into_iter().enumerate() {
        cluster.0[node].announce(connection, torrent, 1, &[]);
        cluster.settle();
        assert_eq!(kinds(cluster.0[node].received(connection)), ["reply 1"]);
    }
    assert!(cluster.0[0].received(twice[0]).1, "the claim of the other node is probed");
    cluster.0[1].announce(third, torrent, 3, &["x"]);
    cluster.settle();
    assert_eq!(kinds(cluster.0[1].received(twice[1])), ["offer of 3 x"], "over the node of the other");
    // Its offer over the first node is answered over that node, although the peer is known here, too.
    cluster.0[0].announce(twice[0], torrent, 1, &["y"]);
    cluster.settle();
    assert_eq!(kinds(cluster.0[1].received(third)), ["reply 2", "offer of 1 y"]);
    cluster.0[1].answer(third, torrent, 3, 1, "y");
    cluster.settle();
    assert_eq!(kinds(cluster.0[0].received(twice[0])), ["reply 2", "answer of 3 y"]);
    assert_eq!(kinds(cluster.0[1].received(twice[1])), [""; 0]);
    // The node of the first connection learns of the second when that one leaves.
    cluster.0[0].close(twice[0]);
    cluster.settle();
    assert_eq!(cluster.0.iter().map(Cores::peers).collect::<Vec<_>>(), [2; NODES]);
}

#[test]
fn an_offer_reaches_no_other_connection_than_the_one_meant() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(0);
    let (one, two) = (cluster.0[0].open(1), cluster.0[1].open(0));
    cluster.0[0].announce(one, torrent, 1, &[]);
    cluster.settle();
    cluster.0[0].close(one);
    let next = cluster.0[0].open(1);
    assert_eq!((next.core, next.slot), (one.core, one.slot), "in the same slot");
    cluster.0[0].announce(next, torrent, 9, &[]);
    // The second node has not heard of this.
    cluster.0[1].announce(two, torrent, 2, &["a"]);
    let (to, messages) = cluster.0[1].trackers[0].take_node_messages().unwrap();
    assert_eq!(node(to), 0);
    cluster.0[0].settle();
    cluster.0[0].receive_node_messages(number(1, 0), &messages);
    assert_eq!(cluster.0[0].dropped(RelayDrop::ConnectionGone), 1);
    assert_eq!(kinds(cluster.0[0].received(next)), ["reply 1"]);
    // The error removes the peer, even if the change is lost.
    let (to, error) = cluster.0[0].trackers[1].take_node_messages().unwrap();
    assert_eq!(node(to), 1);
    assert_eq!(cluster.0[1].peers(), 2);
    cluster.0[1].receive_node_messages(number(0, 1), &error);
    assert_eq!(cluster.0[1].peers(), 1);
}

#[test]
fn what_no_node_should_send_is_dropped_and_counted() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(0);
    let (one, two) = (cluster.0[0].open(1), cluster.0[1].open(0));
    cluster.0[0].announce(one, torrent, 1, &[]);
    cluster.settle();
    cluster.0[1].announce(two, torrent, 2, &["a"]);
    let (_, offer) = cluster.0[1].trackers[0].take_node_messages().unwrap();
    let from = number(1, 0);
    cluster.0[0].receive_on(0, from, &offer);
    cluster.0[0].receive_on(1, from, &offer[..offer.len() - 1]);
    cluster.0[0].receive_on(1, from, &[7, 0, 0, 0, 0]);
    assert_eq!(cluster.0[0].dropped(RelayDrop::NodeMalformed), 3);
    assert_eq!(kinds(cluster.0[0].received(one)), ["reply 1"]);
    let foreign = cluster.0[0].torrent(1);
    let mut record = [0; RECORD_LENGTH];
    record[..20].copy_from_slice(&foreign.0);
    let Cores { trackers, admission, now, time, rng, .. } = &mut cluster.0[0];
    let mut context = RequestContext { admission, now: *now, time: *time, rng };
    trackers[0].apply_changes(from, &record, 0, &mut context);
    record[40] = 0xff;
    trackers[1].apply_changes(from, &[&record[..], &[1]].concat(), 0, &mut context);
    assert_eq!(cluster.0[0].applied(ChangeOutcome::Malformed), 3);
    assert_eq!(cluster.0[0].peers(), 1);
}

#[test]
fn an_answer_without_a_pending_offer_is_dropped() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(0);
    let (one, two) = (cluster.0[0].open(1), cluster.0[1].open(0));
    cluster.0[0].announce(one, torrent, 1, &[]);
    cluster.settle();
    cluster.0[1].announce(two, torrent, 2, &["a"]);
    cluster.settle();
    cluster.0[0].answer(one, torrent, 1, 2, "a");
    let (_, answer) = cluster.0[0].trackers[1].take_node_messages().unwrap();
    kinds(cluster.0[1].received(two));
    // Under the number of another node, it is the answer of another connection.
    cluster.0[1].receive_node_messages(number(2, 1), &answer);
    assert_eq!(cluster.0[1].dropped(RelayDrop::AnswerWithoutOffer), 1);
    cluster.0[1].receive_node_messages(number(0, 1), &answer);
    cluster.0[1].receive_node_messages(number(0, 1), &answer);
    assert_eq!(kinds(cluster.0[1].received(two)), ["answer of 1 a"]);
    assert_eq!(cluster.0[1].dropped(RelayDrop::AnswerWithoutOffer), 2);
}

#[test]
fn a_gone_node_takes_its_peers_with_it() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(2);
    let (one, two) = (cluster.0[0].open(1), cluster.0[1].open(0));
    cluster.0[0].announce(one, torrent, 1, &[]);
    cluster.settle();
    let gone = number(0, 1);
    cluster.0[1].trackers.iter_mut().for_each(|tracker| tracker.forget_node(gone));
    cluster.0[1].announce(two, torrent, 2, &["a"]);
    cluster.0[1].settle();
    assert_eq!(cluster.0[1].dropped(RelayDrop::NodeGone), 1);
    // A few passes of expiry.
    (0..6).for_each(|_| cluster.settle());
    assert_eq!(cluster.0.iter().map(Cores::peers).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!(kinds(cluster.0[0].received(one)), ["reply 1"]);
    // The node was away only for a while.
    cluster.0[1].trackers.iter_mut().for_each(|tracker| tracker.readmit_node(gone, Seconds(0)));
    cluster.0[0].trackers.iter_mut().for_each(Tracker::resend_peers);
    cluster.settle();
    assert_eq!(cluster.0.iter().map(Cores::peers).collect::<Vec<_>>(), [2; NODES]);
}

#[test]
fn messages_to_a_node_are_bounded() {
    let mut cluster = Cluster::new();
    let torrent = cluster.0[0].torrent(0);
    let one = cluster.0[0].open(0);
    let connection = NodeConnection { core: 1, slot: 0, generation: 0 };
    let receiver = Receiver { connection, info_hash: torrent, peer_id: PeerId([1; 20]) };
    let mut message = Vec::new();
    NodeMessage::NoSuchPeer(receiver).write(&mut message).unwrap();
    cluster.0[0].receive_on(0, number(1, 0), &message);
    let two = cluster.0[1].open(0);
    cluster.0[1].announce(two, torrent, 2, &[]);
    cluster.settle();
    let long = "x".repeat(60_000);
    let offers = format!(r#"{{"offer":{{"sdp":"{long}"}},"offer_id":"i"}}"#);
    let (hash, peer) = (latin(&torrent.0), latin(&[1; 20]));
    let text = format!(
        r#"{{"action":"announce","info_hash":"{hash}","peer_id":"{peer}","left":1,"offers":[{offers}]}}"#
    );
    let mut announces = 0;
    while cluster.0[0].dropped(RelayDrop::NodeOverflow) == 0 {
        cluster.0[0].text(one, &text);
        kinds(cluster.0[0].received(one));
        announces += 1;
    }
    assert!((200..400).contains(&announces), "{announces} of 60 KB are 16 MiB");
}
