//! The order within a swarm: seeders first, then leechers. Each change is told as the few moves that keep it so, which
//! the short list and the large swarm then carry out in their own way.

/// How many seeders and leechers sit in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    pub(crate) seeders: u32,
    pub(crate) len: u32,
}

/// Copy the peer at the first position to the second.
pub(crate) type Move = (u32, u32);

impl Seats {
    pub(crate) fn leechers(self) -> u32 {
        self.len - self.seeders
    }

    /// Makes room for one more. Returns its position, and a move to be made before it sits down.
    pub(crate) fn admit(&mut self, seeder: bool) -> (u32, Option<Move>) {
        let end = self.len;
        self.len += 1;
        if !seeder {
            return (end, None);
        }
        let at = self.seeders;
        self.seeders += 1;
        (at, (at != end).then_some((at, end)))
    }

    /// Closes the gap that the peer at a position leaves, by these moves in this order. The last position is then free.
    pub(crate) fn dismiss(&mut self, at: u32) -> [Option<Move>; 2] {
        let end = self.len - 1;
        self.len = end;
        if at >= self.seeders {
            return [(at != end).then_some((end, at)), None];
        }
        self.seeders -= 1;
        let last_seeder = self.seeders;
        [(at != last_seeder).then_some((last_seeder, at)), (last_seeder != end).then_some((end, last_seeder))]
    }

    /// Turns the peer at a position into a seeder or a leecher. Returns its new position; whoever is there takes the old
    /// one.
    pub(crate) fn turn(&mut self, at: u32, seeder: bool) -> u32 {
        match (at < self.seeders, seeder) {
            (false, true) => {
                self.seeders += 1;
                self.seeders - 1
            }
            (true, false) => {
                self.seeders -= 1;
                self.seeders
            }
            (true, true) | (false, false) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(list: &mut Vec<(char, bool)>, step: Option<Move>) {
        if let Some((from, to)) = step {
            list.resize(list.len().max(to as usize + 1), ('?', false));
            list[to as usize] = list[from as usize];
        }
    }

    fn check(list: &[(char, bool)], seats: Seats, expected: &str) {
        assert_eq!(list.len(), seats.len as usize);
        assert!(list.iter().enumerate().all(|(at, (_, seeder))| *seeder == (at < seats.seeders as usize)));
        let mut names: Vec<char> = list.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(names.into_iter().collect::<String>(), expected);
    }

    #[test]
    fn seeders_stay_in_front() {
        let (mut list, mut seats) = (Vec::new(), Seats::default());
        for (name, seeder) in [('a', false), ('b', true), ('c', false), ('d', true), ('e', true)] {
            let (at, step) = seats.admit(seeder);
            apply(&mut list, step);
            list.resize(seats.len as usize, ('?', false));
            list[at as usize] = (name, seeder);
        }
        check(&list, seats, "abcde");
        for at in 0..5 {
            let (mut list, mut seats) = (list.clone(), seats);
            let gone = list[at as usize].0;
            for step in seats.dismiss(at) {
                apply(&mut list, step);
            }
            list.truncate(seats.len as usize);
            check(&list, seats, &"abcde".replace(gone, ""));
        }
        for at in 0..5 {
            for seeder in [false, true] {
                let (mut list, mut seats) = (list.clone(), seats);
                let to = seats.turn(at, seeder);
                list.swap(at as usize, to as usize);
                list[to as usize].1 = seeder;
                check(&list, seats, "abcde");
            }
        }
    }
}
