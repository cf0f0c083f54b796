//! Command line and configuration of the tracker. Selects the services and composes them; what a service does
//! is in its crate, and what the other subcommands do is in `commands`.

#![forbid(unsafe_code)]

mod cluster;
mod commands;
mod compose;
mod config;
mod control;
mod environment;
mod memory;
mod reload;
mod status;
mod summary;

use std::process::ExitCode;

use aquatic_runtime::{handover, ignore_file_size_signal};
use clap::{ArgAction, Parser};

use crate::commands::Command;

const EXAMPLES: &str = "\
Examples:
  aquatic all -p > tracker.toml  Write a commented configuration to start from
  aquatic all -c tracker.toml    Serve all protocols as configured";

const MORE: &str = "\
Examples:
  aquatic all                    Serve all protocols on port 6969, all cores
  aquatic all -p > tracker.toml  Write a commented configuration to start from
  aquatic all -c tracker.toml    Serve as configured
  aquatic all -c tracker.toml --check-config    Report its faults

Announce URLs: udp://HOST:6969/announce, also with http, https, ws and wss.
Ctrl-C and SIGTERM stop it; SIGHUP reloads configuration and files.

For packages: `aquatic completions bash|zsh|fish` and `aquatic man DIRECTORY`.

Exit codes: 0 success, 1 configuration, 2 command line, 3 failure, 101 a bug.";

/// Version, and what the program was built from.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("AQUATIC_BUILD_COMMIT"),
    "\nfeatures: ",
    env!("AQUATIC_BUILD_FEATURES"),
    "\ntarget: ",
    env!("AQUATIC_BUILD_TARGET"),
);

/// A BitTorrent tracker: tells the clients of a torrent about each other.
#[derive(Debug, Parser)]
#[command(name = "aquatic", version, long_version = BUILD, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = MORE)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print the version and exit; --version also prints commit, features and target
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

fn main() -> ExitCode {
    ignore_file_size_signal();
    handover::keep_successor().unwrap_or_else(|| Cli::parse().command.run())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_a_screen() {
        let help = Cli::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        let long = Cli::command().term_width(80).render_long_help().to_string();
        for line in help.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
