//! Linear hashing: the number of buckets grows by one, splitting one bucket in two, and shrinks by one,
//! merging two. Any number of buckets is valid, so no operation ever moves more than one bucket.

/// Returns the bucket of a hash, out of `buckets`.
#[inline]
pub(crate) fn bucket(hash: u64, buckets: u32) -> u32 {
    let mask = u64::from(buckets).next_power_of_two() - 1;
    let wide = hash & mask;
    // Lossless: the mask is below 2^32.
    (if wide >= u64::from(buckets) { wide & (mask >> 1) } else { wide }) as u32
}

/// Returns the bucket that is split when the last of `buckets` (at least two) is added, and merged with it
/// when it is removed.
pub(crate) fn buddy(buckets: u32) -> u32 {
    let last = buckets - 1;
    last & !(1 << last.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_a_bucket_splits_only_its_buddy() {
        let hashes: Vec<u64> = (0..500_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7).collect();
        for buckets in 1..70 {
            for &hash in &hashes {
                let (before, after) = (bucket(hash, buckets), bucket(hash, buckets + 1));
                assert!(before < buckets);
                assert!(after == before || (after == buckets && before == buddy(buckets + 1)));
            }
        }
    }
}
