//! Streams of batches with sequence numbers: duplicates, reordering and gaps.
