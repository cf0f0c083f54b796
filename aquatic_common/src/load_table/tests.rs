//! Properties of load tables, over random sources.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use super::*;

const LINES: u32 = 8;

/// A generator that suffices for tests; this crate has no source of randomness.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn v4(&mut self) -> IpAddr {
        Ipv4Addr::from_bits(self.next() as u32).into()
    }

    fn ip(&mut self) -> IpAddr {
        if self.next().is_multiple_of(2) {
            self.v4()
        } else {
            Ipv6Addr::from_bits(u128::from(self.next()) << 64 | u128::from(self.next())).into()
        }
    }
}

fn allowance(rate: f64, burst: f64) -> Allowance {
    Allowance { rate, burst, multiples: [1, 16, 64] }
}

fn table(seed: u64, allowance: &Allowance) -> LoadTable {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    LoadTable::new(LINES, key, allowance.decay_per_second())
}

/// Whether a source is limited when it asks evenly at a rate, for some seconds, among `others` requests of
/// random sources per millisecond.
fn limited(seed: u64, allowance: &Allowance, rate: f64, seconds: u64, others: u64) -> u64 {
    let mut random = Random(seed);
    let (mut table, source) = (table(seed, allowance), random.ip());
    let (prices, mut limited, mut sent) = (allowance.prices(), 0, 0);
    for now in 0..seconds * 1000 {
        for _ in 0..others {
            let _ = table.try_add(random.ip(), now, prices);
        }
        while (sent as f64) < (now as f64) * rate / 1000.0 {
            sent += 1;
            limited += u64::from(table.try_add(source, now, prices).is_err());
        }
    }
    limited
}

#[test]
fn a_source_is_never_limited_at_its_rate_whatever_others_do() {
    for seed in 0..5 {
        for (rate, burst) in [(1.0, 1.0), (10.0, 3.0), (1000.0, 100.0), (2000.0, 20_000.0), (5000.0, 1.0)] {
            for others in [0, 1, 30] {
                let seconds = if others == 30 { 2 } else { 20 };
                let count = limited(seed, &allowance(rate, burst), rate, seconds, others);
                assert_eq!(count, 0, "seed {seed}, rate {rate}, burst {burst}, others {others}");
            }
        }
    }
}

#[test]
fn a_burst_is_served_and_more_is_not() {
    let allowance = allowance(10.0, 100.0);
    let mut table = table(1, &allowance);
    let source = Random(1).v4();
    let served = (0..1000).filter(|_| table.try_add(source, 7, allowance.prices()).is_ok()).count();
    assert_eq!(served, 101);
    // A tenth of the load has gone after a second.
    let served = (0..1000).filter(|_| table.try_add(source, 1007, allowance.prices()).is_ok()).count();
    assert!((9..=11).contains(&served), "{served}");
}

#[test]
fn the_rate_is_what_a_heavy_source_gets() {
    let allowance = allowance(100.0, 200.0);
    let mut table = table(1, &allowance);
    let source = Random(1).ip();
    let served =
        (10_000..70_000).filter(|&now| table.try_add(source, now, allowance.prices()).is_ok()).count();
    // A burst at first, then the rate for a minute.
    assert!((6000..=6400).contains(&served), "{served}");
}

#[test]
fn heavy_sources_are_found_among_many_light_ones() {
    let allowance = allowance(100.0, 50.0);
    let (mut found, mut missed) = (0, 0);
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut table = table(seed, &allowance);
        let heavy: Vec<IpAddr> = (0..10).map(|_| random.v4()).collect();
        // 10 sources at twice the rate; 20,000 new sources a second, in a table of 1,792 slots.
        let mut limited = [0_u32; 10];
        for now in 0..5000_u64 {
            for _ in 0..20 {
                let _ = table.try_add(random.v4(), now, allowance.prices());
            }
            if now.is_multiple_of(5) {
                for (source, limited) in heavy.iter().zip(&mut limited) {
                    *limited += u32::from(table.try_add(*source, now, allowance.prices()).is_err());
                }
            }
        }
        // Of 1,000 requests 500 are above the rate, less the burst.
        found += limited.iter().filter(|&&count| count > 300).count();
        missed += limited.iter().filter(|&&count| count <= 300).count();
    }
    assert!(found as f64 > 0.99 * (found + missed) as f64, "{found} found, {missed} missed");
}

#[test]
fn networks_are_limited_at_multiples() {
    let allowance = Allowance { rate: 10.0, burst: 10.0, multiples: [1, 4, 8] };
    for (base, step_24, prefixes) in
        [(0x0A00_0000_u128, 1_u128 << 8, false), (0x2001_0db8_u128 << 96, 1 << 72, true)]
    {
        let address = |bits: u128| -> IpAddr {
            if prefixes { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
        };
        let step = if prefixes { 1 << 64 } else { 1 };
        let mut near = table(3, &allowance);
        let served =
            (0..100).map(|number| near.try_add(address(base + number * step), 0, allowance.prices()));
        let served: Vec<_> = served.collect();
        assert_eq!(served.iter().filter(|served| served.is_ok()).count(), 41, "one /24 or /56");
        assert_eq!(served[99], Err(1));
        let mut wide = table(3, &allowance);
        let of_network = |number: u128| address(base + number % 4 * step_24 + number / 4 * step);
        let served: Vec<_> =
            (0..200).map(|number| wide.try_add(of_network(number), 0, allowance.prices())).collect();
        assert_eq!(served.iter().filter(|served| served.is_ok()).count(), 81, "one /20 or /48");
        assert_eq!(served[199], Err(2));
    }
}

#[test]
fn loads_decay_right_over_any_pause() {
    let source = Random(1).v4();
    for pause in [1_u32, 63, 64, 65, 1000, 4095, 4096, 10_000, 60_000, 100_000] {
        let mut table = LoadTable::new(LINES, [1; 16], 0.1);
        let before = f64::from(table.add(source, 5, [MAX_LOAD / 3; LEVELS])[0]);
        let expected = before * (-0.1 * f64::from(pause) / 1000.0).exp();
        let left = f64::from(table.loads(source, 5 + u64::from(pause))[0]);
        assert!((left - expected).abs() < expected * 1e-6 + 2.0, "{pause}: {left} {expected}");
    }
}

#[test]
fn loads_do_not_decay_at_speed_zero_and_vanish_at_a_high_one() {
    let source = Random(1).v4();
    let mut table = LoadTable::new(LINES, [1; 16], 0.0);
    let loads = table.add(source, 5, [1 << 20; LEVELS]);
    assert_eq!(table.loads(source, 1 << 40), loads);
    table.set_decay(1e6);
    assert_eq!(table.loads(source, 1 << 40), loads);
    assert_eq!(table.loads(source, (1 << 40) + 1), [0; LEVELS]);
    table.set_decay(f64::MAX);
    let _ = table.add(source, 1 << 50, [1 << 20; LEVELS]);
    assert_eq!(table.loads(source, u64::MAX), [0; LEVELS]);
}

/// A change of the scale is seen by nobody but who asks.
#[test]
fn loads_are_the_same_before_and_after_a_halving() {
    let mut random = Random(3);
    let sources: Vec<IpAddr> = (0..30).map(|_| random.ip()).collect();
    // Half of a load is left after 693 ms.
    let mut table = LoadTable::new(LINES, [1; 16], 1.0);
    for (number, source) in sources.iter().enumerate() {
        table.add(*source, 600, [1 << 20 | (number as u32) << 12; LEVELS]);
    }
    let loads = |table: &mut LoadTable, now| -> Vec<f64> {
        sources.iter().map(|source| f64::from(table.loads(*source, now)[0])).collect()
    };
    let before = loads(&mut table, 693);
    let after = loads(&mut table, 694);
    assert!(before.iter().zip(&after).all(|(before, after)| (before * 0.999 - after).abs() < 10.0));
}

#[test]
fn many_small_pauses_are_as_one() {
    let source = Random(1).v4();
    for step in [1, 7, 64, 250] {
        let mut table = LoadTable::new(LINES, [1; 16], 0.5);
        table.add(source, 0, [1 << 31; LEVELS]);
        let mut load = 0;
        for now in (0..=2000).step_by(step) {
            [load, ..] = table.loads(source, now);
        }
        let expected = 2_f64.powi(31) * (-0.5_f64 * ((2000 / step * step) as f64) / 1000.0).exp();
        assert!((f64::from(load) - expected).abs() < expected * 1e-4, "{step}: {load} {expected}");
    }
}

#[test]
fn a_clock_that_stands_still_or_goes_back_changes_nothing() {
    let source = Random(1).v4();
    let mut table = LoadTable::new(LINES, [1; 16], 1.0);
    let loads = table.add(source, 5000, [1000; LEVELS]);
    for now in [5000, 5000, 4000, 0, 5000] {
        assert_eq!(table.loads(source, now), loads);
    }
    assert_eq!(table.loads(source, u64::MAX), [0; LEVELS], "a very long pause");
    let fresh = table.add(source, 0, [3000; LEVELS]);
    assert!(fresh.iter().all(|load| (2998..=3000).contains(load)), "{fresh:?}");
}

#[test]
fn loads_end_at_their_maximum() {
    let mut table = LoadTable::new(LINES, [1; 16], 1.0);
    let source = Random(1).v4();
    for _ in 0..3 {
        table.add(source, 0, [MAX_LOAD / 2; LEVELS]);
    }
    assert_eq!(table.loads(source, 0), [MAX_LOAD; LEVELS]);
    assert_eq!(table.add(source, 0, [u32::MAX; LEVELS]), [MAX_LOAD; LEVELS]);
    assert_eq!(table.try_add(source, 0, [1; LEVELS]), Err(0));
}

#[test]
fn memory_is_fixed() {
    let mut table = LoadTable::new(12, [1; 16], 1.0);
    assert_eq!(table.bytes(), 256 * 1024);
    let mut random = Random(1);
    for now in 0..100_000 {
        table.add(random.ip(), now / 100, [1000; LEVELS]);
    }
    assert_eq!(table.bytes(), 256 * 1024);
    assert_eq!(LoadTable::new(60, [1; 16], 1.0).bytes(), 64 << MAX_LINES_LOG2);
}

#[test]
fn families_and_lengths_have_keys_of_their_own() {
    let table = LoadTable::new(LINES, [1; 16], 1.0);
    let of = |ip: &str| table.hashes(ip.parse().unwrap());
    let mut all = [of("0.0.0.0"), of("::"), of("0:0:0:1::"), of("0.0.0.1")].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2 * LEVELS + 2, "the last two are in networks of the first two");
}

/// Neighbours, as an attacker would choose them, are spread over lines and fingerprints like random numbers.
#[test]
fn neighbours_are_spread_whatever_the_key() {
    let v4 = |number: u64| IpAddr::from(Ipv4Addr::from_bits(10 << 24 | number as u32));
    let v6 = |number: u64| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 64).into();
    // Level, and distance of neighbours in it.
    let (v4_levels, v6_levels) = ([(0, 1), (1, 1 << 8), (2, 1 << 12)], [(0, 1), (1, 1 << 8), (2, 1 << 16)]);
    for seed in 0..20 {
        let table = LoadTable::new(12, [seed; 16], 1.0);
        for (level, step) in v4_levels {
            check_spread(|number| table.hashes(v4(number * step))[level]);
        }
        for (level, step) in v6_levels {
            check_spread(|number| table.hashes(v6(number * step))[level]);
        }
    }
}

fn check_spread(hash: impl Fn(u64) -> u64) {
    let hashes: Vec<u64> = (0..4096).map(hash).collect();
    let mut lines = [0_u32; 4096];
    hashes.iter().for_each(|hash| lines[*hash as usize & 4095] += 1);
    let most = lines.iter().max().unwrap();
    assert!(*most <= 12, "{most} in one line");
    let mut fingerprints: Vec<u32> = hashes.iter().map(|hash| (hash >> 32) as u32).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert!(fingerprints.len() > 4090, "{} fingerprints", fingerprints.len());
}

#[test]
fn keys_of_a_batch_may_be_made_before_it_is_charged() {
    let allowance = allowance(10.0, 20.0);
    let (mut one, mut other) = (table(1, &allowance), table(1, &allowance));
    let mut random = Random(1);
    for now in 0..1000 {
        let sources: Vec<IpAddr> = (0..64).map(|_| random.ip()).collect();
        let keys: Vec<SourceKey> = sources.iter().map(|&source| one.key(source)).collect();
        for (&source, key) in sources.iter().zip(keys) {
            let (prices, expected) = (allowance.prices(), other.add(source, now, allowance.prices()));
            assert_eq!(one.add_by_key(key, now, prices), expected);
        }
    }
}
