//! The subcommands. Those that serve clients are run by `compose`; each other one has a module with its flags
//! and what it does.

mod completions;
mod ctl;
mod doctor;
mod import_config;
mod manual;
mod probe;
mod upgrade;

use std::path::Path;
use std::process::ExitCode;

use aquatic_cli_helpers::{ConfigFlags, run_scoped};
use aquatic_common::settings::{Problem, Scope};
use clap::{Parser, Subcommand};

use crate::config::{Mode, TrackerConfig};
use crate::{Cli, compose, environment};

/// State directory of the packages' systemd unit, for commands that are not told which tracker is meant.
const USUAL_STATE_DIRECTORY: &str = "/var/lib/aquatic";

/// What the program is asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve all protocols on one UDP and one TCP port
    All(ConfigFlags),
    /// Serve clients over UDP (BEP 15)
    Udp(ConfigFlags),
    /// Serve clients over HTTP or HTTPS (BEP 3, 7, 23, 48)
    Http(ConfigFlags),
    /// Serve WebTorrent clients over WebSocket
    Ws(ConfigFlags),
    /// Query and control a running tracker
    Ctl(ctl::Ctl),
    /// Replace the running process while clients are served
    Upgrade(upgrade::Upgrade),
    /// Convert a configuration of aquatic 0.9 or opentracker
    ImportConfig(import_config::ImportConfig),
    /// Check this machine for the tracker, and print commands that fix it
    Doctor(doctor::Doctor),
    /// Test trackers as clients, list sites and browsers use them
    Probe(probe::Probe),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(completions::Completions),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(manual::Manual),
    /// Print the help of a subcommand, as --help does
    #[command(hide = true)]
    Help {
        /// The subcommand
        subcommand: Vec<String>,
    },
}

impl Command {
    /// Does what is asked, and returns how that ended.
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::All(flags) => serve(&flags, Mode::All),
            Self::Udp(flags) => serve(&flags, Mode::Udp),
            Self::Http(flags) => serve(&flags, Mode::Http),
            Self::Ws(flags) => serve(&flags, Mode::Ws),
            Self::Ctl(ctl) => ctl.run().into(),
            Self::Upgrade(upgrade) => upgrade.run().into(),
            Self::ImportConfig(import) => import.run().into(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Probe(probe) => probe.run(),
            Self::Completions(completions) => completions.run().into(),
            Self::Man(manual) => manual.run().into(),
            Self::Help { subcommand } => {
                let line = ["aquatic".to_owned()].into_iter().chain(subcommand).chain(["--help".to_owned()]);
                // It prints the help, or what is wrong, and ends the process.
                Cli::parse_from(line).command.run()
            }
        }
    }
}

fn serve(flags: &ConfigFlags, mode: Mode) -> ExitCode {
    let invocation = Invocation { mode, config_file: flags.config.as_deref() };
    run_scoped(flags, &invocation, |config| compose::run(&config, mode, flags))
}

/// A subcommand that serves, with its configuration file.
struct Invocation<'a> {
    mode: Mode,
    config_file: Option<&'a Path>,
}

impl Scope<TrackerConfig> for Invocation<'_> {
    fn reads(&self, key: &str) -> bool {
        self.mode.reads(key)
    }

    fn check_relations(&self, config: &TrackerConfig, problems: &mut Vec<Problem>) {
        self.mode.check_relations(config, problems);
    }

    fn check_environment(&self, config: &TrackerConfig, problems: &mut Vec<Problem>) {
        self.mode.check_environment(config, problems);
        environment::check_paths(config, self.mode, self.config_file, problems);
        environment::warn(config, self.mode, self.config_file);
    }
}
