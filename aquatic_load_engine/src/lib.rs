//! aquatic_load_engine
