//! Linear hashing: a number of buckets that grows by one, splitting one old bucket in two, and shrinks by one, merging
//! two. Any number of buckets is valid, so no operation ever moves more than a bucket.

/// The bucket, out of `buckets`, that a hash belongs to.
#[inline]
pub(crate) fn bucket(hash: u64, buckets: u32) -> u32 {
    let mask = u64::from(buckets).next_power_of_two() - 1;
    let wide = hash & mask;
    // Truncates nothing: the mask is below 2^32.
    (if wide >= u64::from(buckets) { wide & (mask >> 1) } else { wide }) as u32
}

/// The bucket that shares its content with the last of `buckets` (at least two) when that one appears or disappears.
pub(crate) fn buddy(buckets: u32) -> u32 {
    let last = buckets - 1;
    last & !(1 << last.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_bucket_moves_only_from_its_buddy() {
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
