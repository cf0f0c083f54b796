//! Load test for WebTorrent trackers.

use std::process::ExitCode;

use aquatic_cli_helpers::ConfigFlags;
use aquatic_load_engine::command::OutputFlags;
use aquatic_ws_load_test::config::Config;
use clap::Parser;

/// Measures how fast a WebTorrent tracker relays, and checks what it relays
///
/// Ends with 0 if the tracker answered and nothing it sent was wrong.
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
        cli.output.run(config.shape(), || aquatic_ws_load_test::run(config))
    })
}
