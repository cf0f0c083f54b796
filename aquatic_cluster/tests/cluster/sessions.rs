//! Pulls between a requester and a donor over a network that loses, repeats and reorders.

use std::collections::BTreeSet;

use aquatic_cluster::donor::{Asked, Donor, IDLE, MAX_SESSIONS};
use aquatic_cluster::pull::{CREDIT, PullMessage, Totals, What};
use aquatic_cluster::puller::{Outcome, Puller, SILENCE};
use aquatic_cluster::wire::Run;
use aquatic_common::Family;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const REQUESTER: Run = Run([1; 16]);
const DONOR: Run = Run([2; 16]);

struct Pull {
    rng: SmallRng,
    now: u64,
    loss: u32,
    chunks: u32,
    supplied: u32,
    session: Option<u32>,
    puller: Puller,
    donor: Donor,
    /// When it arrives, whether at the donor, and what.
    network: Vec<(u64, bool, Vec<u8>)>,
    /// Chunks that the requester's cores load, and when they are done.
    loading: Vec<u64>,
    received: BTreeSet<u32>,
}

impl Pull {
    fn new(seed: u64, loss: u32, chunks: u32) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            now: 0,
            loss,
            chunks,
            supplied: 0,
            session: None,
            puller: Puller::new(7, (0, DONOR), What::All, 0),
            donor: Donor::default(),
            network: Vec::new(),
            loading: Vec::new(),
            received: BTreeSet::new(),
        }
    }

    fn send(&mut self, to_donor: bool, message: &PullMessage<'_>) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        for _ in 0..=u32::from(self.rng.random_range(0..10) == 0) {
            if self.rng.random_range(0..100) >= self.loss {
                let at = self.now + self.rng.random_range(1..400);
                self.network.push((at, to_donor, bytes.clone()));
            }
        }
    }

    fn run(&mut self) -> Outcome {
        loop {
            self.now += 50;
            assert!(self.now < 3_600_000, "it ends");
            if let Err(outcome) = self.step() {
                return outcome;
            }
        }
    }

    fn step(&mut self) -> Result<(), Outcome> {
        let mut requests = Vec::new();
        self.puller.ask(self.now, &mut requests)?;
        for request in requests {
            self.send(true, &request);
        }
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.network.drain(..).partition(|(at, _, _)| *at <= now);
        self.network = later;
        for (_, to_donor, bytes) in due {
            let message = PullMessage::read(&bytes).unwrap();
            if to_donor { self.at_donor(&message) } else { self.at_requester(message)? }
        }
        self.supply();
        let loaded = self.loading.iter().filter(|done| **done <= now).count();
        self.loading.retain(|done| *done > now);
        for _ in 0..loaded {
            self.puller.loaded(now)?;
        }
        let told = self.donor.expire(now, None);
        if !told.is_empty() {
            self.session = None;
        }
        Ok(())
    }

    fn at_donor(&mut self, message: &PullMessage<'_>) {
        let mut donor = std::mem::take(&mut self.donor);
        match donor.receive(self.now, REQUESTER, message) {
            Asked::Nothing => {}
            Asked::Reply(reply) => self.send(false, &reply),
            Asked::Start { session, what } => {
                assert_eq!((what, self.session), (What::All, None), "cores begin once");
                self.session = Some(session);
                let (to, begun) = donor.started(session, 99, Vec::new()).unwrap();
                assert_eq!(to, REQUESTER);
                self.send(false, &begun);
            }
        }
        self.donor = donor;
    }

    fn supply(&mut self) {
        let mut donor = std::mem::take(&mut self.donor);
        // Cores are slow at times.
        while let Some(session) = donor.wants_chunk().filter(|_| self.rng.random_range(0..4) > 0) {
            if self.supplied == self.chunks {
                let totals = Totals { torrents: self.chunks.into(), peers: 1 };
                if let Some((_, end)) = donor.passed(session, totals) {
                    self.send(false, &end);
                }
                break;
            }
            let content = self.supplied.to_le_bytes().to_vec();
            self.supplied += 1;
            let (_, chunk) = donor.supply(session, Family::V4, content).unwrap();
            self.send(false, &chunk);
        }
        self.donor = donor;
    }

    fn at_requester(&mut self, message: PullMessage<'_>) -> Result<(), Outcome> {
        if let Some(chunk) = self.puller.receive(self.now, message)? {
            assert_eq!(chunk.torrents, chunk.index.to_le_bytes());
            assert_eq!(chunk.clock, 99);
            assert!(self.received.insert(chunk.index), "a chunk is loaded once");
            self.loading.push(self.now + self.rng.random_range(0..2_000));
            assert!(self.loading.len() <= CREDIT as usize, "no more than the credit");
        }
        Ok(())
    }
}

#[test]
fn pulls_complete_over_a_bad_network() {
    for seed in 0..60 {
        let chunks = seed as u32 % 30;
        let mut pull = Pull::new(seed, [0, 10, 30][seed as usize % 3], chunks);
        let totals = Totals { torrents: chunks.into(), peers: 1 };
        assert_eq!(pull.run(), Outcome::Completed(totals), "seed {seed}");
        assert!(pull.received.iter().copied().eq(0..chunks), "seed {seed}");
    }
}

#[test]
fn pulls_from_a_silent_donor_fail_and_abandoned_sessions_end() {
    let mut pull = Pull::new(1, 100, 3);
    assert_eq!(pull.run(), Outcome::Failed);
    assert!(pull.now < SILENCE + 1_000);

    let mut donor = Donor::default();
    let begin = |pull| PullMessage::Begin { pull, what: What::All };
    assert_eq!(donor.receive(0, REQUESTER, &begin(1)), Asked::Start { session: 1, what: What::All });
    assert_eq!(donor.receive(0, REQUESTER, &begin(1)), Asked::Nothing, "a copy");
    let busy = Asked::Reply(PullMessage::Busy { pull: 1 });
    assert_eq!(donor.receive(0, DONOR, &begin(1)), busy, "the cores do one thing at a time");
    assert!(donor.started(1, 0, Vec::new()).is_some());
    assert!(donor.supply(1, Family::V4, vec![1]).is_none(), "nobody has asked for it");
    assert_eq!(donor.receive(IDLE - 1, REQUESTER, &PullMessage::Keep { session: 1 }), Asked::Nothing);
    assert_eq!(donor.expire(IDLE, None), [] as [u32; 0]);
    assert_eq!(donor.expire(2 * IDLE, None), [1]);
    let unknown = Asked::Reply(PullMessage::Unknown { session: 1 });
    assert_eq!(donor.receive(0, REQUESTER, &PullMessage::Next { session: 1, index: 0 }), unknown);
}

#[test]
fn donors_keep_few_sessions() {
    let mut donor = Donor::default();
    for pull in 0..10 {
        let _asked = donor.receive(0, REQUESTER, &PullMessage::Begin { pull, what: What::All });
        let session = pull + 1;
        donor.started(session, 0, Vec::new());
        donor.passed(session, Totals::default());
        assert!(donor.sessions() <= MAX_SESSIONS);
    }
    assert_eq!(donor.sessions(), MAX_SESSIONS);
    assert_eq!(donor.done(REQUESTER, 1), None, "its cores are done");
    assert_eq!(donor.sessions(), MAX_SESSIONS - 1);
    assert_eq!(donor.expire(0, Some(REQUESTER)), [] as [u32; 0]);
    assert_eq!(donor.sessions(), 0);
}
