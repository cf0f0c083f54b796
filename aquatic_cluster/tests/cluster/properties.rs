//! What holds for any bytes: nothing panics, what is read is what is there, and memory is bounded.

use aquatic_cluster::hello::{Hello, Holds, NodeName, StreamId, StreamKind};
use aquatic_cluster::nodes::MAX_NODES;
use aquatic_cluster::pull::{PullMessage, Totals};
use aquatic_cluster::seal::Secret;
use aquatic_cluster::wire::{Batch, Header, Kind, Run};
use aquatic_cluster::{Action, Cluster, Settings, Status};
use aquatic_common::Family;

/// Secret of the clusters in tests.
pub(crate) const SECRET: [u8; 32] = *b"a secret of tests, and of no one";

/// Reads bytes as a message and as every kind of body.
pub(crate) fn check_message(bytes: &[u8]) {
    if let Ok(header) = Header::read(bytes) {
        let mut written = Vec::new();
        header.write(&mut written);
        assert_eq!(bytes.get(..header.length()), Some(written.as_slice()));
    }
    let secret = Secret::new(&SECRET).expect("it is long enough");
    assert!(secret.open(Run([1; 16]).short(), &mut bytes.to_vec()).is_err(), "nobody can forge a seal");
    if let Ok(hello) = Hello::read(bytes) {
        let mut written = Vec::new();
        hello.write(&mut written);
        assert_eq!(Hello::read(&written), Ok(hello));
    }
    if let Ok(batch) = Batch::read(bytes) {
        let mut written = Vec::new();
        batch.write(&mut written);
        assert_eq!(written, bytes);
    }
    if let Ok(message) = PullMessage::read(bytes) {
        let mut written = Vec::new();
        message.write(&mut written);
        assert_eq!(written, bytes);
    }
}

/// A node of a cluster of tests, which has this run and name.
pub(crate) fn node(run: u8, name: &str, now: u64) -> Cluster {
    node_that_holds(run, name, now, Holds::Everything)
}

/// A node that holds some peers.
pub(crate) fn node_that_holds(run: u8, name: &str, now: u64, holds: Holds) -> Cluster {
    let settings = Settings {
        name: NodeName::new(name).expect("it is a name"),
        run: Run([run; 16]),
        secret: Secret::new(&SECRET).expect("it is long enough"),
        cores: 2,
        holds,
        version: "0.1.0".to_owned(),
    };
    Cluster::new(settings, now, u64::from(run))
}

/// Seals a body as another node would.
pub(crate) fn sealed(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    Secret::new(&SECRET).expect("it is long enough").seal(header, body, &mut message);
    message
}

/// Bytes from which operations are taken; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn some(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }
}

/// Has a node receive authentic messages with any content, from any runs, between all else that can happen.
pub(crate) fn check_operations(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut now = 0;
    let mut node = node(1, "a", now);
    node.connected(now);
    let mut sessions = Vec::new();
    let mut pulls = Vec::new();
    while !bytes.0.is_empty() {
        match bytes.byte() % 12 {
            0 => now += u64::from(bytes.byte()) * 50,
            1 => node.tick(now, &Status::default()),
            2 => node.disconnected(now),
            3 => node.connected(now),
            4 => {
                let core = u16::from(bytes.byte() % 4);
                let stream = StreamId { kind: StreamKind::Changes, core };
                node.publish(stream, bytes.byte().into(), now, (Some(Family::V4), bytes.some()));
            }
            5 => {
                if let Some(session) = sessions.pop() {
                    node.pass_started(now, session);
                    node.supply(session, Family::V6, bytes.some().to_vec());
                }
            }
            6 => {
                if let Some(session) = node.wants_chunk() {
                    node.supply(session, Family::V4, bytes.some().to_vec());
                    node.pass_ended(session, Totals::default());
                }
            }
            7 => {
                if let Some(pull) = pulls.pop() {
                    node.loaded(now, pull);
                }
            }
            8 => node.pass_refused(bytes.byte().into()),
            _ => {
                let message = any_message(&mut bytes);
                let _refusal = node.receive(now, &mut message.clone());
            }
        }
        check_bounds(&mut node, &mut sessions, &mut pulls);
    }
}

fn any_message(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let kind = Kind::ALL[usize::from(bytes.byte()) % Kind::ALL.len()];
    let run = Run([bytes.byte(); 16]);
    let (core, sequence) = (u16::from(bytes.byte()), u64::from(bytes.byte()));
    let to = kind.is_directed().then(|| Run([1; 16]).short());
    let mut body = bytes.some().to_vec();
    // Hellos and pulls are long for a fuzzer; half of them begin well.
    if kind == Kind::Hello && bytes.byte().is_multiple_of(2) {
        body = any_hello(bytes);
    }
    sealed(&Header { kind, core, run, sequence, to }, &body)
}

fn any_hello(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let streams = (0..bytes.byte() % 3).map(|core| {
        let kind = if bytes.byte().is_multiple_of(2) { StreamKind::Changes } else { StreamKind::WebTorrent };
        (StreamId { kind, core: core.into() }, u64::from(bytes.byte()))
    });
    let streams = streams.collect();
    let mut body = Vec::new();
    Hello {
        clock: u64::from(bytes.byte()) * 1000,
        calendar: u64::from(bytes.byte()) * 20,
        complete: bytes.byte().is_multiple_of(2).then(|| bytes.byte().into()),
        holds: match bytes.byte() {
            replicas if !replicas.is_multiple_of(2) => Holds::Parts(replicas),
            other if other.is_multiple_of(8) => Holds::Nothing,
            _ => Holds::Everything,
        },
        restored: bytes.byte().is_multiple_of(4),
        leaving: bytes.byte() % 8 == 1,
        name: NodeName::new(["a", "b", "c", "d"][usize::from(bytes.byte()) % 4]).expect("it is a name"),
        version: String::new(),
        own_peers: [0; 2],
        connections: 0,
        counters: aquatic_cluster::counters::Counters::default(),
        streams,
    }
    .write(&mut body);
    body
}

fn check_bounds(node: &mut Cluster, sessions: &mut Vec<u32>, pulls: &mut Vec<u32>) {
    assert!(node.nodes().iter().count() <= MAX_NODES);
    assert!(node.pulls().len() <= aquatic_cluster::machine::MAX_PULLS);
    let mut actions = 0;
    while let Some(action) = node.next_action() {
        actions += 1;
        match action {
            Action::StartPass { session, .. } => sessions.push(session),
            Action::Load { pull, .. } => pulls.push(pull),
            Action::Send { .. }
            | Action::Apply { .. }
            | Action::ApplyWebTorrent { .. }
            | Action::PublishAgain
            | Action::HoldersChanged
            | Action::BeginLoading { .. }
            | Action::EndLoading { .. }
            | Action::EndPass { .. }
            | Action::Deliver { .. }
            | Action::TellDeparted { .. }
            | Action::Notice(_) => {}
        }
    }
    assert!(actions <= 8 * MAX_NODES, "{actions} actions at once");
}
