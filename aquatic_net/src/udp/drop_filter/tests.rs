//! Runs the program's instructions over packets, and in the kernel.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use libc::{BPF_ALU, BPF_AND, BPF_IMM, BPF_JSET, BPF_MISC, BPF_MUL, BPF_RSH, BPF_TAX, BPF_X, BPF_XOR};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::sys;
use super::*;

/// Runs the operations the program is made of, as the kernel does. Returns whether the packet passes.
fn passes(program: &[sock_filter], source: IpAddr, action: u32, random: u32) -> bool {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0);
    let word = |offset: u32| match source {
        IpAddr::V4(v4) if offset == SOURCE_V4 => v4.to_bits(),
        IpAddr::V6(v6) if offset == SOURCE_V6 => (v6.to_bits() >> 96) as u32,
        IpAddr::V6(v6) if offset == SOURCE_V6 + 4 => (v6.to_bits() >> 64) as u32,
        IpAddr::V4(_) | IpAddr::V6(_) => panic!("unexpected offset {offset}"),
    };
    loop {
        let step = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
        match u32::from(step.code) {
            op if op == BPF_LD | BPF_W | BPF_ABS && step.k == ACTION_OFFSET => a = action,
            op if op == BPF_LD | BPF_W | BPF_ABS && step.k == RANDOM => a = random,
            op if op == BPF_LD | BPF_W | BPF_ABS => a = word(step.k.wrapping_sub(NETWORK_HEADER)),
            op if op == BPF_LD | BPF_MEM => a = memory[step.k as usize],
            op if op == BPF_ST => memory[step.k as usize] = a,
            op if op == BPF_JMP | BPF_JA => at += step.k as usize,
            op if op == BPF_JMP | BPF_JGE | BPF_K => branch(a >= step.k),
            op if op == BPF_JMP | BPF_JGT | BPF_K => branch(a > step.k),
            op if op == BPF_JMP | BPF_JEQ | BPF_K => branch(a == step.k),
            op if op == BPF_LD | BPF_IMM => a = step.k,
            op if op == BPF_MISC | BPF_TAX => x = a,
            op if op == BPF_ALU | BPF_XOR | BPF_K => a ^= step.k,
            op if op == BPF_ALU | BPF_XOR | BPF_X => a ^= x,
            op if op == BPF_ALU | BPF_MUL | BPF_K => a = a.wrapping_mul(step.k),
            op if op == BPF_ALU | BPF_AND | BPF_K => a &= step.k,
            op if op == BPF_ALU | BPF_RSH | BPF_K => a >>= step.k,
            op if op == BPF_ALU | BPF_RSH | BPF_X => a >>= x,
            op if op == BPF_JMP | BPF_JSET | BPF_K => branch(a & step.k != 0),
            op if op == BPF_RET | BPF_K => return step.k != DROP,
            op => panic!("unexpected operation {op:#x}"),
        }
    }
}

fn random_ip(rng: &mut SmallRng, family: Family) -> IpAddr {
    // Few different leading bits, so that networks meet and contain each other.
    match family {
        Family::V4 => Ipv4Addr::from_bits(rng.random::<u32>() & 0x8003_FFFF).into(),
        Family::V6 => Ipv6Addr::from_bits(rng.random::<u128>() & 0x8003_0000_FFFF_0003 << 64).into(),
    }
}

fn random_networks(rng: &mut SmallRng, family: Family) -> Vec<(Prefix, Share)> {
    let lengths = if family == Family::V4 { [32, 24, 20] } else { [64, 56, 48] };
    let count = rng.random_range(0..=MAX_NETWORKS);
    let mut networks: Vec<(Prefix, Share)> = (0..count)
        .map(|_| {
            let length = lengths[rng.random_range(0..lengths.len())];
            (Prefix::of(random_ip(rng, family), length), rng.random())
        })
        .collect();
    networks.sort_unstable();
    networks.dedup_by_key(|(prefix, _)| *prefix);
    networks
}

/// The share for a packet, by the definition.
fn expected(networks: &[(Prefix, Share)], source: IpAddr, action: u32, connects: Share) -> Share {
    let holding = networks.iter().filter(|(prefix, _)| prefix.contains(source));
    match holding.max_by_key(|(prefix, _)| prefix.length()) {
        Some(&(_, share)) => share,
        None if action == CONNECT => connects,
        None => Share::MAX,
    }
}

#[test]
fn a_filter_of_everything_lets_nothing_through() {
    for (family, last) in [(Family::V4, "255.255.255.255"), (Family::V6, "ffff:ffff:ffff:ffff::1")] {
        let program = DropFilter::everything(family).program();
        let sources = ["0.0.0.0", "192.0.2.1", "::", "2001:db8::1", last].map(|ip| ip.parse().unwrap());
        for source in sources.into_iter().filter(|&source| Family::of(source) == family) {
            for random in [0, 1, u32::MAX] {
                assert!(!passes(&program, source, 1, random), "{source}");
            }
        }
        assert!(DropFilter::nothing(family).is_open());
    }
}

#[test]
fn program_agrees_with_the_definition() {
    let mut rng = SmallRng::seed_from_u64(1);
    for round in 0..300 {
        let family = Family::ALL[round % 2];
        let networks = random_networks(&mut rng, family);
        let connects = if rng.random() { rng.random() } else { Share::MAX };
        let filter = DropFilter::new(family, &networks, connects);
        let program = filter.program();
        assert!(program.len() <= 2000, "the kernel takes 4096 instructions");
        let ranges = Ranges::new(networks.iter().map(|&(prefix, _)| prefix));
        for _ in 0..200 {
            let near = (!networks.is_empty()).then(|| networks[rng.random_range(0..networks.len())].0);
            let source = match near {
                Some(prefix) if rng.random() => edge(prefix, rng.random_range(0..4)),
                Some(_) | None => random_ip(&mut rng, family),
            };
            let action = [CONNECT, 1][rng.random_range(0..2)];
            let share = expected(&networks, source, action, connects);
            assert_eq!(filter.share(source, action == CONNECT), share);
            let random = [rng.random(), 0, share.wrapping_sub(1), share, u32::MAX][rng.random_range(0..5)];
            let passes = passes(&program, source, action, random);
            assert_eq!(
                passes,
                share == Share::MAX || random < share,
                "{source} {networks:?} {share} {random}"
            );
            let found = ranges.find(source).map(|at| networks[at].0);
            let holding = networks.iter().filter(|(prefix, _)| prefix.contains(source));
            assert_eq!(found, holding.map(|&(prefix, _)| prefix).max_by_key(Prefix::length));
        }
    }
}

/// An address at or just outside one end of a network.
fn edge(prefix: Prefix, which: u32) -> IpAddr {
    let (first, last) = prefix.range();
    let at = match which {
        0 => first,
        1 => last,
        2 => first.wrapping_sub(1),
        _ => last.wrapping_add(1),
    };
    match prefix.family() {
        Family::V4 => Ipv4Addr::from_bits(at as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(at).into(),
    }
}

#[test]
fn filters_without_effect_are_open() {
    let prefix = Prefix::of("192.0.2.1".parse().unwrap(), 24);
    assert!(DropFilter::new(Family::V4, &[], Share::MAX).is_open());
    assert!(DropFilter::new(Family::V6, &[(prefix, 0)], Share::MAX).is_open(), "of the other family");
    assert!(DropFilter::new(Family::V4, &[(prefix, Share::MAX)], Share::MAX).is_open());
    assert!(!DropFilter::new(Family::V4, &[(prefix, 1)], Share::MAX).is_open());
    assert!(!DropFilter::new(Family::V4, &[], 0).is_open());
}

/// The number of datagrams that arrive, of `count` that were sent.
fn arrive(receiver: &UdpSocket, source: &str, bytes: &[u8], count: usize) -> usize {
    let sender = UdpSocket::bind((source, 0)).unwrap();
    let to: SocketAddr = receiver.local_addr().unwrap();
    for _ in 0..count {
        sender.send_to(bytes, to).unwrap();
    }
    let mut buffer = [0; 200];
    std::iter::from_fn(|| receiver.recv(&mut buffer).ok()).count()
}

fn announce() -> [u8; 98] {
    let mut bytes = [0; 98];
    bytes[11] = 1;
    bytes
}

#[test]
fn the_kernel_filters_by_it() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let network = |text: &str| text.parse::<Prefix>().unwrap();
    let networks = [
        (network("127.0.1.0/24"), 0),
        (network("127.0.1.7/32"), Share::MAX),
        (network("127.0.2.0/24"), 1 << 31),
    ];
    let filter = DropFilter::new(Family::V4, &networks, 0);
    sys::attach_filter(receiver.as_fd(), &filter.program()).unwrap();
    let (announce, connect) = (announce(), [0; 16]);
    assert_eq!(arrive(&receiver, "127.0.0.1", &announce, 20), 20);
    for connect in [&connect[..], &[0; 17], &[0; 98]] {
        assert_eq!(arrive(&receiver, "127.0.0.1", connect, 20), 0);
    }
    assert_eq!(arrive(&receiver, "127.0.1.7", &connect, 20), 20);
    assert_eq!(arrive(&receiver, "127.0.1.1", &announce, 20), 0);
    assert_eq!(arrive(&receiver, "127.0.1.7", &announce, 20), 20);
    let half = arrive(&receiver, "127.0.2.1", &announce, 60);
    assert!((5..=55).contains(&half), "{half} of 60");
    sys::detach_filter(receiver.as_fd()).unwrap();
    assert_eq!(arrive(&receiver, "127.0.1.1", &announce, 20), 20);
}

#[test]
fn the_kernel_takes_the_largest_filters() {
    let mut rng = SmallRng::seed_from_u64(7);
    for (family, address) in [(Family::V4, "127.0.0.1:0"), (Family::V6, "[::1]:0")] {
        let Ok(receiver) = UdpSocket::bind(address) else { continue };
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let networks: Vec<(Prefix, Share)> = (0..MAX_NETWORKS)
            .map(|_| match family {
                Family::V4 => (Prefix::of(Ipv4Addr::from_bits(rng.random()).into(), 32), 1),
                Family::V6 => (Prefix::of(Ipv6Addr::from_bits(rng.random()).into(), 64), 1),
            })
            .collect();
        let mut filter = DropFilter::new(family, &networks, 1);
        sys::attach_filter(receiver.as_fd(), &filter.program()).unwrap();
        if family == Family::V6 {
            assert_eq!(arrive(&receiver, "::1", &announce(), 20), 20);
            filter.networks[5].0 = Prefix::of("::1".parse().unwrap(), 64);
            filter.networks[5].1 = 0;
            sys::attach_filter(receiver.as_fd(), &filter.program()).unwrap();
            assert_eq!(arrive(&receiver, "::1", &announce(), 20), 0);
        }
    }
}

/// Networks of a crowd.
fn crowd(rng: &mut SmallRng, family: Family, count: usize) -> Vec<IpAddr> {
    (0..count)
        .map(|_| match family {
            Family::V4 => Ipv4Addr::from_bits(rng.random()).into(),
            Family::V6 => Ipv6Addr::from_bits(rng.random()).into(),
        })
        .collect()
}

fn set(rng: &mut SmallRng, family: Family, networks: &[IpAddr]) -> NetworkSet {
    NetworkSet::new(family, rng.random(), networks.iter().copied())
}

#[test]
fn a_program_with_a_crowd_agrees_with_the_definition() {
    let mut rng = SmallRng::seed_from_u64(2);
    for (family, count) in
        Family::ALL.into_iter().flat_map(|family| [0, 5, 33, 1000, 2600, 3000, 8192].map(|n| (family, n)))
    {
        let networks = random_networks(&mut rng, family);
        let sources = crowd(&mut rng, family, count);
        let set = set(&mut rng, family, &sources);
        let (connects, share) = (rng.random(), rng.random());
        let filter = DropFilter::new(family, &networks, connects).with_crowd(set, share);
        let program = filter.program();
        assert!(program.len() <= 4096, "{} instructions", program.len());
        let others: Vec<IpAddr> = (0..300).map(|_| crowd(&mut rng, family, 1)[0]).collect();
        for &source in sources.iter().take(300).chain(&others) {
            let (action, random) = ([CONNECT, 1][rng.random_range(0..2)], rng.random());
            let expected = filter.share(source, action == CONNECT);
            let passes_by_share = expected == Share::MAX || random < expected;
            assert_eq!(passes(&program, source, action, random), passes_by_share, "{source} {expected}");
        }
    }
}

#[test]
fn few_others_are_taken_for_a_crowd() {
    let mut rng = SmallRng::seed_from_u64(3);
    for (count, most) in [(500, 0.0), (2048, 0.0), (2600, 0.0), (4096, 0.06), (8192, 0.2)] {
        for family in Family::ALL {
            let sources = crowd(&mut rng, family, count);
            let set = set(&mut rng, family, &sources);
            assert!(sources.iter().all(|&source| set.contains(source)));
            let others = crowd(&mut rng, family, 20_000);
            let share = others.iter().filter(|&&other| set.contains(other)).count() as f64 / 20_000.0;
            // Some others are in networks of the crowd.
            assert!(share <= most + 0.001, "{count}: {share}");
        }
    }
}

/// With as many networks as can be told apart, and with those that a Bloom filter needs, of either family.
#[test]
fn the_largest_programs_have_room() {
    let mut rng = SmallRng::seed_from_u64(4);
    for (family, count) in [(Family::V4, 3000), (Family::V6, 2600), (Family::V4, 8192), (Family::V6, 8192)] {
        let (longest, around) = if family == Family::V4 { (32, 16) } else { (64, 48) };
        let mut networks: Vec<(Prefix, Share)> = crowd(&mut rng, family, MAX_NETWORKS)
            .into_iter()
            .map(|ip| (Prefix::of(ip, longest), rng.random()))
            .collect();
        // What is around others adds a range between each two of them.
        let outer = crowd(&mut rng, family, 1)[0];
        let nested = (1..MAX_NETWORKS as u128).map(|number| {
            let ip = match outer {
                IpAddr::V4(ip) => {
                    IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !0xffff | (2 * number as u32)))
                }
                IpAddr::V6(ip) => {
                    IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (!0 << 80) | ((2 * number) << 64)))
                }
            };
            (Prefix::of(ip, longest), rng.random())
        });
        let nested: Vec<_> = [(Prefix::of(outer, around), 1)].into_iter().chain(nested).collect();
        let sources = crowd(&mut rng, family, count);
        let set = set(&mut rng, family, &sources);
        let length =
            |networks: &[_]| DropFilter::new(family, networks, 1).with_crowd(set.clone(), 1).program().len();
        let apart = length(&networks);
        networks = nested;
        let nested = length(&networks);
        assert!(apart < nested && nested <= 4096, "{family:?} {count}: {apart} and {nested} instructions");
    }
}

#[test]
fn the_kernel_drops_a_crowd() {
    let mut rng = SmallRng::seed_from_u64(8);
    for (family, address, own) in [(Family::V4, "127.0.0.1:0", "127.3.2.1"), (Family::V6, "[::1]:0", "::1")] {
        let Ok(receiver) = UdpSocket::bind(address) else { continue };
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let networks = random_networks(&mut rng, family);
        for (count, is_flagged, expected) in
            [(1000, true, 0), (1000, false, 20), (2700, true, 0), (5000, true, 0)]
        {
            let mut sources = crowd(&mut rng, family, count);
            if is_flagged {
                sources.push(own.parse().unwrap());
            }
            let set = set(&mut rng, family, &sources);
            let filter = DropFilter::new(family, &networks, Share::MAX).with_crowd(set, 0);
            match sys::attach_filter(receiver.as_fd(), &filter.program()) {
                // net.core.optmem_max is too low, as it was by default before Linux 6.7.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => return,
                attached => attached.unwrap(),
            }
            assert_eq!(arrive(&receiver, own, &[0; 98], 20), expected, "{own} {is_flagged}");
        }
    }
}
