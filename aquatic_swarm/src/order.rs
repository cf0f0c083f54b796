//! The order within a swarm: seeders first, then leechers. In lists it is random among peers of a role, so that those next
//! to each other are no more alike than any two, and a reply may take some in a row: whoever comes takes the place of
//! somebody chosen at random, who moves to the end, and whoever announces changes places.
//!
//! Each change of a list is told as the few moves that make it. Large swarms seat their peers themselves, see `large.rs`.

use rand::Rng;

use crate::sample::below;

/// How many seeders and leechers sit in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerOrder {
    pub(crate) seeders: u32,
    pub(crate) len: u32,
}

/// Copy the peer at the first position to the second.
pub(crate) type Move = (u32, u32);

/// Moves in their order, each to a position that is free by then.
pub(crate) type Moves = [Option<Move>; 2];

impl PeerOrder {
    pub(crate) fn leechers(self) -> u32 {
        self.len - self.seeders
    }

    /// Makes room for one more. Returns its position, and the moves to be made before it sits down.
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

    /// Closes the gap that the peer at a position leaves. The last position is then free.
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

    /// Turns the peer at a position, who gets up, into one of the other role. Returns its new position, and the moves to be
    /// made before it sits down.
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

    /// A random position among the like of the peer at a position.
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

    /// A peer; `None` while nobody sits there.
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
    fn seeders_stay_in_front() {
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

    /// Whatever came and went, each order of the seeders and of the leechers is as likely as any other.
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
        // 35 degrees of freedom: a mean of 35, a standard deviation of 8.4.
        assert!(chi < 35.0 + 4.0 * 8.4, "{chi}: {counts:?}");
    }
}
