//! Sets of networks that a socket filter can hold by the thousand.
//!
//! Classic BPF has no memory besides its instructions, so a set becomes a binary tree of comparisons. Up to
//! some three thousand networks it has a hash of each at its leaves. More of them are a Bloom filter of two
//! tables, with 32 buckets at each leaf: then a few other networks are taken for one in the set.

use std::net::IpAddr;

use aquatic_common::Family;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MEM,
    BPF_MISC, BPF_MUL, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};

use super::drop_filter::{NETWORK_HEADER, SOURCE_V4, SOURCE_V6, jump, statement};

/// Maximum number of IPv4 and IPv6 networks that are told apart from all others. With the ranges of a filter,
/// which are most if its networks are inside each other, they fit into a program of 4096 instructions.
const MAX_EXACT_V4: usize = 3000;
const MAX_EXACT_V6: usize = 2600;

/// Maximum number of hashes at a leaf, which are compared one after the other.
const HASHES_AT_LEAF: usize = 32;

/// Number of tables of a Bloom filter, each with a hash of its own.
const TABLES: usize = 2;

/// Words of 32 buckets in a table. Twice as many would not fit into a program.
const WORDS: usize = 512;

/// Bits of a hash that tell the bucket of a table.
const BUCKET_BITS: u32 = (WORDS * 32).ilog2();

/// Farthest that a comparison can jump.
const MAX_JUMP: usize = u8::MAX as usize;

/// Where the program keeps a hash.
const HASH: u32 = 2;
const HASH_OF_TABLE: u32 = 3;

/// Key of the hashes. Must not be known to clients, and should be replaced often: whoever is taken for one of
/// the networks is so for as long as the key stays.
pub type SetKey = [u32; 4];

/// A set of networks of one family: IPv4 /24 or IPv6 /56.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    family: Family,
    key: SetKey,
    members: Members,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Members {
    /// Sorted hashes.
    Hashes(Vec<u32>),
    Tables([Box<[u32; WORDS]>; TABLES]),
}

impl NetworkSet {
    /// The networks around these addresses of a family.
    #[must_use]
    pub fn new(family: Family, key: SetKey, networks: impl IntoIterator<Item = IpAddr>) -> Self {
        let [first, factors @ ..] = key;
        let [a, b, c] = factors.map(|factor| factor | 1);
        let key = [first, a, b, c];
        let mut hashes: Vec<u32> = networks.into_iter().map(|ip| hash(key, ip)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let most = match family {
            Family::V4 => MAX_EXACT_V4,
            Family::V6 => MAX_EXACT_V6,
        };
        let members = if hashes.len() <= most { Members::Hashes(hashes) } else { tables(key, &hashes) };
        Self { family, key, members }
    }

    /// Whether the network around an address is in the set, or is taken for one that is.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let hash = hash(self.key, ip);
        match &self.members {
            Members::Hashes(hashes) => hashes.binary_search(&hash).is_ok(),
            Members::Tables(tables) => {
                let mut tables = tables.iter().zip(buckets(self.key, hash));
                tables.all(|(table, (word, bit))| table.get(word).is_some_and(|word| word >> bit & 1 == 1))
            }
        }
    }

    /// Instructions that continue with `inside` for sources in the set, and behind it for all others.
    pub(super) fn program(&self, inside: &[sock_filter]) -> Vec<sock_filter> {
        let [first, a, b, c] = self.key;
        let load = |offset: u32| statement(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(offset));
        let (high, low) = match self.family {
            Family::V4 => (statement(BPF_LD | BPF_IMM, 0), SOURCE_V4),
            Family::V6 => (load(SOURCE_V6), SOURCE_V6 + 4),
        };
        let mut program = vec![high, alu(BPF_XOR, first), alu(BPF_MUL, a), TAX];
        program.extend([load(low), alu(BPF_AND, NETWORK_MASK), XOR_X, alu(BPF_MUL, b), TAX]);
        program.extend([alu(BPF_RSH, 16), XOR_X, alu(BPF_MUL, c)]);
        match &self.members {
            Members::Hashes(hashes) => {
                program.extend(hash_tree(hashes, 0, inside.len()));
                program.extend_from_slice(inside);
            }
            Members::Tables([one, two]) => {
                let mut second = vec![statement(BPF_LD | BPF_MEM, HASH), TAX, alu(BPF_RSH, 15), XOR_X];
                second.push(alu(BPF_MUL, a));
                second.extend(lookup(two, inside.len()));
                second.extend_from_slice(inside);
                program.push(statement(BPF_ST, HASH));
                program.extend(lookup(one, second.len()));
                program.extend(second);
            }
        }
        program
    }
}

/// Hash of the network around an address. Of IPv4 networks no two are the same.
fn hash([first, a, b, c]: SetKey, ip: IpAddr) -> u32 {
    let (high, low) = words(ip);
    let hash = ((high ^ first).wrapping_mul(a) ^ low).wrapping_mul(b);
    (hash ^ hash >> 16).wrapping_mul(c)
}

/// Word and bit of a hash in each table.
fn buckets([_, a, ..]: SetKey, hash: u32) -> [(usize, u32); TABLES] {
    let second = (hash ^ hash >> 15).wrapping_mul(a);
    [hash, second].map(|hash| {
        let bucket = hash >> (32 - BUCKET_BITS);
        ((bucket >> 5) as usize, bucket & 31)
    })
}

fn tables(key: SetKey, hashes: &[u32]) -> Members {
    let mut tables = std::array::from_fn(|_| Box::new([0; WORDS]));
    for &hash in hashes {
        for (table, (word, bit)) in tables.iter_mut().zip(buckets(key, hash)) {
            if let Some(word) = table.get_mut(word) {
                *word |= 1 << bit;
            }
        }
    }
    Members::Tables(tables)
}

const TAX: sock_filter = statement(BPF_MISC | BPF_TAX, 0);
const XOR_X: sock_filter = statement(BPF_ALU | BPF_XOR | BPF_X, 0);

const fn alu(operation: u32, k: u32) -> sock_filter {
    statement(BPF_ALU | operation | BPF_K, k)
}

/// Skips `after` instructions if the accumulator is one of these hashes, and `skip` more if it is not.
fn hash_tree(hashes: &[u32], after: usize, skip: usize) -> Vec<sock_filter> {
    if hashes.len() > HASHES_AT_LEAF {
        let (low, high) = hashes.split_at(hashes.len() / 2);
        let middle = high.first().copied().unwrap_or(0);
        let high = hash_tree(high, after, skip);
        let low = hash_tree(low, after + high.len(), skip);
        return node(middle, low, high);
    }
    // The last instruction is for those that are equal, the one before it for all others.
    let compare = |(at, &hash): (usize, &u32)| jump(BPF_JEQ, hash, (hashes.len() - at) as u8, 0);
    let mut leaf: Vec<sock_filter> = hashes.iter().enumerate().map(compare).collect();
    leaf.push(statement(BPF_JMP | BPF_JA, (1 + after + skip) as u32));
    leaf.push(statement(BPF_JMP | BPF_JA, after as u32));
    leaf
}

/// Continues with `low` if the accumulator is less than `middle`, else with `high`.
fn node(middle: u32, low: Vec<sock_filter>, high: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut nodes = if low.len() <= MAX_JUMP {
        vec![jump(BPF_JGE, middle, low.len() as u8, 0)]
    } else {
        vec![jump(BPF_JGE, middle, 0, 1), statement(BPF_JMP | BPF_JA, low.len() as u32)]
    };
    nodes.extend(low);
    nodes.extend(high);
    nodes
}

/// The bits of the lower word that belong to the network: IPv4 /24, IPv6 /56.
const NETWORK_MASK: u32 = !0xFF;

/// The network around an address, as two words.
fn words(ip: IpAddr) -> (u32, u32) {
    match ip {
        IpAddr::V4(v4) => (0, v4.to_bits() & NETWORK_MASK),
        IpAddr::V6(v6) => ((v6.to_bits() >> 96) as u32, (v6.to_bits() >> 64) as u32 & NETWORK_MASK),
    }
}

/// Looks a hash up in a table: continues behind these instructions if its bucket is set, and `skip` further
/// if it is not.
fn lookup(table: &[u32; WORDS], skip: usize) -> Vec<sock_filter> {
    let mut program = vec![alu(BPF_RSH, 32 - BUCKET_BITS), statement(BPF_ST, HASH_OF_TABLE)];
    program.extend([alu(BPF_AND, 31), TAX]);
    program.extend([statement(BPF_LD | BPF_MEM, HASH_OF_TABLE), alu(BPF_RSH, 5)]);
    program.extend(tree(table, 0, 0));
    // The bucket's word is in the accumulator, the bit in X.
    program.push(statement(BPF_ALU | BPF_RSH | BPF_X, 0));
    program.push(jump(BPF_JSET, 1, 1, 0));
    program.push(statement(BPF_JMP | BPF_JA, skip as u32));
    program
}

/// Loads the word whose number, counted from `first`, is in the accumulator, and skips `after` instructions.
fn tree(words: &[u32], first: usize, after: usize) -> Vec<sock_filter> {
    let [word] = words else {
        let (low, high) = words.split_at(words.len() / 2);
        let middle = first + low.len();
        let high = tree(high, middle, after);
        let low = tree(low, first, after + high.len());
        return node(middle as u32, low, high);
    };
    vec![statement(BPF_LD | BPF_IMM, *word), statement(BPF_JMP | BPF_JA, after as u32)]
}
