//! Command-line flags of all load tests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::interrupt::Interrupt;
use crate::population::{Population, PopulationShape};
use crate::report::Outcome;

/// Open files that a process needs in addition to its connections.
const OTHER_FILES: u64 = 64;

/// Output flags.
#[derive(clap::Args, Debug)]
pub struct OutputFlags {
    /// Write the report as JSON to this file instead of as a table to standard output; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the info hashes of the population, one per line as in an access list, and exit
    #[arg(long, conflicts_with = "json")]
    print_info_hashes: bool,
}

impl OutputFlags {
    /// Runs the test and writes its report, or prints the info hashes. SIGINT or SIGTERM end the test early,
    /// with a report of what was measured until then; a second one ends the process.
    ///
    /// # Errors
    /// When the test cannot run, the tracker fails it, or the report cannot be written.
    pub fn run(
        &self,
        population: PopulationShape,
        test: impl FnOnce(&Interrupt) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        if self.print_info_hashes {
            return print_info_hashes(population);
        }
        if let Some(path) = &self.json {
            check_writable(path)?;
        }
        let interrupt = Interrupt::on_signals().context("cannot handle signals")?;
        let outcome = test(&interrupt)?;
        match &self.json {
            None => write!(io::stdout(), "{outcome}")?,
            Some(path) => write_json(&outcome, path)?,
        }
        Ok(outcome.verdict()?)
    }
}

/// Finds out before the test whether its report can be written.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        return Ok(());
    }
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

fn write_json(outcome: &Outcome, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(outcome)? + "\n";
    if path.as_os_str() == "-" {
        return Ok(io::stdout().write_all(text.as_bytes())?);
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn print_info_hashes(shape: PopulationShape) -> anyhow::Result<()> {
    let population = Population::new(shape);
    let mut out = BufWriter::new(io::stdout().lock());
    for torrent in 0..population.shape().torrents {
        writeln!(out, "{}", population.info_hash(torrent))?;
    }
    Ok(out.flush()?)
}

/// Raises the limit of open files if `count` connections need more.
///
/// # Errors
/// When the hard limit is too low.
pub fn allow_connections(count: u32) -> anyhow::Result<()> {
    let needed = u64::from(count) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).with_context(|| {
        let allowed = limit.maximum.map_or_else(|| "unlimited".to_owned(), |maximum| maximum.to_string());
        format!("{needed} open files are needed, but the hard limit is {allowed} (ulimit -Hn)")
    })
}
