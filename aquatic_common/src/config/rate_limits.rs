//! Section `[rate_limits]`: how much one source may ask for.

use std::path::PathBuf;
use std::time::Duration;

use crate::breaker::BreakerRules;
use crate::load_table::Allowance;
use crate::prefix::PrefixSet;
use crate::settings::Problem;
use crate::source_limit::{BudgetRules, SourceRules};

crate::choice! {
    /// What becomes of requests above a rate limit.
    #[derive(Default)]
    pub enum RateLimitMode {
        /// There are no rate limits.
        Off = "off",
        /// They are counted and logged, but served.
        DryRun = "dry_run",
        /// They are dropped.
        #[default]
        On = "on",
    }
}

crate::settings! {
    /// Rate limits per source, and sources that are not served. A source is an IPv4 address or an IPv6 /64
    /// network. Networks around it have limits of their own: 16 times as much for IPv4 /24 and IPv6 /56, 64
    /// times for IPv4 /20 and IPv6 /48. Over UDP, requests above a limit get no reply, because clients repeat
    /// requests that are refused. Workers divide the limits evenly, so a source that asks one worker only,
    /// for a single torrent, meets them earlier.
    pub struct RateLimitsConfig, section "rate_limits" {
        /// "on" drops requests above the limits, "dry_run" serves but counts and logs them, "off" does not
        /// look at rates. TLS handshakes of sources that take much of a worker's time are queued behind
        /// others with "on", counted with "dry_run", and treated like others with "off".
        pub mode: RateLimitMode = RateLimitMode::On;
        /// Rate of UDP announces and scrapes that a source is always served; 0 for no limit. Malformed ones
        /// count as well, if their connection id shows that the source is not forged. A thousand clients
        /// behind one address with a hundred torrents each send some 60 per second.
        pub udp_requests: u32 = 2000, unit "requests per second", in 0..=1_000_000;
        /// Number of UDP announces and scrapes that a source may send at once, such as when a client with
        /// many torrents starts.
        pub udp_burst: u32 = 20_000, unit "requests", in 1..=10_000_000;
        /// Maximum rate of UDP connect requests that are answered, of all sources together; 0 for no limit.
        /// As their source may be forged, none is limited by it: above the rate every fourth is answered.
        pub udp_connects: u32 = 0, unit "requests per second", in 0..=100_000_000;
        /// While more arrives over UDP than a worker can serve, so that its receive buffer overflows, let the
        /// kernel drop a part of what the heaviest networks send, instead of requests at random.
        pub udp_overload_control: bool = true;
        /// Rate of TCP connections that a source may open; 0 for no limit. Trusted proxies are exempt,
        /// but not the clients that they name by the PROXY protocol.
        pub tcp_connections: u32 = 500, unit "connections per second", in 0..=1_000_000;
        /// Number of TCP connections that a source may open at once.
        pub tcp_connections_burst: u32 = 5000, unit "connections", in 1..=10_000_000;
        /// Rate of HTTP requests that a source is always served, over all its connections; 0 for no limit.
        /// Announces and scrapes count, also if they cannot be served, pages and /health. Clients behind
        /// trusted proxies are limited by their own address. Above it they get a failure reason and the
        /// announce interval, which keeps them from repeating the request at once; for what is no announce
        /// or scrape, status 429.
        pub http_requests: u32 = 2000, unit "requests per second", in 0..=1_000_000;
        /// Number of HTTP requests that a source may send at once.
        pub http_burst: u32 = 20_000, unit "requests", in 1..=10_000_000;
        /// Rate of WebTorrent messages that a source is always served, over all its connections; 0 for no
        /// limit. Above it messages are dropped, and the connection is not read from for up to a second.
        /// Where HTTP is not served, requests for pages and /health count as well.
        /// ws.client.max_message_rate limits each connection.
        pub ws_messages: u32 = 2000, unit "messages per second", in 0..=1_000_000;
        /// Number of WebTorrent messages that a source may send at once.
        pub ws_burst: u32 = 20_000, unit "messages", in 1..=10_000_000;
        /// Duration of an overload after which a protocol is no longer served for an address family; 0 for
        /// never. Overloads of UDP are those of rate_limits.udp_overload_control, overloads of HTTP and
        /// WebTorrent are TLS handshakes that have to be rejected, on at least half of the workers. Without
        /// this, an overloaded protocol is served as well as it can be.
        pub breaker_after: u32 = 0, unit "seconds", in 0..=86_400;
        /// Share of its time that a worker is busy from which on it counts as overloaded as well, for the
        /// protocol and family with most requests, unless that is UDP; 0 for never. It has to be so on at
        /// least half of the workers for rate_limits.breaker_after, and ends 10 percentage points below. A
        /// worker may well be busy all the time while its clients get their replies, so this is off by
        /// default.
        pub breaker_busy: u32 = 0, unit "percent", in 0..=100;
        /// Time for which the protocol is then not served. It is longer, up to 16 times, if the overload
        /// returns as soon as the protocol is served again.
        pub breaker_pause: u32 = 60, unit "seconds", in 1..=86_400;
        /// Addresses and networks without rate limits, whose TLS handshakes are not charged to them:
        /// ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"]. Overload control of UDP and the limit of connects
        /// apply to them as well, as anybody can send UDP packets with their addresses.
        pub exempt: Vec<String> = vec!["127.0.0.0/8".to_owned(), "::1".to_owned()];
        /// File with addresses and networks that are not served at all, one per line, optionally followed by
        /// a space or comma and any text; empty for none. Blank lines and lines that start with #, ; or //
        /// are ignored. A file with any other line, or with a network of all addresses (0.0.0.0/0, ::/0), is
        /// rejected as a whole; on a reload the previous list then stays in use.
        pub block_list_path: PathBuf = PathBuf::new();
        /// Accept a block list that has become empty on a reload. Off by default: an empty file usually is
        /// the result of a failed download, and would serve everybody.
        pub allow_empty_block_list: bool = false;
    }
}

/// What the networks around a source may ask for, as multiples of what it may.
const MULTIPLES: [u32; 3] = [1, 16, 64];

impl RateLimitsConfig {
    /// Reports networks that cannot be read, and settings that need another one.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        if self.breaker_busy > 0 && self.breaker_after == 0 {
            let remedy =
                format!("has no effect without {}; set that to the seconds to wait", Self::breaker_after);
            problems.push(Problem::new(Self::breaker_busy, remedy));
        }
        if let Err(error) = PrefixSet::parse(&self.exempt) {
            problems.push(Problem::new(Self::exempt, error.to_string()));
        }
    }

    /// The rules for UDP announces and scrapes, for one of some cores.
    #[must_use]
    pub fn udp_rules(&self, cores: usize) -> SourceRules {
        self.rules((self.udp_requests, self.udp_burst), cores)
    }

    /// The rules for TCP connections, for one of some cores.
    #[must_use]
    pub fn tcp_rules(&self, cores: usize) -> SourceRules {
        self.rules((self.tcp_connections, self.tcp_connections_burst), cores)
    }

    /// The rules for HTTP requests, for one of some cores.
    #[must_use]
    pub fn http_rules(&self, cores: usize) -> SourceRules {
        self.rules((self.http_requests, self.http_burst), cores)
    }

    /// The rules for WebTorrent messages, for one of some cores.
    #[must_use]
    pub fn ws_rules(&self, cores: usize) -> SourceRules {
        self.rules((self.ws_messages, self.ws_burst), cores)
    }

    /// Rules for a rate and a burst; a core has an even share of both. Networks that cannot be read have been
    /// reported by [`check`](Self::check).
    fn rules(&self, (rate, burst): (u32, u32), cores: usize) -> SourceRules {
        let share = |number: u32| f64::from(number) / cores.max(1) as f64;
        let is_limited = self.mode != RateLimitMode::Off && rate > 0;
        SourceRules {
            allowance: is_limited.then(|| Allowance {
                rate: share(rate),
                burst: share(burst).max(1.0),
                multiples: MULTIPLES,
            }),
            is_dry_run: self.mode == RateLimitMode::DryRun,
            exempt: PrefixSet::parse(&self.exempt).unwrap_or_default(),
        }
    }

    /// When breakers open and close by themselves.
    #[must_use]
    pub fn breaker_rules(&self) -> BreakerRules {
        let seconds = |number: u32| Duration::from_secs(number.into());
        BreakerRules {
            open_after: (self.breaker_after > 0).then(|| seconds(self.breaker_after)),
            pause: seconds(self.breaker_pause),
            busy_percent: (self.breaker_busy > 0).then_some(self.breaker_busy),
        }
    }

    /// The rules for UDP connects of all sources together, for one of some cores.
    #[must_use]
    pub fn connect_rules(&self, cores: usize) -> BudgetRules {
        let is_limited = self.mode != RateLimitMode::Off && self.udp_connects > 0;
        BudgetRules {
            rate: is_limited.then(|| f64::from(self.udp_connects) / cores.max(1) as f64),
            is_dry_run: self.mode == RateLimitMode::DryRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_share_the_limits() {
        let config = RateLimitsConfig { udp_connects: 1000, ..RateLimitsConfig::default() };
        let allowance = config.udp_rules(4).allowance.unwrap();
        assert_eq!((allowance.rate, allowance.burst), (500.0, 5000.0));
        assert_eq!(config.connect_rules(4), BudgetRules { rate: Some(250.0), is_dry_run: false });
        let off = RateLimitsConfig { mode: RateLimitMode::Off, ..config.clone() };
        assert_eq!((off.udp_rules(4).allowance, off.connect_rules(4).rate), (None, None));
        let dry = RateLimitsConfig { mode: RateLimitMode::DryRun, udp_requests: 0, ..config };
        assert!(dry.udp_rules(1).is_dry_run && dry.udp_rules(1).allowance.is_none());
        assert_eq!(dry.connect_rules(1), BudgetRules { rate: Some(1000.0), is_dry_run: true });
    }

    #[test]
    fn a_busy_share_needs_a_duration() {
        let busy = RateLimitsConfig { breaker_busy: 95, ..RateLimitsConfig::default() };
        let mut problems = Vec::new();
        busy.check(&mut problems);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "rate_limits.breaker_busy");
        let both = RateLimitsConfig { breaker_after: 30, ..busy };
        problems.clear();
        both.check(&mut problems);
        assert_eq!((problems.len(), both.breaker_rules().busy_percent), (0, Some(95)));
        assert_eq!(RateLimitsConfig::default().breaker_rules().busy_percent, None);
    }

    #[test]
    fn networks_that_cannot_be_read_are_reported() {
        let mut problems = Vec::new();
        RateLimitsConfig::default().check(&mut problems);
        assert_eq!(problems, []);
        RateLimitsConfig { exempt: vec!["::1".to_owned(), "home".to_owned()], ..RateLimitsConfig::default() }
            .check(&mut problems);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "rate_limits.exempt");
    }
}
