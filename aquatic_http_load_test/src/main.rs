//! Load test for HTTP trackers.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use aquatic_cli_helpers::ConfigFlags;
use aquatic_http_load_test::config::Config;
use aquatic_load_engine::command::OutputFlags;
use clap::Parser;

/// Measures the throughput and latency of an HTTP tracker, and verifies its replies
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

    /// Print the request targets (path and query) of COUNT announces, one per line, and exit
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["json", "print_info_hashes"])]
    print_targets: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    aquatic_cli_helpers::run(&cli.flags, |config: Config| {
        if let Some(count) = cli.print_targets {
            let mut out = BufWriter::new(io::stdout().lock());
            aquatic_http_load_test::print_targets(config, count, &mut out)?;
            return Ok(out.flush()?);
        }
        cli.output.run(config.population.shape(), |interrupt| aquatic_http_load_test::run(config, interrupt))
    })
}
