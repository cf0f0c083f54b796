//! aquatic_cli_helpers
