//! A socket filter that drops a share of what some networks send before it reaches the receive buffer, for
//! listeners that are asked for more than they can serve.
//!
//! It is classic BPF, for which a process needs no privilege: the networks become sorted ranges of addresses,
//! the ranges a binary tree of comparisons, and chance comes from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aquatic_common::{Family, Prefix};
use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_MEM, BPF_RET, BPF_ST, BPF_W,
    sock_filter,
};

use super::network_set::NetworkSet;

/// Maximum number of networks. With the largest crowd they fit into a program of 4096 instructions.
pub const MAX_NETWORKS: usize = 48;

/// Offset from which the network header can be read (`SKF_NET_OFF`).
pub(super) const NETWORK_HEADER: u32 = (-0x10_0000_i32) as u32;

/// Where a random number can be read (`SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

/// Offsets of the source address in the headers of IPv4 and IPv6.
pub(super) const SOURCE_V4: u32 = 12;
pub(super) const SOURCE_V6: u32 = 8;

/// Offset of the action of a request (BEP 15), with the header of UDP.
const ACTION_OFFSET: u32 = 8 + 8;

/// Action of a connect request, of whatever length.
const CONNECT: u32 = 0;

const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

/// Share of the datagrams that pass, in units of 2^-32; `u32::MAX` for all.
pub type Share = u32;

/// What a filter lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropFilter {
    family: Family,
    /// Networks of that family, at most [`MAX_NETWORKS`]. The longest prefix decides.
    networks: Vec<(Prefix, Share)>,
    /// Networks besides these, and their share.
    crowd: Option<(NetworkSet, Share)>,
    /// For connect requests from elsewhere.
    connects: Share,
}

impl DropFilter {
    /// A filter for a listener of this family. Of IPv6 it sees the first 64 bits. Networks of the other
    /// family and those beyond [`MAX_NETWORKS`] are left out.
    #[must_use]
    pub fn new(family: Family, networks: &[(Prefix, Share)], connects: Share) -> Self {
        let of_family = networks.iter().filter(|(prefix, _)| prefix.family() == family).copied();
        Self { family, networks: of_family.take(MAX_NETWORKS).collect(), crowd: None, connects }
    }

    /// The same with a share for all networks of a set that are not among the others.
    #[must_use]
    pub fn with_crowd(self, crowd: NetworkSet, share: Share) -> Self {
        Self { crowd: Some((crowd, share)), ..self }
    }

    /// A filter that lets nothing through.
    #[must_use]
    pub fn everything(family: Family) -> Self {
        let any = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self::new(family, &[(Prefix::of(any, 0), DROP)], Share::MAX)
    }

    /// A filter that lets everything through.
    #[must_use]
    pub fn nothing(family: Family) -> Self {
        Self::new(family, &[], Share::MAX)
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let has_crowd = self.crowd.as_ref().is_some_and(|(_, share)| *share != Share::MAX);
        self.connects == Share::MAX
            && !has_crowd
            && self.networks.iter().all(|&(_, share)| share == Share::MAX)
    }

    /// The share that passes of what a source, with an address of the filter's family, sends. Of datagrams
    /// that are too short to have an action none may pass.
    #[must_use]
    pub fn share(&self, source: IpAddr, is_connect: bool) -> Share {
        let holding = self.networks.iter().filter(|(prefix, _)| prefix.contains(source));
        match holding.max_by_key(|(prefix, _)| prefix.length()) {
            Some(&(_, share)) => share,
            None => match &self.crowd {
                Some((crowd, share)) if crowd.contains(source) => *share,
                Some(_) | None if is_connect => self.connects,
                Some(_) | None => Share::MAX,
            },
        }
    }

    /// The program for the kernel.
    pub(super) fn program(&self) -> Vec<sock_filter> {
        let ranges = Ranges::new(self.networks.iter().map(|&(prefix, _)| prefix));
        let mut tail = Vec::new();
        if let Some((crowd, share)) = &self.crowd {
            tail.extend(crowd.program(&chance(*share)));
        }
        if self.connects != Share::MAX {
            tail.push(statement(BPF_LD | BPF_W | BPF_ABS, ACTION_OFFSET));
            tail.push(jump(BPF_JEQ, CONNECT, 1, 0));
            tail.push(statement(BPF_RET | BPF_K, PASS));
            tail.extend(chance(self.connects));
        } else {
            tail.push(statement(BPF_RET | BPF_K, PASS));
        }
        let share = |network: Option<usize>| network.and_then(|at| self.networks.get(at)).map(|&(_, s)| s);
        let leaves: Vec<Option<Share>> = ranges.0.iter().map(|&(_, network)| share(network)).collect();
        let starts: Vec<u64> = ranges.0.iter().map(|&(start, _)| start).collect();
        let tree = self.tree(&starts, &leaves, 0);
        let mut program = match self.family {
            Family::V4 => vec![statement(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(SOURCE_V4))],
            Family::V6 => vec![
                statement(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(SOURCE_V6)),
                statement(BPF_ST, 0),
                statement(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(SOURCE_V6 + 4)),
                statement(BPF_ST, 1),
            ],
        };
        program.extend(tree);
        program.extend(tail);
        program
    }

    /// Comparisons that end in the leaf of a key, where leaf *i* is for keys from `starts[i]` on. Leaves
    /// without a share continue behind the tree, which `after` more instructions follow.
    fn tree(&self, starts: &[u64], leaves: &[Option<Share>], after: usize) -> Vec<sock_filter> {
        match leaves {
            [] => Vec::new(),
            [None] if after == 0 => Vec::new(),
            [None] => vec![statement(BPF_JMP | BPF_JA, after as u32)],
            [Some(share)] => chance(*share).to_vec(),
            _ => {
                let (low_starts, high_starts) = starts.split_at(starts.len() / 2);
                let (low, high) = leaves.split_at(leaves.len() / 2);
                let high = self.tree(high_starts, high, after);
                let low = self.tree(low_starts, low, high.len() + after);
                let mut nodes = self.at_least(high_starts.first().copied().unwrap_or(0));
                nodes.push(statement(BPF_JMP | BPF_JA, low.len() as u32));
                nodes.extend(low);
                nodes.extend(high);
                nodes
            }
        }
    }

    /// Goes to the instruction behind these if the key is at least `start`, else skips that one.
    fn at_least(&self, start: u64) -> Vec<sock_filter> {
        let (high, low) = ((start >> 32) as u32, start as u32);
        match self.family {
            Family::V4 => vec![jump(BPF_JGE, low, 0, 1)],
            Family::V6 => vec![
                statement(BPF_LD | BPF_MEM, 0),
                jump(BPF_JGT, high, 3, 0),
                jump(BPF_JEQ, high, 0, 3),
                statement(BPF_LD | BPF_MEM, 1),
                jump(BPF_JGE, low, 0, 1),
            ],
        }
    }
}

/// Networks as ranges of keys: each begins at a key and belongs to a network, given by its position, or to
/// none. Of networks inside each other the longest prefix has the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, Option<usize>)>);

impl Ranges {
    /// The ranges of networks of one family.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = Prefix>) -> Self {
        let networks: Vec<Prefix> = networks.into_iter().collect();
        let spans: Vec<(u64, u64)> = networks.iter().map(span).collect();
        let most = networks.iter().map(|network| last_key(network.family())).max().unwrap_or(u64::MAX);
        let after = |last: u64| last.checked_add(1).filter(|&start| start <= most);
        let mut starts: Vec<u64> =
            spans.iter().flat_map(|&(first, last)| [Some(first), after(last)]).flatten().collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let owner = |key: u64| {
            let holding =
                spans.iter().enumerate().filter(|(_, (first, last))| (*first..=*last).contains(&key));
            holding.max_by_key(|&(at, _)| networks.get(at).map(Prefix::length)).map(|(at, _)| at)
        };
        let mut ranges: Vec<(u64, Option<usize>)> = Vec::with_capacity(starts.len());
        for start in starts {
            let network = owner(start);
            if ranges.last().is_none_or(|&(_, last)| last != network) {
                ranges.push((start, network));
            }
        }
        Self(ranges)
    }

    /// Position of the network that an address, of the networks' family, belongs to.
    #[inline]
    #[must_use]
    pub fn find(&self, ip: IpAddr) -> Option<usize> {
        let key = key(ip);
        let after = self.0.partition_point(|&(start, _)| start <= key);
        after.checked_sub(1).and_then(|at| self.0.get(at)).and_then(|&(_, network)| network)
    }
}

/// An address as a key: all of IPv4, the first half of IPv6.
fn key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// The last key of a family.
fn last_key(family: Family) -> u64 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u64::MAX,
    }
}

/// First and last key of a network.
fn span(prefix: &Prefix) -> (u64, u64) {
    let (first, last) = prefix.range();
    match prefix.family() {
        Family::V4 => (first as u64, last as u64),
        Family::V6 => ((first >> 64) as u64, (last >> 64) as u64),
    }
}

/// Lets a share pass.
fn chance(share: Share) -> [sock_filter; 4] {
    [
        statement(BPF_LD | BPF_W | BPF_ABS, RANDOM),
        jump(BPF_JGE, share, 0, 1),
        // What is exactly at the maximum passes as well: it means all.
        statement(BPF_RET | BPF_K, if share == Share::MAX { PASS } else { DROP }),
        statement(BPF_RET | BPF_K, PASS),
    ]
}

pub(super) const fn statement(operation: u32, k: u32) -> sock_filter {
    jump_code(operation, k, 0, 0)
}

pub(super) const fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    jump_code(BPF_JMP | condition | BPF_K, k, jt, jf)
}

const fn jump_code(operation: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: operation as u16, jt, jf, k }
}

#[cfg(test)]
mod tests;
