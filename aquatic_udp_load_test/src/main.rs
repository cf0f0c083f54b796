//! Load test for UDP trackers.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use aquatic_cli_helpers::ConfigFlags;
use aquatic_load_engine::population::Population;
use aquatic_udp_load_test::config::Config;
use clap::Parser;

/// Measures how fast a UDP tracker answers, and checks what it answers
///
/// Ends with 0 if the tracker answered and nothing it answered was wrong.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    flags: ConfigFlags,

    /// Write the report as JSON to this file instead of as a table to standard output; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the info hashes of the population, one a line, as an access list holds them, and exit
    #[arg(long, conflicts_with = "json")]
    print_info_hashes: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    aquatic_cli_helpers::run(&cli.flags, |config: Config| {
        if cli.print_info_hashes {
            return print_info_hashes(&config);
        }
        let outcome = aquatic_udp_load_test::run(config)?;
        match &cli.json {
            None => write!(io::stdout(), "{outcome}")?,
            Some(path) => {
                let text = serde_json::to_string_pretty(&outcome)?;
                if path.as_os_str() == "-" {
                    writeln!(io::stdout(), "{text}")?;
                } else {
                    std::fs::write(path, text + "\n")
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
        outcome.verdict()?;
        Ok(())
    })
}

fn print_info_hashes(config: &Config) -> anyhow::Result<()> {
    let population = Population::new(config.population.shape());
    let mut out = BufWriter::new(io::stdout().lock());
    for torrent in 0..config.population.torrents {
        writeln!(out, "{}", population.info_hash(torrent))?;
    }
    Ok(out.flush()?)
}
