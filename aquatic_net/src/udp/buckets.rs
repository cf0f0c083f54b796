//! Sets of networks that a socket filter can hold by the thousand, at the price that a few other networks are
//! taken for one of them (a Bloom filter of two tables).
//!
//! The tables become a binary tree of comparisons with 32 buckets at each leaf, since classic BPF has no
//! memory besides its instructions.

use std::net::IpAddr;

use aquatic_common::Family;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_IMM, BPF_JA, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MEM, BPF_MISC,
    BPF_MUL, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};

use super::drop_filter::{NETWORK_HEADER, SOURCE_V4, SOURCE_V6, jump, statement};

/// Number of tables, each with a hash of its own.
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
pub type BucketKey = [u32; 4];

/// A set of networks: IPv4 /24 and IPv6 /56.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    key: BucketKey,
    tables: [Box<[u32; WORDS]>; TABLES],
}

impl Buckets {
    /// An empty set.
    #[must_use]
    pub fn new(key: BucketKey) -> Self {
        let [first, factors @ ..] = key;
        let [a, b, c] = factors.map(|factor| factor | 1);
        Self { key: [first, a, b, c], tables: std::array::from_fn(|_| Box::new([0; WORDS])) }
    }

    /// Adds the network around an address.
    pub fn add(&mut self, ip: IpAddr) {
        let buckets = self.buckets(ip);
        for (table, (word, bit)) in self.tables.iter_mut().zip(buckets) {
            if let Some(word) = table.get_mut(word) {
                *word |= 1 << bit;
            }
        }
    }

    /// Whether the network around an address is in the set, or is taken for one that is.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let mut tables = self.tables.iter().zip(self.buckets(ip));
        tables.all(|(table, (word, bit))| table.get(word).is_some_and(|word| word >> bit & 1 == 1))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.iter().all(|&word| word == 0))
    }

    /// Word and bit of an address in each table.
    fn buckets(&self, ip: IpAddr) -> [(usize, u32); TABLES] {
        let [first, a, b, c] = self.key;
        let (high, low) = words(ip);
        let mut hash = ((high ^ first).wrapping_mul(a) ^ low).wrapping_mul(b);
        hash = (hash ^ hash >> 16).wrapping_mul(c);
        let second = (hash ^ hash >> 15).wrapping_mul(a);
        [hash, second].map(|hash| {
            let bucket = hash >> (32 - BUCKET_BITS);
            ((bucket >> 5) as usize, bucket & 31)
        })
    }

    /// Instructions that continue with `inside` for sources in the set, and behind it for all others.
    pub(super) fn program(&self, family: Family, inside: &[sock_filter]) -> Vec<sock_filter> {
        let [first, a, b, c] = self.key;
        let load = |offset: u32| statement(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(offset));
        let alu = |operation: u32, k: u32| statement(BPF_ALU | operation | BPF_K, k);
        let (high, low) = match family {
            Family::V4 => (statement(BPF_LD | BPF_IMM, 0), SOURCE_V4),
            Family::V6 => (load(SOURCE_V6), SOURCE_V6 + 4),
        };
        let xor_x = statement(BPF_ALU | BPF_XOR | BPF_X, 0);
        let tax = statement(BPF_MISC | BPF_TAX, 0);
        let mut second = vec![statement(BPF_LD | BPF_MEM, HASH), tax, alu(BPF_RSH, 15), xor_x];
        second.push(alu(BPF_MUL, a));
        second.extend(lookup(&self.tables[1], inside.len()));
        second.extend_from_slice(inside);
        let mut program = vec![high, alu(BPF_XOR, first), alu(BPF_MUL, a), tax];
        program.extend([load(low), alu(BPF_AND, NETWORK_MASK), xor_x, alu(BPF_MUL, b), tax]);
        program.extend([alu(BPF_RSH, 16), xor_x, alu(BPF_MUL, c), statement(BPF_ST, HASH)]);
        program.extend(lookup(&self.tables[0], second.len()));
        program.extend(second);
        program
    }
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
    let alu = |operation: u32, k: u32| statement(BPF_ALU | operation | BPF_K, k);
    let mut program = vec![alu(BPF_RSH, 32 - BUCKET_BITS), statement(BPF_ST, HASH_OF_TABLE)];
    program.extend([alu(BPF_AND, 31), statement(BPF_MISC | BPF_TAX, 0)]);
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
        let mut nodes = if low.len() <= MAX_JUMP {
            vec![jump(BPF_JGE, middle as u32, low.len() as u8, 0)]
        } else {
            vec![jump(BPF_JGE, middle as u32, 0, 1), statement(BPF_JMP | BPF_JA, low.len() as u32)]
        };
        nodes.extend(low);
        nodes.extend(high);
        return nodes;
    };
    vec![statement(BPF_LD | BPF_IMM, *word), statement(BPF_JMP | BPF_JA, after as u32)]
}
