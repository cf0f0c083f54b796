//! aquatic
