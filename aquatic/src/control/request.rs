//! Requests over the control socket: one JSON object per line.

use std::fmt;
use std::time::Duration;

use aquatic_common::{BreakerMode, Family, InfoHash, Prefix};
use aquatic_net::breaker::Protocol;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::LogLevel;

/// Maximum number of rows of a `top` reply.
pub(crate) const MAX_TOP: usize = 100;

/// How long requests are counted for a ranking, in seconds, and at most.
pub(crate) const DEFAULT_COUNTING: u64 = 3;
pub(crate) const MAX_COUNTING: u64 = 60;

/// Longest wait for a core, which responds within milliseconds unless it has stalled.
pub(super) const CORE_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait for a ranking: 100 M torrents at a sixth of a core.
pub(super) const RANK_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for a reload; an access list of 5 M entries takes 3 s.
pub(super) const RELOAD_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for a snapshot.
pub(super) const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(120);

/// Longest time that a duration can name: ten years.
const MAX_DURATION: u64 = 3650 * 86_400;

/// A command for the tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// What the tracker tells about itself.
    Status {},
    /// The largest torrents, or the sources that ask for most.
    Top {
        of: TopOf,
        #[serde(default = "default_count")]
        count: usize,
        #[serde(default)]
        by: RankedBy,
        /// How long requests are counted.
        #[serde(default = "default_seconds")]
        seconds: u64,
    },
    /// Counts of a torrent, and whether it is served.
    Torrent { info_hash: String },
    /// Block a network for some seconds, or until the process ends.
    Ban {
        network: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// End the block of a network.
    Unban { network: String },
    /// List what has been blocked, denied and allowed.
    Bans {},
    /// Serve a torrent, whatever the access list says.
    Allow { info_hash: String },
    /// Do not serve a torrent, whatever the access list says.
    Deny { info_hash: String },
    /// Follow the access list about a torrent again.
    Reset { info_hash: String },
    /// Change the level of the log until the next reload.
    Log { level: LogLevel },
    /// Reload configuration and files.
    Reload {},
    /// Save a snapshot.
    Snapshot {},
    /// Connections over TCP.
    Connections {},
    /// Tell of the breakers, and set some if a mode is named.
    Breaker {
        /// `None` for all that are served.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<BreakerProtocol>,
        /// `None` for both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<BreakerFamily>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<BreakerSetting>,
    },
    /// Have all nodes of the cluster carry out a command.
    Cluster { request: Box<Self> },
    /// Get rid of clients and stop.
    Drain {
        /// Time in which new connections are still accepted.
        #[serde(default = "default_notice")]
        notice: u64,
        /// Longest time for connections to end after that.
        #[serde(default = "default_limit")]
        limit: u64,
    },
}

fn default_count() -> usize {
    10
}

fn default_seconds() -> u64 {
    DEFAULT_COUNTING
}

fn default_notice() -> u64 {
    5
}

fn default_limit() -> u64 {
    60
}

/// A protocol with breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BreakerProtocol {
    /// UDP
    Udp,
    /// HTTP and HTTPS
    Http,
    /// WebTorrent
    Ws,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BreakerFamily {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

/// Who decides about a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BreakerSetting {
    /// The tracker, by its load
    Automatic,
    /// Nobody is served
    Open,
    /// Everybody is served
    Closed,
}

impl BreakerProtocol {
    /// That of a protocol.
    pub(crate) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Http => Self::Http,
            Protocol::Ws => Self::Ws,
        }
    }
}

impl BreakerFamily {
    /// That of a family.
    pub(crate) fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }
}

impl From<BreakerProtocol> for Protocol {
    fn from(protocol: BreakerProtocol) -> Self {
        match protocol {
            BreakerProtocol::Udp => Self::Udp,
            BreakerProtocol::Http => Self::Http,
            BreakerProtocol::Ws => Self::Ws,
        }
    }
}

impl From<BreakerFamily> for Family {
    fn from(family: BreakerFamily) -> Self {
        match family {
            BreakerFamily::Ipv4 => Self::V4,
            BreakerFamily::Ipv6 => Self::V6,
        }
    }
}

impl From<BreakerSetting> for BreakerMode {
    fn from(setting: BreakerSetting) -> Self {
        match setting {
            BreakerSetting::Automatic => Self::Automatic,
            BreakerSetting::Open => Self::Open,
            BreakerSetting::Closed => Self::Closed,
        }
    }
}

/// What is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TopOf {
    /// Torrents with the most peers
    Torrents,
    /// Networks that send the most UDP and HTTP requests, counted for some seconds
    Prefixes,
    /// Clients that announce most, by the beginning of their peer id, counted for some seconds
    Clients,
}

/// What torrents are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RankedBy {
    /// Seeders and leechers
    #[default]
    Peers,
    /// Seeders
    Seeders,
    /// Leechers
    Leechers,
}

impl Request {
    /// Longest time that the tracker works on it before it replies; zero for replies that are given at once.
    pub(crate) fn longest_work(&self) -> Duration {
        match self {
            Self::Top { of: TopOf::Torrents, .. } => RANK_DEADLINE,
            Self::Top { of: TopOf::Prefixes | TopOf::Clients, seconds, .. } => {
                Duration::from_secs(*seconds) + CORE_DEADLINE
            }
            Self::Torrent { .. } => CORE_DEADLINE,
            Self::Reload {} => RELOAD_DEADLINE,
            Self::Snapshot {} => SNAPSHOT_DEADLINE,
            Self::Cluster { request } => request.longest_work(),
            Self::Status {}
            | Self::Ban { .. }
            | Self::Unban { .. }
            | Self::Bans {}
            | Self::Allow { .. }
            | Self::Deny { .. }
            | Self::Reset { .. }
            | Self::Log { .. }
            | Self::Connections {}
            | Self::Breaker { .. }
            | Self::Drain { .. } => Duration::ZERO,
        }
    }
}

/// An argument of a command that makes no sense, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadArgument(pub(crate) String);

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArgument {}

/// What is shown of an argument in an error.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

/// Reads an info hash: 40 hexadecimal digits, 32 characters of base32, 64 hexadecimal digits of version 2, or
/// a magnet link with any of them.
pub(crate) fn parse_info_hash(text: &str) -> Result<InfoHash, BadArgument> {
    let text = text.trim();
    let named = |urn: &str| text.split_once(urn).map(|(_, rest)| rest.split('&').next().unwrap_or_default());
    // The second one is a SHA-256 multihash (BEP 52).
    let hash = named("urn:btih:").or_else(|| named("urn:btmh:1220")).unwrap_or(text);
    let parsed = match hash.len() {
        32 => base32(hash),
        64 => truncated(hash),
        _ => hash.parse().ok(),
    };
    parsed.ok_or_else(|| {
        BadArgument(format!(
            "\"{}\" is no info hash; write its 40 or 64 hexadecimal digits, 32 characters of base32, or a magnet link",
            excerpt(text)
        ))
    })
}

/// What trackers are told of an info hash of version 2: its first 20 bytes (BEP 52).
fn truncated(text: &str) -> Option<InfoHash> {
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.get(..40).filter(|_| is_hexadecimal)?.parse().ok()
}

/// Reads 20 bytes of base32 (RFC 4648), as magnet links have it, in either case.
fn base32(text: &str) -> Option<InfoHash> {
    let (mut bytes, mut bits, mut value) = (Vec::with_capacity(20), 0, 0_u32);
    for character in text.bytes() {
        let digit = match character.to_ascii_uppercase() {
            letter @ b'A'..=b'Z' => letter - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        value = value << 5 | u32::from(digit);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((value >> bits & 0xff) as u8);
        }
    }
    Some(InfoHash(bytes.try_into().ok()?))
}

/// Reads a network or an address.
pub(crate) fn parse_network(text: &str) -> Result<Prefix, BadArgument> {
    Prefix::parse_blocked(text.trim()).map_err(|error| BadArgument(error.to_string()))
}

/// Reads a time such as `90`, `90s`, `15m`, `2h`, `7d` or `1h30m`; without a unit, seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, BadArgument> {
    let bad = || {
        BadArgument(format!(
            "\"{}\" is no time from 1 second to 10 years; write 90s, 15m, 2h or 7d",
            excerpt(text)
        ))
    };
    let mut seconds = 0_u64;
    let mut number: Option<u64> = None;
    let mut units = 0;
    for character in text.trim().chars() {
        if let Some(digit) = character.to_digit(10) {
            let so_far = number.unwrap_or(0).checked_mul(10).ok_or_else(bad)?;
            number = Some(so_far.checked_add(digit.into()).ok_or_else(bad)?);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let part = number.take().ok_or_else(bad)?.checked_mul(unit).ok_or_else(bad)?;
        seconds = seconds.checked_add(part).ok_or_else(bad)?;
        units += 1;
    }
    match number {
        Some(number) if units == 0 => seconds = number,
        Some(_) => return Err(bad()),
        None => {}
    }
    if (1..=MAX_DURATION).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(bad()) }
}

/// Checks a number of seconds in a request.
pub(crate) fn seconds(value: u64) -> Result<Duration, BadArgument> {
    if value <= MAX_DURATION {
        Ok(Duration::from_secs(value))
    } else {
        Err(BadArgument(format!("{value} seconds are too many; at most {MAX_DURATION} are possible")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn info_hashes_are_read_in_every_form() {
        let hash: InfoHash = HASH.parse().unwrap();
        let base32 = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";
        for text in [
            HASH.to_owned(),
            HASH.to_uppercase(),
            format!(" {HASH}\n"),
            base32.to_owned(),
            base32.to_lowercase(),
            format!("magnet:?xt=urn:btih:{HASH}&dn=a&tr=udp%3A%2F%2Fhost"),
            format!("magnet:?dn=a&xt=urn:btih:{base32}"),
            format!("{HASH}{}", "8".repeat(24)),
            format!("magnet:?xt=urn:btmh:1220{HASH}{}&dn=a", "8".repeat(24)),
            format!("magnet:?xt=urn:btmh:1220{}&xt=urn:btih:{HASH}", "8".repeat(64)),
        ] {
            assert_eq!(parse_info_hash(&text), Ok(hash), "{text}");
        }
        for bad in [
            "",
            "00",
            &HASH[1..],
            &format!("{HASH}0"),
            "0ERUKZ4JVPG66AJDIVTYTK6N54ASGRLH",
            "magnet:?dn=x",
            &"g".repeat(64),
        ] {
            let error = parse_info_hash(bad).unwrap_err().to_string();
            assert!(error.contains("is no info hash; write its 40"), "{error}");
        }
        assert!(parse_info_hash(&"\u{1b}".repeat(1000)).unwrap_err().0.len() < 700, "the excerpt is short");
    }

    #[test]
    fn times_are_read_with_their_units() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("1h30m", 5400)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0", "0h", "h", "1x", "-1", "1h30", "9999d", "99999999999999999999d", "1.5h"] {
            assert!(parse_duration(bad).unwrap_err().0.contains("write 90s, 15m, 2h or 7d"), "{bad}");
        }
        assert!(seconds(MAX_DURATION).is_ok() && seconds(MAX_DURATION + 1).is_err());
    }

    #[test]
    fn networks_are_not_everybody() {
        assert_eq!(parse_network(" 192.0.2.7/24 ").unwrap().to_string(), "192.0.2.0/24");
        assert!(parse_network("::/0").unwrap_err().0.contains("everybody"));
        assert!(parse_network("host").unwrap_err().0.contains("neither an address nor a network"));
    }

    #[test]
    fn every_command_is_read_as_it_is_written() {
        let hash = HASH.to_owned();
        for (request, text) in [
            (Request::Status {}, r#"{"command":"status"}"#.to_owned()),
            (
                Request::Top { of: TopOf::Prefixes, count: 10, by: RankedBy::Leechers, seconds: 2 },
                r#"{"command":"top","of":"prefixes","count":10,"by":"leechers","seconds":2}"#.to_owned(),
            ),
            (
                Request::Torrent { info_hash: hash.clone() },
                format!(r#"{{"command":"torrent","info_hash":"{HASH}"}}"#),
            ),
            (
                Request::Ban { network: "192.0.2.0/24".to_owned(), seconds: Some(60) },
                r#"{"command":"ban","network":"192.0.2.0/24","seconds":60}"#.to_owned(),
            ),
            (
                Request::Unban { network: "::1".to_owned() },
                r#"{"command":"unban","network":"::1"}"#.to_owned(),
            ),
            (Request::Bans {}, r#"{"command":"bans"}"#.to_owned()),
            (
                Request::Allow { info_hash: hash.clone() },
                format!(r#"{{"command":"allow","info_hash":"{HASH}"}}"#),
            ),
            (
                Request::Deny { info_hash: hash.clone() },
                format!(r#"{{"command":"deny","info_hash":"{HASH}"}}"#),
            ),
            (Request::Reset { info_hash: hash }, format!(r#"{{"command":"reset","info_hash":"{HASH}"}}"#)),
            (Request::Log { level: LogLevel::Debug }, r#"{"command":"log","level":"debug"}"#.to_owned()),
            (Request::Reload {}, r#"{"command":"reload"}"#.to_owned()),
            (Request::Snapshot {}, r#"{"command":"snapshot"}"#.to_owned()),
            (Request::Connections {}, r#"{"command":"connections"}"#.to_owned()),
            (
                Request::Breaker { protocol: None, family: None, mode: None },
                r#"{"command":"breaker"}"#.to_owned(),
            ),
            (
                Request::Breaker {
                    protocol: Some(BreakerProtocol::Ws),
                    family: Some(BreakerFamily::Ipv6),
                    mode: Some(BreakerSetting::Open),
                },
                r#"{"command":"breaker","protocol":"ws","family":"ipv6","mode":"open"}"#.to_owned(),
            ),
            (
                Request::Cluster { request: Box::new(Request::Reload {}) },
                r#"{"command":"cluster","request":{"command":"reload"}}"#.to_owned(),
            ),
            (
                Request::Drain { notice: 1, limit: 2 },
                r#"{"command":"drain","notice":1,"limit":2}"#.to_owned(),
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let short: Request = serde_json::from_str(r#"{"command":"top","of":"torrents"}"#).unwrap();
        assert_eq!(short, Request::Top { of: TopOf::Torrents, count: 10, by: RankedBy::Peers, seconds: 3 });
        for bad in [
            r#"{}"#,
            r#"{"command":"status","extra":1}"#,
            r#"{"command":"nonsense"}"#,
            r#"{"command":"log","level":"loud"}"#,
            r#"{"command":"ban"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
