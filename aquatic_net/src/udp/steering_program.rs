//! [`Steering::owner`] as a program for the kernel, so that an announce arrives on the core that owns its
//! torrent.

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_MISC, BPF_MOD, BPF_MUL, BPF_RET,
    BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};

use aquatic_common::steering::{MIX_SHIFT, Steering};

/// Announces and scrapes both carry their (first) info hash at this offset (BEP 15).
const INFO_HASH_OFFSET: u32 = 16;

/// Datagrams shorter than this carry no info hash.
const SHORTEST_WITH_INFO_HASH: u32 = INFO_HASH_OFFSET + 20;

/// Not the index of any socket: the kernel then falls back to its own hash of addresses and ports.
const NO_CHOICE: u32 = u32::MAX;

/// The program: the index of the owner's socket, or [`NO_CHOICE`] for datagrams without an info hash.
pub(super) fn program(steering: &Steering) -> [sock_filter; 11] {
    let cores = u32::try_from(steering.cores()).unwrap_or(u32::MAX);
    [
        statement(BPF_LD | BPF_W | BPF_LEN, 0),
        sock_filter { code: code(BPF_JMP | BPF_JGE | BPF_K), jt: 1, jf: 0, k: SHORTEST_WITH_INFO_HASH },
        statement(BPF_RET | BPF_K, NO_CHOICE),
        statement(BPF_LD | BPF_W | BPF_ABS, INFO_HASH_OFFSET),
        statement(BPF_ALU | BPF_XOR | BPF_K, steering.key()),
        statement(BPF_ALU | BPF_MUL | BPF_K, steering.multiplier()),
        statement(BPF_MISC | BPF_TAX, 0),
        statement(BPF_ALU | BPF_RSH | BPF_K, MIX_SHIFT),
        statement(BPF_ALU | BPF_XOR | BPF_X, 0),
        statement(BPF_ALU | BPF_MOD | BPF_K, cores),
        statement(BPF_RET | BPF_A, 0),
    ]
}

fn statement(operation: u32, k: u32) -> sock_filter {
    sock_filter { code: code(operation), jt: 0, jf: 0, k }
}

fn code(operation: u32) -> u16 {
    operation as u16
}

#[cfg(test)]
mod tests;
