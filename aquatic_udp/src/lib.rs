//! aquatic_udp
