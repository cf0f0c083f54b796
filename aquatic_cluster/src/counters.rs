//! Monotonic counters of nodes, and totals of the cluster.
