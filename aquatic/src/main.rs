//! Command line and configuration of the tracker. Selects the services and composes them; what a service does is in its
//! crate.

#![forbid(unsafe_code)]

mod compose;
mod config;

use std::process::ExitCode;

use aquatic_cli_helpers::{ConfigFlags, run_scoped};
use clap::{ArgAction, Parser, Subcommand};

use crate::config::Mode;

const EXAMPLES: &str = "\
Examples:
  aquatic udp                    Serve on port 6969, IPv4 and IPv6, all cores
  aquatic http -p > http.toml    Write a commented configuration to start from
  aquatic http -c http.toml      Serve as configured
  aquatic http -c http.toml --check-config
                                 Report all faults without starting

Announce URLs: udp://HOST:6969/announce, also with http, https, ws and wss.
Ctrl-C and SIGTERM stop it; SIGHUP reads access list and certificate again.

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
    /// Serve clients over UDP (BEP 15)
    Udp(ConfigFlags),
    /// Serve clients over HTTP or HTTPS (BEP 3, 7, 23, 48)
    Http(ConfigFlags),
    /// Introduce browsers to each other over WebSocket (WebTorrent)
    Ws(ConfigFlags),
}

fn main() -> ExitCode {
    match Cli::parse().service {
        Service::Udp(flags) => run_scoped(&flags, &Mode::Udp, compose::run_udp),
        Service::Http(flags) => run_scoped(&flags, &Mode::Http, compose::run_http),
        Service::Ws(flags) => run_scoped(&flags, &Mode::Ws, compose::run_ws),
    }
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
