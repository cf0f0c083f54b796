//! Order of the peers of a swarm: seeders first, then leechers. Within a role the order of a list is
//! uniformly random, so that a run of adjacent peers is a random sample: a new peer is stored at a random
//! position of its role, whose previous peer moves to the end, and each announce swaps the peer with a random
//! peer of its role.
//!
//! Each change of a list is described by at most two moves. Large swarms order their peers themselves, see
//! `large.rs`.

use rand::Rng;

use crate::sample::below;

/// Number of seeders and of all peers. Seeders have the positions from 0, leechers those from `seeders`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerOrder {
    pub(crate) seeders: u32,
    pub(crate) len: u32,
}

/// Copies the peer at the first position to the second.
pub(crate) type Move = (u32, u32);

/// Moves in the order of execution. Each target position is free by then.
pub(crate) type Moves = [Option<Move>; 2];

impl PeerOrder {
    /// Returns the order of a single peer.
    pub(crate) fn of_one(seeder: bool) -> Self {
        Self { seeders: seeder.into(), len: 1 }
    }

    pub(crate) fn leechers(self) -> u32 {
        self.len - self.seeders
    }

    /// Adds one peer. Returns its position, and the moves to apply before it is written there.
    #[inline]
    pub(crate) fn insert(&mut self, seeder: bool, rng: &mut impl Rng) -> (u32, Moves) {
        let end = self.len;
        self.len += 1;
        if !seeder {
            let at = self.seeders + below(rng, self.leechers());
            return (at, [moved(at, end), None]);
        }
        let last = self.seeders;
        self.seeders += 1;
        let at = below(rng, self.seeders);
        (at, [moved(last, end), moved(at, last)])
    }

    /// Removes the peer at a position. Returns the moves that close the gap; the last position is free
    /// afterwards.
    #[inline]
    pub(crate) fn remove(&mut self, at: u32) -> Moves {
        let end = self.len - 1;
        self.len = end;
        if at >= self.seeders {
            return [moved(end, at), None];
        }
        self.seeders -= 1;
        [moved(self.seeders, at), moved(end, self.seeders)]
    }

    /// Changes the role of the peer at a position, which the caller has copied. Returns its new position, and
    /// the moves to apply before it is written there.
    #[inline]
    pub(crate) fn change_role(&mut self, at: u32, rng: &mut impl Rng) -> (u32, Moves) {
        let (between, to) = if at < self.seeders {
            self.seeders -= 1;
            (self.seeders, self.seeders + below(rng, self.leechers()))
        } else {
            self.seeders += 1;
            (self.seeders - 1, below(rng, self.seeders))
        };
        (to, [moved(between, at), moved(to, between)])
    }

    /// Returns a random position among those of the same role as the given one.
    #[inline]
    pub(crate) fn random_of_role(self, at: u32, rng: &mut impl Rng) -> u32 {
        if at < self.seeders { below(rng, self.seeders) } else { self.seeders + below(rng, self.leechers()) }
    }
}

#[inline]
fn moved(from: u32, to: u32) -> Option<Move> {
    (from != to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    /// A peer, or `None` while the position is free.
    type Entry = Option<(char, bool)>;

    fn apply(list: &mut Vec<Entry>, moves: Moves) {
        for (from, to) in moves.into_iter().flatten() {
            list.resize(list.len().max(to as usize + 1), None);
            assert_eq!(list[to as usize], None, "{from} to {to}");
            list[to as usize] = list[from as usize].take();
        }
    }

    fn put(list: &mut Vec<Entry>, at: u32, peer: (char, bool)) {
        list.resize(list.len().max(at as usize + 1), None);
        assert_eq!(list[at as usize].replace(peer), None);
    }

    fn check(list: &[Entry], order: PeerOrder, expected: &str) {
        assert_eq!(list.len(), order.len as usize);
        let mut names: Vec<char> = list.iter().flatten().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names.into_iter().collect::<String>(), expected);
        assert!(list.iter().enumerate().all(|(at, entry)| entry.unwrap().1 == (at < order.seeders as usize)));
    }

    #[test]
    fn seeders_come_before_leechers() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0x5ea7);
        for _ in 0..200 {
            let (mut list, mut order) = (Vec::new(), PeerOrder::default());
            for peer in [('a', false), ('b', true), ('c', false), ('d', true), ('e', true)] {
                let (at, moves) = order.insert(peer.1, &mut rng);
                apply(&mut list, moves);
                put(&mut list, at, peer);
            }
            check(&list, order, "abcde");
            for at in 0..5 {
                let (mut list, mut order) = (list.clone(), order);
                let gone = list[at as usize].take().unwrap().0;
                apply(&mut list, order.remove(at));
                assert_eq!(list.pop(), Some(None));
                check(&list, order, &"abcde".replace(gone, ""));
            }
            for at in 0..5 {
                let (mut list, mut order) = (list.clone(), order);
                let (name, seeder) = list[at as usize].take().unwrap();
                let (to, moves) = order.change_role(at, &mut rng);
                apply(&mut list, moves);
                put(&mut list, to, (name, !seeder));
                check(&list, order, "abcde");
                let other = order.random_of_role(to, &mut rng);
                assert_eq!(list[other as usize].unwrap().1, !seeder);
            }
        }
    }

    /// After any sequence of operations, each order of the seeders and of the leechers is equally likely.
    #[test]
    fn every_order_is_equally_likely() {
        const ROUNDS: u32 = 60_000;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0x0de5);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..ROUNDS {
            let (mut list, mut order) = (Vec::new(), PeerOrder::default());
            let insert = |list: &mut Vec<Entry>, order: &mut PeerOrder, peer: (char, bool), rng: &mut _| {
                let (at, moves) = order.insert(peer.1, rng);
                apply(list, moves);
                put(list, at, peer);
            };
            for peer in [('a', true), ('x', false), ('b', true), ('y', false), ('?', true), ('c', false)] {
                insert(&mut list, &mut order, peer, &mut rng);
            }
            let position =
                |list: &[Entry], name| list.iter().position(|entry| entry.unwrap().0 == name).unwrap();
            let gone = position(&list, '?');
            list[gone] = None;
            apply(&mut list, order.remove(gone as u32));
            list.pop();
            let changed = position(&list, 'c');
            list[changed] = None;
            let (to, moves) = order.change_role(changed as u32, &mut rng);
            apply(&mut list, moves);
            put(&mut list, to, ('c', true));
            insert(&mut list, &mut order, ('z', false), &mut rng);
            let order: String = list.iter().map(|entry| entry.unwrap().0).collect();
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 36);
        let mean = f64::from(ROUNDS) / 36.0;
        let chi: f64 = counts.values().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
        // Chi-square with 35 degrees of freedom: mean 35, standard deviation 8.4.
        assert!(chi < 35.0 + 4.0 * 8.4, "{chi}: {counts:?}");
    }
}
