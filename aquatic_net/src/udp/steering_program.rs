//! [`Steering::owner`] as a program for the kernel, so that an announce arrives on the core that owns its torrent.

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
mod tests {
    use aquatic_common::InfoHash;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Runs the few operations the program is made of, as the kernel does.
    fn run(program: &[sock_filter], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                op if op == BPF_LD | BPF_W | BPF_LEN => a = u32::try_from(packet.len()).unwrap(),
                op if op == BPF_LD | BPF_W | BPF_ABS => {
                    let from = step.k as usize;
                    a = u32::from_be_bytes(packet[from..from + 4].try_into().unwrap());
                }
                op if op == BPF_JMP | BPF_JGE | BPF_K => {
                    at += usize::from(if a >= step.k { step.jt } else { step.jf });
                }
                op if op == BPF_ALU | BPF_XOR | BPF_K => a ^= step.k,
                op if op == BPF_ALU | BPF_XOR | BPF_X => a ^= x,
                op if op == BPF_ALU | BPF_MUL | BPF_K => a = a.wrapping_mul(step.k),
                op if op == BPF_ALU | BPF_RSH | BPF_K => a >>= step.k,
                op if op == BPF_ALU | BPF_MOD | BPF_K => a %= step.k,
                op if op == BPF_MISC | BPF_TAX => x = a,
                op if op == BPF_RET | BPF_K => return step.k,
                op if op == BPF_RET | BPF_A => return a,
                op => panic!("unexpected operation {op:#x}"),
            }
        }
    }

    #[test]
    fn kernel_program_agrees_with_owner() {
        let mut rng = SmallRng::seed_from_u64(1);
        for cores in [1, 2, 3, 7, 64] {
            let steering = Steering::new(cores, rng.random());
            let program = program(&steering);
            for _ in 0..1000 {
                let mut packet = [0_u8; 98];
                rng.fill(&mut packet[..]);
                let info_hash = InfoHash(packet[16..36].try_into().unwrap());
                assert_eq!(run(&program, &packet) as usize, steering.owner(&info_hash));
            }
        }
    }

    #[test]
    fn packets_without_info_hash_are_left_to_the_kernel() {
        let steering = Steering::new(2, [1; 8]);
        for len in [0, 16, 35] {
            assert_eq!(run(&program(&steering), &vec![0; len]), NO_CHOICE);
        }
    }
}
