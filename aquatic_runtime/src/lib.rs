//! aquatic_runtime
