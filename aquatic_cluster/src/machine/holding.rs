//! Which node holds which parts of the hash space, and how parts move when nodes come and go.

use super::{Action, Cluster, MAX_PULLS};
use crate::Millis;
use crate::hello::NodeName;
use crate::parts::{Bitmap, Holders};
use crate::pull::What;
use crate::puller::{Outcome, Puller};
use crate::wire::Run;

/// Time that a run must have lasted before its node holds parts, in milliseconds.
pub const MEMBER_AFTER: Millis = 5_000;

/// Time after which a node drops the torrents of a part that it does not hold any more, in milliseconds: the
/// new holders pull them meanwhile.
pub const DROP_AFTER: Millis = 60_000;

/// Node that holds a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This node.
    Own,
    /// The node with this number.
    Node(u8),
}

/// Member of the cluster that holds parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: NodeName,
    holder: Holder,
}

/// Parts of this node, and the other holders.
#[derive(Debug)]
pub(super) struct Holding {
    replicas: usize,
    key: [u8; 32],
    members: Vec<Member>,
    holders: Holders,
    own: Bitmap,
    /// Parts whose torrents have not been pulled.
    wanted: Bitmap,
    not_before: Millis,
    /// Parts that this node held, and when their torrents are dropped.
    dropping: Option<(Millis, Bitmap)>,
}

impl Holding {
    pub(super) fn new(key: [u8; 32], replicas: u8) -> Self {
        Self {
            replicas: usize::from(replicas),
            key,
            members: Vec::new(),
            holders: Holders::choose(&key, 0, &[]),
            own: Bitmap::default(),
            wanted: Bitmap::default(),
            not_before: 0,
            dropping: None,
        }
    }

    fn choose(&self, members: &[Member]) -> Holders {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        Holders::choose(&self.key, self.replicas, &names)
    }

    fn held_by_this_node(members: &[Member], holders: &Holders) -> Bitmap {
        let own = members.iter().position(|member| member.holder == Holder::Own);
        own.and_then(|at| u16::try_from(at).ok()).map_or_else(Bitmap::default, |at| holders.held_by(at))
    }
}

impl Cluster {
    /// Has each part of the hash space held by this many nodes rather than by all.
    #[must_use]
    pub fn with_replicas(mut self, replicas: u8) -> Self {
        self.settings.partition = true;
        let key = self.settings.secret.derive("holders of parts");
        self.holding = Some(Holding::new(key, replicas));
        self
    }

    /// The nodes that hold a part, best first; none before this node is a member itself, and if all nodes
    /// hold everything.
    pub fn holders(&self, part: u8) -> impl Iterator<Item = Holder> {
        let holding = self.holding.as_ref();
        let members = holding.map(|holding| holding.holders.of(part)).unwrap_or_default();
        let member = move |at: &u16| holding?.members.get(usize::from(*at)).map(|member| member.holder);
        members.iter().filter_map(member)
    }

    /// The parts that this node holds.
    #[must_use]
    pub fn own_parts(&self) -> Bitmap {
        self.holding.as_ref().map_or_else(Bitmap::default, |holding| holding.own)
    }

    pub(super) fn step_holding(&mut self, now: Millis) {
        let Some(mut holding) = self.holding.take() else { return };
        let members = self.members(now);
        if members != holding.members {
            self.move_parts(now, &mut holding, members);
        }
        if let Some((_, parts)) = holding.dropping.take_if(|(until, _)| now >= *until) {
            let parts = parts.without(&holding.own);
            if !parts.is_empty() {
                self.actions.push_back(Action::DropParts(parts));
            }
        }
        if now >= holding.not_before {
            self.pull_parts(now, &mut holding);
        }
        self.holding = Some(holding);
    }

    /// This node and the others whose runs have lasted for long enough, by name. Of two runs of one name
    /// there is one.
    fn members(&self, now: Millis) -> Vec<Member> {
        let lasts = |node: &&crate::nodes::Node| {
            let age = node.hello.clock.saturating_add(now.saturating_sub(node.heard));
            node.hello.partition && age >= MEMBER_AFTER
        };
        let others = self.nodes.live().filter(lasts);
        let other = |node: &crate::nodes::Node| Member {
            name: node.name().clone(),
            holder: Holder::Node(node.number),
        };
        let mut members: Vec<Member> = others.map(other).collect();
        if now.saturating_sub(self.began) >= MEMBER_AFTER {
            members.push(Member { name: self.settings.name.clone(), holder: Holder::Own });
        }
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        members.dedup_by(|a, b| a.name == b.name);
        members
    }

    fn move_parts(&mut self, now: Millis, holding: &mut Holding, members: Vec<Member>) {
        let holders = holding.choose(&members);
        let own = Holding::held_by_this_node(&members, &holders);
        let (gained, lost) = (own.without(&holding.own), holding.own.without(&own));
        holding.wanted = holding.wanted.with(&gained).without(&lost);
        if !lost.is_empty() {
            let before = holding.dropping.map_or_else(Bitmap::default, |(_, parts)| parts);
            holding.dropping = Some((now.saturating_add(DROP_AFTER), before.with(&lost)));
        }
        holding.own = own;
        holding.holders = holders;
        holding.members = members;
        self.actions.push_back(Action::HoldersChanged);
    }

    /// Begins to pull parts from those who held them: of the best other members of a part the one that has
    /// been here for longest.
    fn pull_parts(&mut self, now: Millis, holding: &mut Holding) {
        if holding.wanted.is_empty() {
            return;
        }
        let others: Vec<Member> =
            holding.members.iter().filter(|member| member.holder != Holder::Own).cloned().collect();
        let holders = holding.choose(&others);
        let mut by_donor: Vec<((u8, Run), Bitmap)> = Vec::new();
        for part in (0..=u8::MAX).filter(|part| holding.wanted.contains(*part)) {
            let numbers =
                holders.of(part).iter().filter_map(|at| match others.get(usize::from(*at))?.holder {
                    Holder::Node(number) => self.nodes.by_number(number),
                    Holder::Own => None,
                });
            let Some(donor) = numbers.max_by_key(|node| node.hello.clock) else { continue };
            let donor = (donor.number, donor.run);
            match by_donor.iter_mut().find(|(known, _)| *known == donor) {
                Some((_, parts)) => parts.insert(part),
                None => {
                    let mut parts = Bitmap::default();
                    parts.insert(part);
                    by_donor.push((donor, parts));
                }
            }
        }
        if by_donor.is_empty() {
            // Nobody has held them.
            holding.wanted = Bitmap::default();
        }
        for (donor, parts) in by_donor {
            let pulled = self.pulls.iter().any(|pull| pull.donor == donor.1);
            if pulled || self.pulls.len() >= MAX_PULLS {
                continue;
            }
            holding.wanted = holding.wanted.without(&parts);
            self.start_pull(now, donor, What::Parts(parts.0));
        }
    }

    /// Wants parts again whose pull has failed, if this node still holds them.
    pub(super) fn end_moving(&mut self, now: Millis, pull: &Puller, outcome: Outcome) {
        let jitter = self.jitter();
        let (What::Parts(parts), Some(holding)) = (pull.what, &mut self.holding) else { return };
        match outcome {
            Outcome::Completed(_) => {}
            Outcome::Busy | Outcome::Failed => {
                let not_held = Bitmap(parts).without(&holding.own);
                holding.wanted = holding.wanted.with(&Bitmap(parts).without(&not_held));
                holding.not_before = now.saturating_add(jitter);
            }
        }
    }
}
