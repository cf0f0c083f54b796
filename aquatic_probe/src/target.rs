//! Announce URLs.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Maximum length of a URL in bytes.
const MAX_URL: usize = 2048;

/// Scheme of an announce URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// UDP (BEP 15).
    Udp,
    /// HTTP (BEP 3).
    Http,
    /// HTTP over TLS.
    Https,
    /// WebTorrent over WebSocket.
    Ws,
    /// The same over TLS.
    Wss,
}

impl Scheme {
    const ALL: [(&str, Self, Option<u16>); 5] = [
        ("udp", Self::Udp, None),
        ("http", Self::Http, Some(80)),
        ("https", Self::Https, Some(443)),
        ("ws", Self::Ws, Some(80)),
        ("wss", Self::Wss, Some(443)),
    ];

    fn row(self) -> (&'static str, Self, Option<u16>) {
        // Each scheme has a row.
        *Self::ALL.iter().find(|(_, scheme, _)| *scheme == self).unwrap_or(&Self::ALL[0])
    }

    /// Name in URLs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether it is WebTorrent.
    #[must_use]
    pub fn is_webtorrent(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Announce URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme.
    pub scheme: Scheme,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, which begin with a slash.
    pub path: String,
}

impl Target {
    /// Host and port as they are written in a `Host` header: the port only if it is not the scheme's.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.scheme.row().2 == Some(self.port) { host } else { format!("{host}:{}", self.port) }
    }

    /// Path of scrapes (BEP 48): "announce" behind the last slash becomes "scrape"; `None` where it does not
    /// stand there.
    pub(crate) fn scrape_path(&self) -> Option<String> {
        let (path, query) =
            self.path.split_once('?').map_or((self.path.as_str(), None), |(p, q)| (p, Some(q)));
        let (directory, last) = path.rsplit_once('/')?;
        let rest = last.strip_prefix("announce")?;
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("{directory}/scrape{rest}{query}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

/// Why a text is no announce URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseTargetError {
    /// No scheme that trackers use.
    Scheme,
    /// No host, or one with a user name or characters that hosts do not have.
    Host,
    /// No port, or none from 1 to 65535.
    Port,
    /// Characters that cannot be sent in a request.
    Characters,
}

impl fmt::Display for ParseTargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "begin with udp://, http://, https://, ws:// or wss://",
            Self::Host => {
                "write a host name or address behind the scheme: udp://tracker.example.org:6969/announce"
            }
            Self::Port => {
                "write a port from 1 to 65535 behind the host: udp://tracker.example.org:6969/announce"
            }
            Self::Characters => "URLs have visible ASCII characters only, at most 2048; write others as %XX",
        })
    }
}

impl std::error::Error for ParseTargetError {}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        if text.len() > MAX_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParseTargetError::Characters);
        }
        let (name, rest) = text.split_once("://").ok_or(ParseTargetError::Scheme)?;
        let known = Scheme::ALL.into_iter().find(|(known, ..)| name.eq_ignore_ascii_case(known));
        let (_, scheme, default_port) = known.ok_or(ParseTargetError::Scheme)?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = host_and_port(authority)?;
        let port = port.or(default_port).ok_or(ParseTargetError::Port)?;
        let path = match path {
            "" => "/announce".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        Ok(Self { scheme, host, port, path })
    }
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), ParseTargetError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(ParseTargetError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| ParseTargetError::Host)?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or_default()) })
    } else {
        let (host, port) =
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(ParseTargetError::Host);
        }
        (host, port)
    };
    let port = port.map(|port| port.parse().ok().filter(|&port| port != 0).ok_or(ParseTargetError::Port));
    Ok((host.to_owned(), port.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, ParseTargetError> {
        text.parse()
    }

    #[test]
    fn urls_are_taken_apart() {
        let target = parse("UDP://tracker.example.org:6969").unwrap();
        assert_eq!((target.scheme, target.port, target.path.as_str()), (Scheme::Udp, 6969, "/announce"));
        let target = parse("https://[2001:db8::1]/x/announce.php?passkey=1#top").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("2001:db8::1", 443));
        assert_eq!(target.to_string(), "https://[2001:db8::1]/x/announce.php?passkey=1");
        assert_eq!(target.scrape_path().unwrap(), "/x/scrape.php?passkey=1");
        assert_eq!(parse("ws://a.example:8000/").unwrap().scrape_path(), None);
        assert_eq!(parse("http://a.example?k=1").unwrap().path, "/?k=1");
    }

    #[test]
    fn anything_else_is_explained() {
        assert_eq!(parse("tracker.example.org:6969"), Err(ParseTargetError::Scheme));
        assert_eq!(parse("ftp://a.example/"), Err(ParseTargetError::Scheme));
        assert_eq!(parse("udp://a.example/announce"), Err(ParseTargetError::Port));
        for bad in ["http://a.example:0/", "http://a.example:65536/", "http://a.example:/", "http://[::1]x/"]
        {
            assert_eq!(parse(bad), Err(ParseTargetError::Port), "{bad}");
        }
        for bad in [
            "http:///announce",
            "http://user:word@a.example/",
            "http://[::1",
            "http://[name]/",
            "http://a*b/",
        ] {
            assert!(matches!(parse(bad), Err(ParseTargetError::Host | ParseTargetError::Port)), "{bad}");
        }
        for bad in ["http://a.example/\r\nX: y", "http://a.example/ä", "http://a.example/ "] {
            assert_eq!(parse(bad), Err(ParseTargetError::Characters), "{bad}");
        }
    }
}
