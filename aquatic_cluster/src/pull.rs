//! Pulls: a node asks another for peers, chunk by chunk with credit.
