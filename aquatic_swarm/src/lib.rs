//! aquatic_swarm
