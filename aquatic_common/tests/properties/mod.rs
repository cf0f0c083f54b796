//! What holds for any sequence of requests that a load table is told of. For the tests and the fuzz target
//! `load_table`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aquatic_common::load_table::{LEVELS, LoadTable, Loads, MAX_LOAD, lengths};

/// Load that rounding may explain, of which the scale of stored loads adds up to a part in 2^31 each time.
const TOLERANCE: f64 = 4.0;

/// The maximum load of each key, by arithmetic without a table: the latest time at its last request, in
/// milliseconds, and the load then. A table whose clock has gone back counts on from the latest time of each
/// line, so a load decays at least from then on.
#[derive(Default)]
struct Model {
    decay_per_second: f64,
    loads: HashMap<(IpAddr, u8), (u64, f64)>,
}

impl Model {
    fn key(source: IpAddr, length: u8) -> (IpAddr, u8) {
        let ip = match source {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() >> (32 - length) << (32 - length)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> (128 - length) << (128 - length)).into(),
        };
        (ip, length)
    }

    fn load(&self, source: IpAddr, length: u8, now: u64) -> f64 {
        let Some((since, load)) = self.loads.get(&Self::key(source, length)) else { return 0.0 };
        load * (-self.decay_per_second * now.saturating_sub(*since) as f64 / 1000.0).exp()
    }

    fn add(&mut self, source: IpAddr, (now, latest): (u64, u64), prices: Loads) {
        for (length, price) in lengths(source).into_iter().zip(prices) {
            let load = (self.load(source, length, now) + f64::from(price)).min(f64::from(MAX_LOAD));
            self.loads.insert(Self::key(source, length), (latest, load));
        }
    }
}

/// Runs a sequence: a byte for the size of the table, one for the speed of decay, and then for each request a
/// byte for what it is, whether its key is made first, and how much later it comes, two for its source and
/// one for its price.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let [lines, decay, requests @ ..] = bytes else { return };
    let decay_per_second = f64::from(*decay) / 16.0;
    let mut table = LoadTable::new(u32::from(lines % 5), [*lines; 16], decay_per_second);
    let mut model = Model { decay_per_second, ..Model::default() };
    let (size, mut now, mut latest) = (table.bytes(), 0_u64, 0_u64);
    for request in requests.chunks_exact(4) {
        let [what, network, host, price] = request else { continue };
        now = time_of(*what, now);
        latest = latest.max(now);
        let source = source(*what, *network, *host);
        let prices = [24, 20, 16].map(|shift| u32::from(*price) << shift);
        check_request(&mut table, &mut model, (*what, source, prices), (now, latest));
        assert_eq!(table.bytes(), size);
    }
}

/// The time of a request: later by nothing, milliseconds, seconds or an hour, or earlier.
fn time_of(what: u8, now: u64) -> u64 {
    match what >> 5 {
        0..=2 => now,
        3 => now + 1,
        4 => now + 63,
        5 => now + 5000,
        6 => now + 3_600_000,
        _ => now.saturating_sub(100),
    }
}

fn source(what: u8, network: u8, host: u8) -> IpAddr {
    if what & 4 == 0 {
        Ipv4Addr::new(10, network, network, host).into()
    } else {
        Ipv6Addr::from_bits(0x2001 << 112 | u128::from(network) << 72 | u128::from(host) << 64 | 1).into()
    }
}

/// A source is never charged for more than it asked for, and served as long as that leaves room.
fn check_request(
    table: &mut LoadTable,
    model: &mut Model,
    (what, source, prices): (u8, IpAddr, Loads),
    (now, latest): (u64, u64),
) {
    let at_most = |model: &Model| {
        let lengths = lengths(source);
        std::array::from_fn::<f64, LEVELS, _>(|level| model.load(source, lengths[level], now) + TOLERANCE)
    };
    let before = at_most(model);
    if what & 3 == 0 {
        let loads = table.loads(source, now);
        assert!(
            loads.iter().zip(before).all(|(load, most)| f64::from(*load) <= most),
            "{loads:?} {before:?}"
        );
        return;
    }
    if what & 3 == 1 {
        let loads = if what & 8 == 0 {
            table.add(source, now, prices)
        } else {
            table.add_by_key(table.key(source), now, prices)
        };
        model.add(source, (now, latest), prices);
        let after = at_most(model);
        assert!(loads.iter().zip(after).all(|(load, most)| f64::from(*load) <= most), "{loads:?} {after:?}");
        return;
    }
    let charged = if what & 8 == 0 {
        table.try_add(source, now, prices)
    } else {
        table.try_add_by_key(table.key(source), now, prices)
    };
    match charged {
        Ok(()) => model.add(source, (now, latest), prices),
        Err(level) => {
            let wanted = before[level] + f64::from(prices[level]);
            assert!(wanted >= f64::from(MAX_LOAD), "limited at {wanted}");
        }
    }
}
