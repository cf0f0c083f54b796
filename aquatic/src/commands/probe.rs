//! `aquatic probe`: what clients, list sites and browsers think of trackers.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use aquatic_cli_helpers::report::Report;
use aquatic_common::{Family, InfoHash, ParseHexError};
use aquatic_probe::{Options, Target};
use clap::Args;
use clap::builder::RangedU64ValueParser;

const EXAMPLES: &str = "\
Examples:
  aquatic probe udp://tracker.example.org:6969/announce
  aquatic probe --json https://tracker.example.org/announce wss://tracker.example.org/

Two peers of a random info hash announce, find each other, scrape and stop.

Exit codes: 0 no fault, 1 at least one fault, 2 command line, 3 failure.";

/// Flags of `aquatic probe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Probe {
    /// Announce URLs: udp, http, https, ws or wss
    #[arg(value_name = "URL", required = true)]
    targets: Vec<Target>,

    /// Use IPv4 only
    #[arg(short = '4', long)]
    ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    ipv6: bool,

    /// Longest wait for a reply, a connection or a name, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = RangedU64ValueParser::<u64>::new().range(1..=300))]
    timeout: u64,

    /// Number of announces that latencies are taken from
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    exchanges: usize,

    /// Torrent to announce, for trackers that allow only some; it should have no other peers
    #[arg(long, value_name = "HEX")]
    info_hash: Option<InfoHashArgument>,

    /// Go on although the certificate is not trusted
    #[arg(long)]
    insecure: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Info hash as 40 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
struct InfoHashArgument(InfoHash);

impl FromStr for InfoHashArgument {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        InfoHash::from_hex(text.as_bytes()).map(Self)
    }
}

impl Probe {
    /// Probes the trackers one after another and prints the report.
    pub(crate) fn run(&self) -> ExitCode {
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) => None,
        };
        let options = Options {
            timeout: Duration::from_secs(self.timeout),
            exchanges: self.exchanges,
            family,
            info_hash: self.info_hash.map(|InfoHashArgument(info_hash)| info_hash),
            insecure: self.insecure,
        };
        let title = format!("aquatic {} probe", env!("CARGO_PKG_VERSION"));
        let mut report = Report { title, ..Report::default() };
        let mut targets = Vec::new();
        for target in &self.targets {
            let probed = aquatic_probe::probe(target, &options);
            report.rows.extend(probed.rows);
            targets.extend(probed.figures);
        }
        report.figures.insert("aquatic".to_owned(), env!("CARGO_PKG_VERSION").into());
        report.figures.insert("targets".to_owned(), targets.into());
        report.print(self.json)
    }
}
