//! The order within a swarm: seeders first, then leechers. In lists it is random among peers of a role, so that those next
//! to each other are no more alike than any two, and a reply may take some in a row: whoever comes takes the place of
//! somebody chosen at random, who moves to the end, and whoever announces changes places.
//!
//! Each change of a list is told as the few moves that make it. Large swarms seat their peers themselves, see `large.rs`.

use rand::Rng;

use crate::sample::below;

/// How many seeders and leechers sit in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    pub(crate) seeders: u32,
    pub(crate) len: u32,
}

/// Copy the peer at the first position to the second.
pub(crate) type Move = (u32, u32);

/// Moves in their order, each to a position that is free by then.
pub(crate) type Moves = [Option<Move>; 2];

impl Seats {
    pub(crate) fn leechers(self) -> u32 {
        self.len - self.seeders
    }

    /// Makes room for one more. Returns its position, and the moves to be made before it sits down.
    #[inline]
    pub(crate) fn admit(&mut self, seeder: bool, rng: &mut impl Rng) -> (u32, Moves) {
        let end = self.len;
        self.len += 1;
        if !seeder {
            let at = self.seeders + below(rng, self.leechers());
            return (at, [step(at, end), None]);
        }
        let last = self.seeders;
        self.seeders += 1;
        let at = below(rng, self.seeders);
        (at, [step(last, end), step(at, last)])
    }

    /// Closes the gap that the peer at a position leaves. The last position is then free.
    #[inline]
    pub(crate) fn dismiss(&mut self, at: u32) -> Moves {
        let end = self.len - 1;
        self.len = end;
        if at >= self.seeders {
            return [step(end, at), None];
        }
        self.seeders -= 1;
        [step(self.seeders, at), step(end, self.seeders)]
    }

    /// Turns the peer at a position, who gets up, into one of the other role. Returns its new position, and the moves to be
    /// made before it sits down.
    #[inline]
    pub(crate) fn turn(&mut self, at: u32, rng: &mut impl Rng) -> (u32, Moves) {
        let (between, to) = if at < self.seeders {
            self.seeders -= 1;
            (self.seeders, self.seeders + below(rng, self.leechers()))
        } else {
            self.seeders += 1;
            (self.seeders - 1, below(rng, self.seeders))
        };
        (to, [step(between, at), step(to, between)])
    }

    /// A random position among the like of the peer at a position.
    #[inline]
    pub(crate) fn beside(self, at: u32, rng: &mut impl Rng) -> u32 {
        if at < self.seeders { below(rng, self.seeders) } else { self.seeders + below(rng, self.leechers()) }
    }
}

#[inline]
fn step(from: u32, to: u32) -> Option<Move> {
    (from != to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    /// A peer; `None` while nobody sits there.
    type Place = Option<(char, bool)>;

    fn apply(list: &mut Vec<Place>, steps: Moves) {
        for (from, to) in steps.into_iter().flatten() {
            list.resize(list.len().max(to as usize + 1), None);
            assert_eq!(list[to as usize], None, "{from} to {to}");
            list[to as usize] = list[from as usize].take();
        }
    }

    fn sit(list: &mut Vec<Place>, at: u32, peer: (char, bool)) {
        list.resize(list.len().max(at as usize + 1), None);
        assert_eq!(list[at as usize].replace(peer), None);
    }

    fn check(list: &[Place], seats: Seats, expected: &str) {
        assert_eq!(list.len(), seats.len as usize);
        let mut names: Vec<char> = list.iter().flatten().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names.into_iter().collect::<String>(), expected);
        assert!(list.iter().enumerate().all(|(at, place)| place.unwrap().1 == (at < seats.seeders as usize)));
    }

    #[test]
    fn seeders_stay_in_front() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0x5ea7);
        for _ in 0..200 {
            let (mut list, mut seats) = (Vec::new(), Seats::default());
            for peer in [('a', false), ('b', true), ('c', false), ('d', true), ('e', true)] {
                let (at, steps) = seats.admit(peer.1, &mut rng);
                apply(&mut list, steps);
                sit(&mut list, at, peer);
            }
            check(&list, seats, "abcde");
            for at in 0..5 {
                let (mut list, mut seats) = (list.clone(), seats);
                let gone = list[at as usize].take().unwrap().0;
                apply(&mut list, seats.dismiss(at));
                assert_eq!(list.pop(), Some(None));
                check(&list, seats, &"abcde".replace(gone, ""));
            }
            for at in 0..5 {
                let (mut list, mut seats) = (list.clone(), seats);
                let (name, seeder) = list[at as usize].take().unwrap();
                let (to, steps) = seats.turn(at, &mut rng);
                apply(&mut list, steps);
                sit(&mut list, to, (name, !seeder));
                check(&list, seats, "abcde");
                let beside = seats.beside(to, &mut rng);
                assert_eq!(list[beside as usize].unwrap().1, !seeder);
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
            let (mut list, mut seats) = (Vec::new(), Seats::default());
            let admit = |list: &mut Vec<Place>, seats: &mut Seats, peer: (char, bool), rng: &mut _| {
                let (at, steps) = seats.admit(peer.1, rng);
                apply(list, steps);
                sit(list, at, peer);
            };
            for peer in [('a', true), ('x', false), ('b', true), ('y', false), ('?', true), ('c', false)] {
                admit(&mut list, &mut seats, peer, &mut rng);
            }
            let position =
                |list: &[Place], name| list.iter().position(|place| place.unwrap().0 == name).unwrap();
            let gone = position(&list, '?');
            list[gone] = None;
            apply(&mut list, seats.dismiss(gone as u32));
            list.pop();
            let turned = position(&list, 'c');
            list[turned] = None;
            let (to, steps) = seats.turn(turned as u32, &mut rng);
            apply(&mut list, steps);
            sit(&mut list, to, ('c', true));
            admit(&mut list, &mut seats, ('z', false), &mut rng);
            let order: String = list.iter().map(|place| place.unwrap().0).collect();
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 36);
        let mean = f64::from(ROUNDS) / 36.0;
        let chi: f64 = counts.values().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
        // 35 degrees of freedom: a mean of 35, a standard deviation of 8.4.
        assert!(chi < 35.0 + 4.0 * 8.4, "{chi}: {counts:?}");
    }
}
