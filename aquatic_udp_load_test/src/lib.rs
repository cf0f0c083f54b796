//! aquatic_udp_load_test
