//! aquatic_udp_protocol
