//! `aquatic ctl`: asks a running tracker and commands it, over its control socket.

mod client;
mod show;
mod view;
mod watch;

use std::path::{Path, PathBuf};

use aquatic_cli_helpers::{ConfigFlags, ExitStatus, complain, load, print_to_stdout};
use aquatic_common::config::{ControlConfig, LogLevel};
use clap::{Args, Subcommand, ValueEnum};

use self::client::{Client, ClientError};
use super::USUAL_STATE_DIRECTORY;
use crate::config::{Mode, TrackerConfig};
use crate::control::{
    self, BadArgument, BreakerFamily, BreakerProtocol, BreakerSetting, DEFAULT_COUNTING, MAX_COUNTING,
    MAX_TOP, NOT_SPREADABLE, Place, RankedBy, Request, TopOf, is_spreadable, parse_duration, parse_info_hash,
    parse_network,
};

const HELP: &str = "\
Examples:
  aquatic ctl -c tracker.toml status
  aquatic ctl -c tracker.toml top torrents -n 20
  aquatic ctl -c tracker.toml ban 192.0.2.0/24 for 2h
  aquatic ctl -c tracker.toml deny 0123456789abcdef0123456789abcdef01234567
  aquatic ctl -c tracker.toml --cluster reload

Exit codes: 0 done, 1 the configuration cannot be used, 2 the command line is
wrong, 3 the tracker cannot be reached or has not done it.";

/// Flags of `aquatic ctl`.
#[derive(Debug, Args)]
#[command(after_help = HELP, arg_required_else_help = true, disable_version_flag = true)]
pub(crate) struct Ctl {
    /// Find the socket by this configuration file of the tracker
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket", global = true)]
    config: Option<PathBuf>,

    /// Path of the socket; without -c and -s, that of the packages' systemd unit
    #[arg(short, long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,

    /// Print the tracker's reply as JSON
    #[arg(long, global = true)]
    json: bool,

    /// Have all nodes of the cluster do it: ban, unban, allow, deny, reset, reload, breaker
    #[arg(long, global = true)]
    cluster: bool,

    #[command(subcommand)]
    command: CtlCommand,
}

/// Commands for a running tracker.
#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// What the tracker is doing: requests, peers, connections, memory
    Status,
    /// Show live what the tracker is doing; q quits
    Watch,
    /// Rank torrents by peers, or networks and clients by requests
    Top {
        /// What to rank
        of: TopOf,
        /// Number of rows
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10,
            value_parser = clap::value_parser!(u8).range(1..=MAX_TOP as i64))]
        count: u8,
        /// What to rank by
        #[arg(long, value_enum, default_value_t)]
        by: RankedBy,
        /// How many seconds requests are counted, for prefixes and clients
        #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_COUNTING,
            value_parser = clap::value_parser!(u64).range(1..=MAX_COUNTING))]
        seconds: u64,
    },
    /// Counts of a torrent, and whether it is served
    Torrent {
        /// Info hash (hexadecimal or base32) or magnet link
        hash: String,
    },
    /// Block an address or network until the tracker stops, or for a time
    Ban {
        /// Such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32
        network: String,
        /// How long: "for 90s", "for 15m", "for 2h", "for 7d"
        #[arg(value_names = ["for", "TIME"], num_args = 1..=2)]
        time: Vec<String>,
    },
    /// End the block of an address or network
    Unban {
        /// As it was blocked
        network: String,
    },
    /// List what is blocked, allowed and denied by hand
    Bans,
    /// Serve a torrent until the tracker stops, whatever the access list says
    Allow {
        /// Info hash (hexadecimal or base32) or magnet link
        hash: String,
    },
    /// Do not serve a torrent until the tracker stops, whatever the access list says
    Deny {
        /// Info hash (hexadecimal or base32) or magnet link
        hash: String,
    },
    /// Follow the access list about a torrent again
    Reset {
        /// Info hash (hexadecimal or base32) or magnet link
        hash: String,
    },
    /// Change the level of the log until the next reload
    Log {
        /// Level of the log
        level: Level,
    },
    /// Reload configuration, access list, block list and certificate, and tell what came of it
    Reload,
    /// Save a snapshot of all peers to the state directory
    Snapshot,
    /// Connections over TCP: open, accepted, refused, evicted, timed out
    Connections,
    /// List the breakers of protocols and families, or set some until the tracker stops
    Breaker {
        /// Who decides from now on; without it, the breakers are listed
        mode: Option<BreakerSetting>,
        /// Only that of this protocol
        #[arg(long, requires = "mode")]
        protocol: Option<BreakerProtocol>,
        /// Only that of this address family
        #[arg(long, requires = "mode")]
        family: Option<BreakerFamily>,
    },
    /// Tell load balancers to go elsewhere, accept no more connections, and stop when none is left
    Drain {
        /// How long to accept connections still, so that load balancers notice
        #[arg(long, value_name = "TIME", default_value = "5s")]
        notice: String,
        /// How long connections may go on after that
        #[arg(long, value_name = "TIME", default_value = "60s")]
        limit: String,
    },
}

/// Level of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl CtlCommand {
    /// The request to send.
    fn request(&self) -> Result<Request, BadArgument> {
        // The tracker checks arguments, too; here the command line is to blame.
        let hash = |text: &String| Ok(parse_info_hash(text)?.to_string());
        let known = |network: &String| parse_network(network).map(|_| network.clone());
        Ok(match self {
            Self::Status | Self::Watch => Request::Status {},
            Self::Top { of, count, by, seconds } => {
                Request::Top { of: *of, count: usize::from(*count), by: *by, seconds: *seconds }
            }
            Self::Torrent { hash: text } => Request::Torrent { info_hash: hash(text)? },
            Self::Ban { network, time } => {
                Request::Ban { network: known(network)?, seconds: ban_time(time)? }
            }
            Self::Unban { network } => Request::Unban { network: known(network)? },
            Self::Bans => Request::Bans {},
            Self::Allow { hash: text } => Request::Allow { info_hash: hash(text)? },
            Self::Deny { hash: text } => Request::Deny { info_hash: hash(text)? },
            Self::Reset { hash: text } => Request::Reset { info_hash: hash(text)? },
            Self::Log { level } => Request::Log { level: (*level).into() },
            Self::Reload => Request::Reload {},
            Self::Snapshot => Request::Snapshot {},
            Self::Connections => Request::Connections {},
            Self::Breaker { mode, protocol, family } => {
                Request::Breaker { protocol: *protocol, family: *family, mode: *mode }
            }
            Self::Drain { notice, limit } => Request::Drain {
                notice: if notice == "0" { 0 } else { parse_duration(notice)?.as_secs() },
                limit: if limit == "0" { 0 } else { parse_duration(limit)?.as_secs() },
            },
        })
    }
}

/// Reads "for TIME", or only the time.
fn ban_time(words: &[String]) -> Result<Option<u64>, BadArgument> {
    match words {
        [] => Ok(None),
        [time] if time != "for" => Ok(Some(parse_duration(time)?.as_secs())),
        [word, time] if word == "for" => Ok(Some(parse_duration(time)?.as_secs())),
        _ => Err(BadArgument(format!("\"{}\" is no time; write \"for 2h\"", words.join(" ")))),
    }
}

impl Ctl {
    /// The request to send.
    fn request(&self) -> Result<Request, BadArgument> {
        let request = self.command.request()?;
        if !self.cluster {
            return Ok(request);
        }
        if is_spreadable(&request) {
            Ok(Request::Cluster { request: Box::new(request) })
        } else {
            Err(BadArgument(NOT_SPREADABLE.to_owned()))
        }
    }

    /// Sends the command and prints what the tracker replies.
    pub(crate) fn run(&self) -> ExitStatus {
        let request = match self.request() {
            Ok(request) => request,
            Err(error) => {
                complain(&error);
                return ExitStatus::BadUsage;
            }
        };
        let path = match self.path() {
            Ok(path) => path,
            Err(error) => {
                complain(&error);
                return ExitStatus::BadConfiguration;
            }
        };
        if let CtlCommand::Watch = self.command
            && !self.json
        {
            return watch::watch(&path);
        }
        match Client::connect(&path).and_then(|mut client| client.ask(&request)) {
            Ok(reply) if self.json => print_to_stdout(format!("{reply}\n").as_bytes()),
            Ok(reply) => print_to_stdout(show::reply(&request, &reply).as_bytes()),
            Err(ClientError::Refused(reply)) if self.json => {
                print_to_stdout(format!("{reply}\n").as_bytes());
                ExitStatus::Failure
            }
            Err(error) => {
                complain(&error);
                ExitStatus::Failure
            }
        }
    }

    /// Path of the socket.
    fn path(&self) -> Result<PathBuf, String> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(config)) => configured_path(config),
            (None, None) => Ok(Path::new(USUAL_STATE_DIRECTORY).join(ControlConfig::DEFAULT_NAME)),
        }
    }
}

/// Path of the socket by a configuration file.
fn configured_path(file: &Path) -> Result<PathBuf, String> {
    let flags = ConfigFlags::default();
    let config: TrackerConfig =
        load(Some(file), &flags.set, &Mode::All).map_err(|error| error.to_string())?;
    match control::place(&config) {
        Place::At(path) => Ok(path),
        Place::Off => Err(format!(
            "{} has no control socket: {} is empty. Remove that line and restart the tracker",
            file.display(),
            ControlConfig::socket_path
        )),
        Place::NoStateDirectory => Err(format!(
            "{} has no control socket: set state_directory, or {} to a path that begins with /, and restart the \
             tracker. If the tracker gets its state directory by --set, name the socket here with -s",
            file.display(),
            ControlConfig::socket_path
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        ctl: Ctl,
    }

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn request(words: &str) -> Result<Request, String> {
        let words = std::iter::once("ctl").chain(words.split_whitespace());
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        program.ctl.request().map_err(|error| error.to_string())
    }

    #[test]
    fn every_command_becomes_its_request() {
        let hash = || HASH.to_owned();
        let network = || "192.0.2.0/24".to_owned();
        for (words, expected) in [
            ("status", Request::Status {}),
            (
                "top torrents",
                Request::Top { of: TopOf::Torrents, count: 10, by: RankedBy::Peers, seconds: 3 },
            ),
            (
                "top torrents -n 3 --by leechers",
                Request::Top { of: TopOf::Torrents, count: 3, by: RankedBy::Leechers, seconds: 3 },
            ),
            (
                "top prefixes --seconds 1",
                Request::Top { of: TopOf::Prefixes, count: 10, by: RankedBy::Peers, seconds: 1 },
            ),
            (&format!("torrent {HASH}"), Request::Torrent { info_hash: hash() }),
            ("torrent AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH", Request::Torrent { info_hash: hash() }),
            ("ban 192.0.2.0/24", Request::Ban { network: network(), seconds: None }),
            ("ban 192.0.2.0/24 for 2h", Request::Ban { network: network(), seconds: Some(7200) }),
            ("ban 192.0.2.0/24 2h", Request::Ban { network: network(), seconds: Some(7200) }),
            ("unban 192.0.2.0/24", Request::Unban { network: network() }),
            ("bans", Request::Bans {}),
            (&format!("allow {HASH}"), Request::Allow { info_hash: hash() }),
            (&format!("deny {}", HASH.to_uppercase()), Request::Deny { info_hash: hash() }),
            (&format!("reset {HASH}"), Request::Reset { info_hash: hash() }),
            ("log trace", Request::Log { level: LogLevel::Trace }),
            ("reload", Request::Reload {}),
            ("snapshot --json", Request::Snapshot {}),
            ("connections", Request::Connections {}),
            ("breaker", Request::Breaker { protocol: None, family: None, mode: None }),
            (
                "breaker open --protocol udp --family ipv6",
                Request::Breaker {
                    protocol: Some(BreakerProtocol::Udp),
                    family: Some(BreakerFamily::Ipv6),
                    mode: Some(BreakerSetting::Open),
                },
            ),
            ("drain", Request::Drain { notice: 5, limit: 60 }),
            ("drain --notice 0 --limit 5m", Request::Drain { notice: 0, limit: 300 }),
        ] {
            assert_eq!(request(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn bad_arguments_are_explained() {
        for (words, expected) in [
            ("torrent 00", "no info hash"),
            ("ban host", "neither an address nor a network"),
            ("ban 127.0.0.1/33", "127.0.0.1/33"),
            ("unban ::/0", "everybody"),
            ("--cluster status", "about one tracker"),
            ("--cluster breaker", "about one tracker"),
            ("ban 192.0.2.1 for ever", "write 90s, 15m, 2h or 7d"),
            ("ban 192.0.2.1 until 2h", "write \"for 2h\""),
            ("ban 192.0.2.1 for", "write \"for 2h\""),
            ("top torrents -n 0", "not in 1..=100"),
            ("top peers", "possible values"),
            ("log loud", "possible values"),
            ("drain --limit soon", "write 90s"),
            ("nonsense", "unrecognized subcommand"),
        ] {
            let error = request(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn the_socket_is_found_by_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tracker.toml");
        let found = |text: &str| {
            std::fs::write(&file, text).unwrap();
            configured_path(&file)
        };
        assert_eq!(found("state_directory = '/x'"), Ok(PathBuf::from("/x/control.sock")));
        assert_eq!(found("[control]\nsocket_path = '/run/a.sock'"), Ok(PathBuf::from("/run/a.sock")));
        assert!(found("").unwrap_err().contains("set state_directory, or control.socket_path"));
        assert!(found("[control]\nsocket_path = ''").unwrap_err().contains("control.socket_path is empty"));
        assert!(found("nonsense = 1").unwrap_err().contains("nonsense"));
    }
}
