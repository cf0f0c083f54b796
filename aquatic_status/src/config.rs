//! Configuration of the status page.

use std::net::SocketAddr;

use aquatic_common::settings::Problem;

/// Shortest token in bytes.
const MIN_TOKEN: usize = 16;

/// Last segments of paths that belong to the tracker.
const TRACKER_PATHS: [&str; 3] = ["announce", "scrape", "health"];

aquatic_common::settings! {
    /// Status page for browsers, with the same figures as JSON. Everybody sees requests, peers and how fast
    /// the tracker answers. What an attacker could use (limits, load, drops by reason) is shown to operators
    /// only: at ?view=operator, from this machine or with the token. Addresses and info hashes are not shown.
    pub struct StatusConfig, section "status" {
        /// Serve the status page.
        pub enable: bool = true;
        /// Path of the page on the ports of HTTP and WebTorrent. It begins and ends with a slash.
        pub path: String = "/".to_owned();
        /// Serve the page at an address of its own instead of on the ports of HTTP and WebTorrent, with
        /// /health, and with /metrics for operators. It is answered even if a worker has stalled. Connections
        /// are not encrypted.
        pub own_address: bool = false;
        /// Address and port of the page, if own_address is true.
        pub address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 6970));
        /// Password of operators, of at least 16 bytes; empty for none. Browsers ask for it (the user name
        /// does not matter); programs send it as "Authorization: Bearer TOKEN". Use it over TLS only.
        pub token: String = String::new();
        /// Treat anyone who connects from this machine as an operator. Requests that a proxy has passed on do
        /// not count as from this machine if they have a header such as X-Forwarded-For or one of
        /// proxies.client_headers, or come from proxies.trusted_proxies. Set it to false if a proxy on this
        /// machine sends no such header.
        pub trust_loopback: bool = true;
        /// Maximum number of viewers with a stream of live figures; each takes a connection. Further ones ask
        /// for the figures every few seconds.
        pub max_streams: usize = 256, unit "viewers", in 0..=100_000;
        /// Announce URLs that the page shows. If empty, they are those of the ports, with the host name that
        /// the page was opened with.
        pub announce_urls: Vec<String> = Vec::new();
    }
}

impl StatusConfig {
    /// Whether the page is served by the cores.
    #[must_use]
    pub fn on_cores(&self) -> bool {
        self.enable && !self.own_address
    }

    /// Reports a path, a token or URLs that cannot be used.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let mut add = |key, text: String| problems.push(Problem::new(key, text));
        let path = &self.path;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        if !path.starts_with('/') || !path.ends_with('/') || !path.bytes().all(is_plain) {
            let text = format!(
                "\"{path}\" is not a path that begins and ends with a slash and has nothing but letters, digits \
                 and -._~ in between; write \"/\" or \"/status/\""
            );
            add(Self::path, text);
        }
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let last = last.strip_suffix(".php").unwrap_or(last).to_ascii_lowercase();
        if TRACKER_PATHS.contains(&last.as_str()) {
            add(Self::path, format!("\"{path}\" belongs to the tracker; choose another name"));
        }
        if !self.token.is_empty() && self.token.len() < MIN_TOKEN {
            let text = format!(
                "has {} bytes, at least {MIN_TOKEN} are needed; \"openssl rand -hex 16\" prints a good one",
                self.token.len()
            );
            add(Self::token, text);
        }
        if !self.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            add(
                Self::token,
                "has spaces or characters that are not ASCII; use letters and digits".to_owned(),
            );
        }
        if let Some(url) = self.announce_urls.iter().find(|url| !is_announce_url(url)) {
            let text = format!(
                "\"{url}\" is not an announce URL; write udp://tracker.example:6969/announce, or the same with http, \
                 https, ws or wss"
            );
            add(Self::announce_urls, text);
        }
    }
}

fn is_announce_url(url: &str) -> bool {
    let schemes = ["udp://", "http://", "https://", "ws://", "wss://"];
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut StatusConfig)) -> Vec<String> {
        let mut config = StatusConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn what_cannot_be_used_is_reported() {
        let none = [""; 0];
        assert_eq!(keys(|_| ()), none);
        for path in ["/status/", "/a/b-1/", "/"] {
            assert_eq!(keys(|config| config.path = path.to_owned()), none, "{path}");
        }
        for path in
            ["", "status", "/status", "status/", "/a b/", "/a?/", "/%41/", "/announce/", "/x/Scrape.php/"]
        {
            let found = keys(|config| config.path = path.to_owned());
            assert_eq!(found, ["status.path"], "{path}");
        }
        assert_eq!(keys(|config| config.token = "x".repeat(15)), ["status.token"]);
        assert_eq!(keys(|config| config.token = format!("{} y", "x".repeat(16))), ["status.token"]);
        assert_eq!(keys(|config| config.token = "x".repeat(16)), none);
        for (url, found) in [
            ("udp://tracker.example:6969/announce", &none[..]),
            ("wss://tracker.example", &none),
            ("tracker.example", &["status.announce_urls"]),
            ("javascript:alert(1)", &["status.announce_urls"]),
            ("http://", &["status.announce_urls"]),
        ] {
            assert_eq!(keys(|config| config.announce_urls = vec![url.to_owned()]), found, "{url}");
        }
    }
}
