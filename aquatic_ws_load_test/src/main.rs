//! Load test for WebTorrent trackers.

use std::process::ExitCode;

use aquatic_cli_helpers::ConfigFlags;
use aquatic_load_engine::command::OutputFlags;
use aquatic_ws_load_test::config::Config;
use clap::Parser;

/// Measures the throughput and latency of a WebTorrent tracker, and verifies its messages
///
/// Exits with 0 if the tracker served requests, refused few, did not lose all requests of a kind, and
/// violated no protocol; see the section `verdict` of the configuration. SIGINT (Ctrl-C) or SIGTERM end it
/// early, with a report.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    flags: ConfigFlags,

    #[command(flatten)]
    output: OutputFlags,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    aquatic_cli_helpers::run(&cli.flags, |config: Config| {
        cli.output.run(config.shape(), |interrupt| aquatic_ws_load_test::run(config, interrupt))
    })
}
