//! Command line and configuration of the tracker. Selects the services and composes them; what a service does
//! is in its crate.

#![forbid(unsafe_code)]

mod compose;
mod config;
mod environment;
mod memory;
mod reload;

use std::process::ExitCode;

use aquatic_cli_helpers::{ConfigFlags, run_scoped};
use clap::{ArgAction, Parser, Subcommand};

use crate::config::Mode;

const EXAMPLES: &str = "\
Examples:
  aquatic all                    Serve all protocols on port 6969, all cores
  aquatic all -p > tracker.toml  Write a commented configuration to start from
  aquatic all -c tracker.toml    Serve as configured
  aquatic all -c tracker.toml --check-config    Report its faults

Announce URLs: udp://HOST:6969/announce, also with http, https, ws and wss.
Ctrl-C and SIGTERM stop it; SIGHUP reloads configuration and files.

Exit codes: 0 success, 1 configuration, 2 command line, 3 failure, 101 a bug.";

/// A BitTorrent tracker: tells the clients of a torrent about each other.
#[derive(Debug, Parser)]
#[command(name = "aquatic", version, propagate_version = true, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    service: Service,

    /// Print the version and exit
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The services this program can run.
#[derive(Debug, Subcommand)]
enum Service {
    /// Serve all protocols on one UDP and one TCP port
    All(ConfigFlags),
    /// Serve clients over UDP (BEP 15)
    Udp(ConfigFlags),
    /// Serve clients over HTTP or HTTPS (BEP 3, 7, 23, 48)
    Http(ConfigFlags),
    /// Introduce browsers to each other over WebSocket (WebTorrent)
    Ws(ConfigFlags),
}

fn main() -> ExitCode {
    let (flags, mode) = match Cli::parse().service {
        Service::All(flags) => (flags, Mode::All),
        Service::Udp(flags) => (flags, Mode::Udp),
        Service::Http(flags) => (flags, Mode::Http),
        Service::Ws(flags) => (flags, Mode::Ws),
    };
    run_scoped(&flags, &mode, |config| compose::run(&config, mode, &flags))
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
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
