//! Parts of the hash space, and the nodes that hold each (rendezvous hashing).

/// Number of parts.
pub const PARTS: usize = 256;

/// Maximum number of nodes that hold a part.
pub const MAX_REPLICAS: usize = 8;

/// Set of parts: bit `part % 8` of byte `part / 8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bitmap(pub [u8; 32]);

impl Bitmap {
    /// All parts.
    pub const ALL: Self = Self([u8::MAX; 32]);

    /// Adds a part.
    pub fn insert(&mut self, part: u8) {
        self.0[usize::from(part / 8)] |= 1 << (part % 8);
    }

    /// Whether the part is in the set.
    #[must_use]
    pub fn contains(&self, part: u8) -> bool {
        self.0[usize::from(part / 8)] & (1 << (part % 8)) != 0
    }

    /// Parts of either set.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] | other.0[index]))
    }

    /// Parts of this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] & !other.0[index]))
    }

    /// Whether there is no part in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Number of parts.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

/// Nodes that hold each part, best first, as indexes of the list of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    replicas: usize,
    holders: Vec<[u16; MAX_REPLICAS]>,
}

impl Holders {
    /// Chooses the holders of all parts among the members, whose names must differ. Each node computes the
    /// same from the same key and names, in whatever order they are. A member that joins or leaves changes
    /// the holders of as many parts as it holds, and no others.
    #[must_use]
    pub fn choose(key: &[u8; 32], replicas: usize, members: &[&str]) -> Self {
        let replicas = replicas.clamp(1, MAX_REPLICAS).min(members.len());
        let mut holders = Vec::with_capacity(PARTS);
        for part in 0..=u8::MAX {
            let mut ranked: Vec<([u8; 32], u16)> = (0..)
                .zip(members)
                .map(|(index, name)| {
                    let mut hasher = blake3::Hasher::new_keyed(key);
                    hasher.update(&[part]).update(name.as_bytes());
                    (*hasher.finalize().as_bytes(), index)
                })
                .collect();
            ranked.sort_unstable_by(|a, b| b.cmp(a));
            let mut best = [0; MAX_REPLICAS];
            for (slot, (_, member)) in best.iter_mut().zip(ranked.iter().take(replicas)) {
                *slot = *member;
            }
            holders.push(best);
        }
        Self { replicas, holders }
    }

    /// Indexes of the members that hold a part, best first.
    #[must_use]
    pub fn of(&self, part: u8) -> &[u16] {
        self.holders.get(usize::from(part)).and_then(|best| best.get(..self.replicas)).unwrap_or_default()
    }

    /// Parts that a member holds.
    #[must_use]
    pub fn held_by(&self, member: u16) -> Bitmap {
        let mut held = Bitmap::default();
        for part in 0..=u8::MAX {
            if self.of(part).contains(&member) {
                held.insert(part);
            }
        }
        held
    }
}
