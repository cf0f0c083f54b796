//! Runs the program's instructions over packets.

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
