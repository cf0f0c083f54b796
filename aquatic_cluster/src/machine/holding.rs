//! Which node holds which parts of the hash space, and how parts move when nodes come and go.

use aquatic_tracker::partition::{self, NodeNumber};
use aquatic_tracker::replication::{PartHasher, PartSet};

use super::{Action, Cluster, MAX_PULLS, Notice, Settings};
use crate::Millis;
use crate::hello::{Holds, NodeName};
use crate::nodes::Node;
use crate::parts::{Bitmap, Holders};
use crate::pull::What;
use crate::puller::{Outcome, Puller};
use crate::wire::Run;

/// Time that a run must have lasted before its node holds parts, in milliseconds.
pub const MEMBER_AFTER: Millis = 5_000;

/// Time after a connection was made before anything is concluded from the nodes that are there, in
/// milliseconds: all have said hello by then.
pub const SETTLE: Millis = 2_500;

/// Time that a run must have lasted before its node is asked for parts rather than another holder, in
/// milliseconds: a node that has just started still pulls them.
pub const ESTABLISHED_AFTER: Millis = 60_000;

/// Time after which a node drops the torrents of a part that it does not hold any more, in milliseconds: the
/// new holders pull them meanwhile. Not while it hands torrents out.
pub const DROP_AFTER: Millis = 60_000;

/// Time for which a node looks for others that have held its parts if there are none, in milliseconds: one
/// that has been started with another mode comes back within that.
const RESTART: Millis = 30_000;

/// Period of looking for them, in milliseconds.
const RETRY: Millis = 1_000;

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
    /// Whether it has been there for [`ESTABLISHED_AFTER`].
    established: bool,
}

impl Member {
    /// A node whose run has lasted for so long, if that is long enough.
    fn of(name: &NodeName, holder: Holder, age: Millis) -> Option<Self> {
        let established = age >= ESTABLISHED_AFTER;
        (age >= MEMBER_AFTER).then(|| Self { name: name.clone(), holder, established })
    }
}

/// Members by name. Of two runs of one name there is one.
fn one_for_each_name(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members.dedup_by(|a, b| a.name == b.name);
    members
}

/// Parts of this node, and the other holders.
#[derive(Debug)]
pub(super) struct Holding {
    replicas: usize,
    key: [u8; 32],
    members: Vec<Member>,
    holders: Holders,
    /// Members and holders before this node held other parts.
    before: (Vec<Member>, Holders),
    own: Bitmap,
    /// Parts whose torrents have not been pulled.
    wanted: Bitmap,
    not_before: Millis,
    /// Until when somebody may come who has held parts that nobody holds: a node that has been started anew.
    wanted_until: Millis,
    /// Parts that this node may have torrents of although it does not hold them, and when they are dropped.
    dropping: Option<(Millis, Bitmap)>,
}

impl Holding {
    pub(super) fn of(settings: &Settings, now: Millis) -> Option<Self> {
        let Holds::Parts(replicas) = settings.holds else { return None };
        let replicas = usize::from(replicas);
        let key = settings.secret.derive("holders of parts");
        let nobody = Holders::choose(&key, 0, &[]);
        Some(Self {
            replicas,
            key,
            members: Vec::new(),
            holders: nobody.clone(),
            before: (Vec::new(), nobody),
            own: Bitmap::default(),
            wanted: Bitmap::default(),
            not_before: 0,
            wanted_until: 0,
            // What it had before it was started.
            dropping: Some((now.saturating_add(MEMBER_AFTER + DROP_AFTER), Bitmap::ALL)),
        })
    }

    fn choose(&self, members: &[Member]) -> Holders {
        self.choose_by(self.replicas, members)
    }

    fn choose_by(&self, replicas: usize, members: &[Member]) -> Holders {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        Holders::choose(&self.key, replicas, &names)
    }

    fn held_by_this_node(members: &[Member], holders: &Holders) -> Bitmap {
        let own = members.iter().position(|member| member.holder == Holder::Own);
        own.and_then(|at| u16::try_from(at).ok()).map_or_else(Bitmap::default, |at| holders.held_by(at))
    }
}

impl Cluster {
    /// Number of nodes that are to hold each part; `None` if this one holds everything or nothing.
    #[must_use]
    pub fn replicas(&self) -> Option<u8> {
        match self.settings.holds {
            Holds::Parts(replicas) => Some(replicas),
            Holds::Everything | Holds::Nothing => None,
        }
    }

    /// Number of nodes that hold parts, this one included if it does. None while this node does not know
    /// any: it answers for all torrents then, as it does if all nodes hold everything.
    #[must_use]
    pub fn members(&self) -> usize {
        self.holding.as_ref().map_or(0, |holding| holding.members.len())
    }

    /// The nodes that hold a part, best first; none if there are no [`Self::members`].
    pub fn holders(&self, part: u8) -> impl Iterator<Item = Holder> {
        let holding = self.holding.as_ref();
        let members = holding.map(|holding| holding.holders.of(part)).unwrap_or_default();
        let member = move |at: &u16| holding?.members.get(usize::from(*at)).map(|member| member.holder);
        members.iter().filter_map(member)
    }

    /// Numbers of the other nodes that hold a part, in the order in which they are to be asked: those that
    /// have just started come last.
    #[must_use]
    pub fn asked(&self, part: u8) -> Vec<u8> {
        let Some(holding) = &self.holding else { return Vec::new() };
        let members = holding.holders.of(part).iter();
        let members = members.filter_map(|at| holding.members.get(usize::from(*at)));
        let mut asked: Vec<(bool, u8)> = members
            .filter_map(|member| match member.holder {
                Holder::Node(number) => Some((!member.established, number)),
                Holder::Own => None,
            })
            .collect();
        asked.sort_by_key(|(is_new, _)| *is_new);
        asked.into_iter().map(|(_, number)| number).collect()
    }

    /// The parts that this node holds.
    #[must_use]
    pub fn own_parts(&self) -> Bitmap {
        self.holding.as_ref().map_or_else(Bitmap::default, |holding| holding.own)
    }

    /// The parts that this node answers for itself: those that it holds, and all while there are no
    /// [`Self::members`].
    #[must_use]
    pub fn answered_parts(&self) -> Bitmap {
        if self.members() > 0 { self.own_parts() } else { Bitmap::ALL }
    }

    /// The parts whose torrents this node keeps: those that it answers for, and those that new holders may
    /// still pull from it.
    #[must_use]
    pub fn kept_parts(&self) -> Bitmap {
        let Some(holding) = &self.holding else { return Bitmap::ALL };
        let answered = self.answered_parts();
        holding.dropping.map_or(answered, |(_, parts)| parts.with(&answered))
    }

    /// What the cores are to know: which nodes to ask for which parts, and which ones this node holds and
    /// keeps. To be asked for after each [`Action::HoldersChanged`].
    #[must_use]
    pub fn division(&self, hasher: PartHasher) -> partition::Holders {
        let set = |parts: Bitmap| PartSet::from_bitmap(hasher, &parts.0);
        let asked = |part| self.asked(part).into_iter().map(NodeNumber::from);
        let holders = partition::Holders::new(hasher, set(self.answered_parts()), asked);
        holders.keeping(set(self.kept_parts()))
    }

    /// The parts that this node holds and whose torrents it still has to receive.
    #[must_use]
    pub fn missing_parts(&self) -> Bitmap {
        let wanted = self.holding.as_ref().map_or_else(Bitmap::default, |holding| holding.wanted);
        self.pulls.iter().fold(wanted, |missing, pull| match pull.what {
            What::Parts(parts) => missing.with(&Bitmap(parts)),
            What::All | What::Own { .. } => missing,
        })
    }

    pub(super) fn step_holding(&mut self, now: Millis) {
        let Some(mut holding) = self.holding.take() else { return };
        let is_settled = !self.connected || now.saturating_sub(self.connected_at) >= SETTLE;
        let members = if is_settled { self.current_members(now) } else { holding.members.clone() };
        if members != holding.members {
            self.move_parts(now, &mut holding, members);
        }
        if self.donor.sessions() > 0
            && let Some((until, _)) = &mut holding.dropping
        {
            *until = (*until).max(now.saturating_add(DROP_AFTER / 6));
        }
        if let Some((_, parts)) = holding.dropping.take_if(|(until, _)| now >= *until)
            && !parts.without(&holding.own).is_empty()
        {
            self.actions.push_back(Action::HoldersChanged);
        }
        if self.connected && now >= holding.not_before {
            self.pull_parts(now, &mut holding);
        }
        self.holding = Some(holding);
    }

    /// This node and the others whose runs have lasted for long enough, by name. Of two runs of one name
    /// there is one.
    fn current_members(&self, now: Millis) -> Vec<Member> {
        let own = Member::of(&self.settings.name, Holder::Own, now.saturating_sub(self.began));
        one_for_each_name(own.into_iter().chain(self.other_members(now, self.settings.holds)).collect())
    }

    /// The other nodes that hold these peers and whose runs have lasted for long enough.
    fn other_members(&self, now: Millis, holds: Holds) -> impl Iterator<Item = Member> {
        self.nodes.live().filter(move |node| node.hello.holds == holds).filter_map(move |node| {
            let age = node.hello.clock.saturating_add(now.saturating_sub(node.heard));
            Member::of(node.name(), Holder::Node(node.number), age)
        })
    }

    fn move_parts(&mut self, now: Millis, holding: &mut Holding, members: Vec<Member>) {
        let holders = holding.choose(&members);
        let own = Holding::held_by_this_node(&members, &holders);
        let (gained, lost) = (own.without(&holding.own), holding.own.without(&own));
        let is_alone = !self.nodes.live().any(Node::holds_peers);
        let wanted = holding.wanted.with(&gained).without(&lost);
        let has_begun = holding.members.is_empty();
        // Without NATS, what others have is learned by the pulls that follow it.
        holding.wanted = if is_alone && (has_begun || !self.connected) { Bitmap::default() } else { wanted };
        holding.wanted_until = if has_begun { now } else { now.saturating_add(RESTART) };
        if !lost.is_empty() {
            let (until, parts) = holding.dropping.unwrap_or_default();
            let until = until.max(now.saturating_add(DROP_AFTER));
            holding.dropping = Some((until, parts.with(&lost)));
        }
        holding.own = own;
        let held = std::mem::replace(&mut holding.holders, holders);
        let before = std::mem::replace(&mut holding.members, members);
        self.actions.push_back(Action::HoldersChanged);
        if !gained.is_empty() || !lost.is_empty() {
            holding.before = (before, held);
            self.actions.push_back(Action::Notice(Notice::PartsMoved {
                held: own.len(),
                gained: gained.len(),
                lost: lost.len(),
                members: holding.members.len(),
            }));
        }
    }

    /// The live nodes among those that hold a part.
    fn live_holders<'a>(
        &'a self,
        (members, holders): (&'a [Member], &'a Holders),
        part: u8,
    ) -> impl Iterator<Item = &'a Node> {
        let members = holders.of(part).iter().filter_map(|at| members.get(usize::from(*at)));
        members.filter_map(|member| match member.holder {
            Holder::Node(number) => {
                self.nodes.by_number(number).filter(|node| !node.gone && *node.name() == member.name)
            }
            Holder::Own => None,
        })
    }

    /// The nodes of each other division of the torrents, and which of them hold which parts.
    fn holders_of_other_modes(&self, now: Millis, holding: &Holding) -> Vec<(Vec<Member>, Holders)> {
        let others = self.nodes.live().filter_map(|node| match node.hello.holds {
            Holds::Parts(replicas) if node.hello.holds != self.settings.holds => Some(replicas),
            Holds::Parts(_) | Holds::Everything | Holds::Nothing => None,
        });
        let mut replicas: Vec<u8> = others.collect();
        replicas.sort_unstable();
        replicas.dedup();
        let division = |replicas: u8| {
            let members = self.other_members(now, Holds::Parts(replicas)).collect();
            let members = one_for_each_name(members);
            let holders = holding.choose_by(replicas.into(), &members);
            (members, holders)
        };
        replicas.into_iter().map(division).collect()
    }

    /// A node that holds a part although it divides the torrents in another way, or not at all: a mode is
    /// changed node by node.
    fn holder_of_other_mode<'a>(
        &'a self,
        divisions: &'a [(Vec<Member>, Holders)],
        part: u8,
    ) -> Option<&'a Node> {
        let everything = self.nodes.live().filter(|node| node.hello.holds == Holds::Everything);
        let complete = everything.filter(|node| node.hello.complete.is_some());
        let holders =
            divisions.iter().flat_map(|(members, holders)| self.live_holders((members, holders), part));
        complete
            .max_by_key(|node| node.hello.complete)
            .or_else(|| holders.max_by_key(|node| node.hello.clock))
    }

    /// Begins to pull parts from those who held them before, from those who would hold them without this
    /// node, or from nodes of another mode: from the one that has been here for longest.
    fn pull_parts(&mut self, now: Millis, holding: &mut Holding) {
        if holding.wanted.is_empty() {
            return;
        }
        let others: Vec<Member> =
            holding.members.iter().filter(|member| member.holder != Holder::Own).cloned().collect();
        let holders = holding.choose(&others);
        let other_modes = self.holders_of_other_modes(now, holding);
        let mut by_donor: Vec<((u8, Run), Bitmap)> = Vec::new();
        for part in (0..=u8::MAX).filter(|part| holding.wanted.contains(*part)) {
            let (members, held) = &holding.before;
            let before = self.live_holders((members, held), part).max_by_key(|node| node.hello.clock);
            let other = || self.live_holders((&others, &holders), part).max_by_key(|node| node.hello.clock);
            let of_other_mode = || self.holder_of_other_mode(&other_modes, part);
            let Some(donor) = before.or_else(other).or_else(of_other_mode) else { continue };
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
        if by_donor.is_empty() && now < holding.wanted_until {
            holding.not_before = now.saturating_add(RETRY);
        } else if by_donor.is_empty() {
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
