//! Which request gets what, and who is an operator.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquatic_http_protocol::{BufferTooSmall, Framing, Head, HeaderField, ResponseHead, Status, Version};
use aquatic_net::proxy::TrustedProxies;
use aquatic_web::PageRequest;
use arc_swap::ArcSwap;
use flate2::Compression;

use crate::config::StatusConfig;
use crate::documents::{Document, Kind, Shared, Slot};
use crate::history::Range;
use crate::page;
use crate::report::View;
use crate::streams::Subscription;

/// What a page may load and do: nothing but its own style, script, icon and figures.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Header fields with which proxies say that they pass a request on.
const FORWARDING: [&str; 5] = ["Forwarded", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "Via"];

/// Time until a browser whose stream has ended connects again, in milliseconds.
const RETRY: &str = "retry: 5000\n\n";

/// A short text with a status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    status: Status,
    pub(crate) text: &'static str,
    headers: &'static [HeaderField<'static>],
}

const LOGIN: Text = Text {
    status: Status::Unauthorized,
    text: "The operator's view needs the token (status.token) as password; the user name does not matter.\n",
    headers: &[("WWW-Authenticate", "Basic realm=\"aquatic operator\", charset=\"UTF-8\"")],
};

const FORBIDDEN: Text = Text {
    status: Status::Forbidden,
    text: "The operator's view is shown on this machine only. Set status.token to see it from elsewhere.\n",
    headers: &[],
};

const TOO_MANY: Text = Text {
    status: Status::Unavailable,
    text: "too many viewers (status.max_streams); ask for stats.json instead\n",
    headers: &[("Retry-After", "30")],
};

/// For requests that want no body.
const STREAM: Text = Text { status: Status::Ok, text: "a stream of events\n", headers: &[] };

const NO_MODE: Text = Text {
    status: Status::NotFound,
    text: "only stats?mode=everything is served here; see stats.json\n",
    headers: &[],
};

/// How long a document may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    /// It may be asked whether it has changed.
    Revalidate,
    /// Its address changes with it.
    Forever,
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    Document {
        document: Arc<Document>,
        gzip: bool,
        caching: Caching,
        view: View,
    },
    /// The client has the document already.
    Unchanged {
        document: Arc<Document>,
        caching: Caching,
        view: View,
    },
    Text(Text),
    Stream(Subscription),
}

impl Document {
    pub(crate) fn bytes(&self, gzip: bool) -> Arc<[u8]> {
        Arc::clone(self.gzip.as_ref().filter(|_| gzip).unwrap_or(&self.plain))
    }
}

/// What tells caches of a document, whether it is sent or has not changed (RFC 9110 section 15.4.5).
fn caching_fields(document: &Document, caching: Caching, view: View) -> [HeaderField<'_>; 3] {
    let control = match (caching, view) {
        (Caching::Forever, _) => "public, max-age=31536000, immutable",
        (Caching::Revalidate, View::Public) => "no-cache",
        (Caching::Revalidate, View::Operator) => "private, no-cache",
    };
    [("ETag", &document.tag), ("Cache-Control", control), ("Vary", "Accept-Encoding, Authorization")]
}

impl Answer {
    /// A stream ends with its connection.
    pub(crate) fn framing(&self, framing: Framing) -> Framing {
        match self {
            Self::Stream(_) => framing.closing(),
            Self::Document { .. } | Self::Unchanged { .. } | Self::Text(_) => framing,
        }
    }

    /// Writes the head and returns its length. That of a stream has the first line of the stream behind it.
    pub(crate) fn encode_head(&self, framing: Framing, reply: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let mut fields: Vec<HeaderField<'_>> = Vec::with_capacity(12);
        let (status, length) = match self {
            Self::Document { document, gzip, caching, view } => {
                let is_gzip = *gzip && document.gzip.is_some();
                fields.push(("Content-Type", document.content_type));
                fields.extend(is_gzip.then_some(("Content-Encoding", "gzip")));
                fields.extend(caching_fields(document, *caching, *view));
                // Anybody's page may show what everybody may see.
                let shared = *view == View::Public && document.content_type.starts_with("application/json");
                fields.extend(shared.then_some(("Access-Control-Allow-Origin", "*")));
                (Status::Ok, Some(document.bytes(*gzip).len()))
            }
            Self::Unchanged { document, caching, view } => {
                fields.extend(caching_fields(document, *caching, *view));
                (Status::NotModified, None)
            }
            Self::Text(text) => {
                fields.push(("Content-Type", "text/plain; charset=utf-8"));
                fields.push(("Cache-Control", "no-store"));
                fields.extend(text.headers.iter().copied());
                (text.status, Some(text.text.len()))
            }
            Self::Stream(_) => {
                fields.push(("Content-Type", "text/event-stream"));
                fields.push(("Cache-Control", "no-store"));
                // nginx would wait until it has some kilobytes.
                fields.push(("X-Accel-Buffering", "no"));
                (Status::Ok, None)
            }
        };
        fields.push(("Content-Security-Policy", POLICY));
        fields.push(("X-Content-Type-Options", "nosniff"));
        fields.push(("Referrer-Policy", "no-referrer"));
        let written =
            ResponseHead { status, headers: &fields, content_length: length }.encode(framing, reply)?;
        let is_stream = matches!(self, Self::Stream(_)) && framing.body;
        let first = if is_stream { RETRY.as_bytes() } else { &[] };
        let needed = written + first.len();
        let room = reply.get_mut(written..needed).ok_or(BufferTooSmall { needed })?;
        room.copy_from_slice(first);
        Ok(needed)
    }
}

/// Files that do not change while the process runs.
#[derive(Debug)]
pub(crate) struct Assets {
    style: Arc<Document>,
    script: Arc<Document>,
    icon: Arc<Document>,
}

impl Assets {
    pub(crate) fn new() -> Arc<Self> {
        let document = |content_type, text: &str| {
            Arc::new(Document::new(content_type, text.as_bytes().to_vec(), Some(Compression::best())))
        };
        Arc::new(Self {
            style: document("text/css; charset=utf-8", page::STYLE),
            script: document("text/javascript; charset=utf-8", page::SCRIPT),
            icon: document("image/svg+xml", page::ICON),
        })
    }

    /// Versions of style and script.
    pub(crate) fn versions(&self) -> (&str, &str) {
        (self.style.version(), self.script.version())
    }
}

/// Proxies whose requests are not of this machine, although they may run on it.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Their addresses.
    pub trusted: TrustedProxies,
    /// Header fields with which they name clients, besides the usual ones.
    pub headers: Vec<String>,
}

/// Who is an operator.
#[derive(Clone, Debug)]
struct Operators {
    /// Hash of the token, if there is one.
    token: Option<blake3::Hash>,
    trust_loopback: bool,
    proxies: Arc<ArcSwap<Proxies>>,
}

impl Operators {
    /// Whether a request comes from an operator.
    fn include(&self, head: &Head<'_>, peer: Option<IpAddr>) -> bool {
        self.has_token(head) || (self.trust_loopback && self.is_local(head, peer))
    }

    /// Whether the request has the token. Hashes are compared, in constant time.
    fn has_token(&self, head: &Head<'_>) -> bool {
        let (Some(token), Some(field)) = (self.token, head.headers.get("Authorization")) else {
            return false;
        };
        let Some(space) = field.iter().position(|byte| *byte == b' ') else { return false };
        let (scheme, credentials) = field.split_at(space);
        let credentials = credentials.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            return blake3::hash(credentials) == token;
        }
        let Some(decoded) =
            scheme.eq_ignore_ascii_case(b"Basic").then(|| decode_base64(credentials)).flatten()
        else {
            return false;
        };
        let colon = decoded.iter().position(|byte| *byte == b':');
        colon.and_then(|colon| decoded.get(colon + 1..)).is_some_and(|given| blake3::hash(given) == token)
    }

    /// Whether a request comes from a program on this machine that speaks for itself. A web page that has its
    /// own name point to this machine is given away by the `Host` field.
    fn is_local(&self, head: &Head<'_>, peer: Option<IpAddr>) -> bool {
        let proxies = self.proxies.load();
        let is_loopback = peer.is_some_and(|ip| ip.is_loopback() && !proxies.trusted.contains(ip));
        let mut fields = FORWARDING.into_iter().chain(proxies.headers.iter().map(String::as_str));
        let is_forwarded = fields.any(|name| head.headers.get(name).is_some());
        // nginx speaks HTTP/1.0 to the servers behind it unless it is told otherwise.
        is_loopback && !is_forwarded && head.version == Version::Http11 && names_loopback(head)
    }
}

/// Whether the `Host` field names this machine by a loopback address or as localhost.
fn names_loopback(head: &Head<'_>) -> bool {
    let Some(host) = head.headers.get("Host").and_then(|host| str::from_utf8(host).ok()) else {
        return false;
    };
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Bytes of a text in base64 (RFC 4648), with or without padding.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits: &[u8] = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let whole = bits << (6 * (4 - group.len()));
        bytes.extend(whole.to_be_bytes().into_iter().skip(1).take(group.len().checked_sub(1)?));
    }
    Some(bytes)
}

/// Answers requests. Each core has one, and the page's own listener.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    path: Arc<str>,
    operators: Operators,
    assets: Arc<Assets>,
    shared: Arc<Shared>,
}

impl Site {
    pub(crate) fn new(
        config: &StatusConfig,
        proxies: Arc<ArcSwap<Proxies>>,
        assets: Arc<Assets>,
        shared: Arc<Shared>,
    ) -> Self {
        let token = (!config.token.is_empty()).then(|| blake3::hash(config.token.as_bytes()));
        let operators = Operators { token, trust_loopback: config.trust_loopback, proxies };
        Self { path: config.path.as_str().into(), operators, assets, shared }
    }

    /// Whether a request comes from an operator.
    pub(crate) fn is_operator(&self, request: &PageRequest<'_>) -> bool {
        self.operators.include(request.head, request.peer)
    }

    /// The answer to a request; `None` if its path does not belong to the status page.
    pub(crate) fn answer(&self, request: &PageRequest<'_>) -> Option<Answer> {
        let name = request.head.path.strip_prefix(self.path.as_bytes())?;
        let answer = match name {
            b"status.css" => self.asset(request, &self.assets.style),
            b"status.js" => self.asset(request, &self.assets.script),
            b"icon.svg" => self.asset(request, &self.assets.icon),
            b"" | b"stats.json" | b"events" | b"stats" => self.figures(request, name),
            _ => return None,
        };
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        if let Answer::Document { document, gzip, .. } = &answer
            && request.framing.body
        {
            self.shared.sent.fetch_add(document.bytes(*gzip).len() as u64, Ordering::Relaxed);
        }
        Some(answer)
    }

    fn asset(&self, request: &PageRequest<'_>, document: &Arc<Document>) -> Answer {
        let is_named = parameter(request.head.query, b"v") == Some(document.version().as_bytes());
        let caching = if is_named { Caching::Forever } else { Caching::Revalidate };
        send(request, Arc::clone(document), caching, View::Public)
    }

    fn figures(&self, request: &PageRequest<'_>, name: &[u8]) -> Answer {
        let query = request.head.query;
        let view = match parameter(query, b"view") {
            Some(b"operator") if self.is_operator(request) => View::Operator,
            Some(b"operator") => {
                self.shared.denied.fetch_add(1, Ordering::Relaxed);
                return Answer::Text(if self.operators.token.is_some() { LOGIN } else { FORBIDDEN });
            }
            _ => View::Public,
        };
        let range = parameter(query, b"range")
            .and_then(|name| Range::ALL.into_iter().find(|range| range.name().as_bytes() == name));
        let slot = |kind, range| self.shared.slot(Slot { kind, range, view });
        let document = match (name, range) {
            (b"events", _) => return self.stream(request, view),
            (b"stats", _) if parameter(query, b"mode") != Some(b"everything") => {
                return Answer::Text(NO_MODE);
            }
            (b"stats", _) => Some(Arc::clone(&self.shared.summary().opentracker)),
            (b"stats.json", None) => self.shared.summary().json.get(view as usize).cloned(),
            (b"stats.json", Some(range)) => slot(Kind::History, range),
            (_, range) => slot(Kind::Page, range.unwrap_or(Range::Hour)),
        };
        document.map_or(Answer::Text(NO_MODE), |document| send(request, document, Caching::Revalidate, view))
    }

    fn stream(&self, request: &PageRequest<'_>, view: View) -> Answer {
        if !request.framing.body {
            return Answer::Text(STREAM);
        }
        let last = request.head.headers.get("Last-Event-ID").and_then(|id| str::from_utf8(id).ok());
        let last = last.and_then(|id| id.trim().parse().ok()).unwrap_or_default();
        Subscription::new(&self.shared, view, last).map_or(Answer::Text(TOO_MANY), Answer::Stream)
    }
}

impl Document {
    /// What an address names a version of the document by.
    pub(crate) fn version(&self) -> &str {
        self.tag.trim_start_matches("W/").trim_matches('"')
    }
}

fn send(request: &PageRequest<'_>, document: Arc<Document>, caching: Caching, view: View) -> Answer {
    let tags = request.head.headers.get("If-None-Match").unwrap_or_default();
    let tag = document.tag.trim_start_matches("W/").as_bytes();
    if tags.windows(tag.len()).any(|window| window == tag) {
        return Answer::Unchanged { document, caching, view };
    }
    let gzip = accepts_gzip(request.head.headers.get("Accept-Encoding").unwrap_or_default());
    Answer::Document { document, gzip, caching, view }
}

/// Whether an `Accept-Encoding` field accepts gzip.
fn accepts_gzip(field: &[u8]) -> bool {
    let accepted = |name: &[u8]| {
        field.split(|byte| *byte == b',').find_map(|entry| {
            let mut parts = entry.split(|byte| *byte == b';');
            let is_named = parts.next()?.trim_ascii().eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| part.trim_ascii().strip_prefix(b"q="));
            let is_zero = weight.is_some_and(|weight| weight.iter().all(|byte| b"0.".contains(byte)));
            is_named.then_some(!is_zero)
        })
    };
    accepted(b"gzip").or_else(|| accepted(b"*")).unwrap_or(false)
}

/// Value of a parameter of a query.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use aquatic_http_protocol::Parsed;
    use proptest::prelude::*;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    static ASSETS: LazyLock<Arc<Assets>> = LazyLock::new(Assets::new);

    fn of_proxies(trusted: &[&str]) -> Proxies {
        Proxies {
            trusted: TrustedProxies::parse(trusted).unwrap(),
            headers: vec!["CF-Connecting-IP".to_owned()],
        }
    }

    fn site(token: &str, proxies: &[&str]) -> Site {
        let config = StatusConfig { token: token.to_owned(), ..StatusConfig::default() };
        let proxies = Arc::new(ArcSwap::from_pointee(of_proxies(proxies)));
        Site::new(&config, proxies, Arc::clone(&ASSETS), Shared::new(1))
    }

    /// Status of the answer, or `None` if the path belongs to somebody else.
    fn status(site: &Site, peer: Option<IpAddr>, request: &[u8]) -> Option<u16> {
        let Parsed::Complete(head) = Head::parse(request, 8192) else { return None };
        let answer = site.answer(&PageRequest { head: &head, framing: head.framing, peer })?;
        let mut reply = [0; 2048];
        let written = answer.encode_head(answer.framing(head.framing), &mut reply).unwrap();
        let head = String::from_utf8(reply[..written].to_vec()).unwrap();
        assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{head}");
        head.split(' ').nth(1).map(|status| status.parse().unwrap())
    }

    fn request(target: &str, fields: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nHost: localhost:6969\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn paths_of_the_page_are_answered_and_no_others() {
        let site = site("", &[]);
        for (target, expected) in [
            ("/", Some(200)),
            ("/?range=day&view=x", Some(200)),
            ("/stats.json", Some(200)),
            ("/stats.json?range=minute", Some(200)),
            ("/stats?mode=everything", Some(200)),
            ("/stats", Some(404)),
            ("/status.css", Some(200)),
            ("/status.js?v=1", Some(200)),
            ("/icon.svg", Some(200)),
            ("/events", Some(200)),
            ("/announce", None),
            ("/status.css/", None),
            ("*", None),
        ] {
            assert_eq!(status(&site, None, &request(target, "")), expected, "{target}");
        }
        assert_eq!(site.shared.requests.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn what_has_not_changed_is_cached_like_what_is_sent() {
        let site = site("", &[]);
        let fields_of = |fields: &str| {
            let bytes = request("/status.css", fields);
            let Parsed::Complete(head) = Head::parse(&bytes, 8192) else { panic!("a request") };
            let request = PageRequest { head: &head, framing: head.framing, peer: None };
            let answer = site.answer(&request).unwrap();
            let mut reply = [0; 2048];
            let written = answer.encode_head(answer.framing(head.framing), &mut reply).unwrap();
            let head = String::from_utf8(reply[..written].to_vec()).unwrap();
            let is_of_caching =
                |line: &&str| ["ETag", "Cache-Control", "Vary"].iter().any(|name| line.starts_with(name));
            let fields: Vec<String> = head.lines().filter(is_of_caching).map(str::to_owned).collect();
            (head.lines().next().unwrap().to_owned(), fields)
        };
        let (line, fields) = fields_of("");
        assert_eq!((line.as_str(), fields.len()), ("HTTP/1.1 200 OK", 3));
        let tag = fields[0].trim_start_matches("ETag: ");
        assert_eq!(
            fields_of(&format!("If-None-Match: {tag}\r\n")),
            ("HTTP/1.1 304 Not Modified".to_owned(), fields.clone())
        );
    }

    #[test]
    fn this_machine_is_recognised_only_without_a_proxy_in_between() {
        let open = site("", &[]);
        let target = "/?view=operator";
        let remote: IpAddr = [192, 0, 2, 1].into();
        for (peer, bytes, expected) in [
            (Some(LOCAL), request(target, ""), 200),
            (Some("::1".parse().unwrap()), request(target, ""), 200),
            (Some(remote), request(target, ""), 403),
            (None, request(target, ""), 403),
            (Some(LOCAL), request(target, "Via: 1.1 x\r\n"), 403),
            (Some(LOCAL), request(target, "x-forwarded-for: 1.2.3.4\r\n"), 403),
            (Some(LOCAL), request(target, "cf-connecting-ip: 1.2.3.4\r\n"), 403),
            (Some(LOCAL), b"GET /?view=operator HTTP/1.0\r\nHost: localhost\r\n\r\n".to_vec(), 403),
            (Some(LOCAL), b"GET /?view=operator HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(), 403),
            (Some(LOCAL), b"GET /?view=operator HTTP/1.1\r\n\r\n".to_vec(), 403),
            (Some(LOCAL), b"GET /?view=operator HTTP/1.1\r\nHost: [::1]:6969\r\n\r\n".to_vec(), 200),
            (Some(LOCAL), b"GET /?view=operator HTTP/1.1\r\nHost: 127.0.0.1.a.example\r\n\r\n".to_vec(), 403),
        ] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(status(&open, peer, &bytes), Some(expected), "{peer:?} {text}");
        }
        let proxied = site("", &["127.0.0.0/8"]);
        assert_eq!(status(&proxied, Some(LOCAL), &request(target, "")), Some(403));
        open.operators.proxies.store(Arc::new(of_proxies(&["127.0.0.0/8"])));
        assert_eq!(status(&open, Some(LOCAL), &request(target, "")), Some(403), "after a reload");
    }

    #[test]
    fn tokens_are_read_from_both_schemes() {
        let token = "correct horse battery staple";
        let site = site(token, &[]);
        // "user:correct horse battery staple"
        let basic = "Basic dXNlcjpjb3JyZWN0IGhvcnNlIGJhdHRlcnkgc3RhcGxl";
        for (credentials, expected) in [
            (format!("Bearer {token}"), 200),
            (format!("bearer   {token}"), 200),
            (basic.to_owned(), 200),
            (format!("{basic}="), 200),
            (format!("Digest {token}"), 401),
            (token.to_owned(), 401),
            ("Basic".to_owned(), 401),
            ("Bearer ".to_owned(), 401),
        ] {
            let fields = format!("Authorization: {credentials}\r\n");
            let found = status(&site, Some([192, 0, 2, 1].into()), &request("/?view=operator", &fields));
            assert_eq!(found, Some(expected), "{credentials}");
        }
    }

    #[test]
    fn base64_has_one_to_three_bytes_in_a_group() {
        let pairs: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b"Zg==", b"f"),
            (b"Zm8=", b"fo"),
            (b"Zm9v", b"foo"),
            (b"Zm9vYg", b"foob"),
            (b"++//", &[251, 239, 255]),
        ];
        for (text, bytes) in pairs {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text:?}");
        }
        for text in [&b"Zm9v\n"[..], b"Zm 9", b"Zg=x", b"\xff\xff\xff\xff"] {
            assert_eq!(decode_base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn compression_is_negotiated() {
        for (field, accepted) in [
            ("", false),
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("deflate", false),
            (";;,,=", false),
        ] {
            assert_eq!(accepts_gzip(field.as_bytes()), accepted, "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_request_panics(
            target in "[/?&=%a-z.\\-]{0,60}",
            field in proptest::collection::vec(any::<u8>(), 0..60),
            name in prop_oneof!["Authorization", "Accept-Encoding", "If-None-Match", "Last-Event-ID", "Host"],
        ) {
            let field: Vec<u8> = field.into_iter().filter(|byte| !b"\r\n\0".contains(byte)).collect();
            let target = format!("/{target}");
            for target in [target.as_str(), "/?view=operator", "/events"] {
                let bytes = [format!("GET {target} HTTP/1.1\r\n{name}: ").as_bytes(), &field, b"\r\n\r\n"].concat();
                let _ = status(&site("0123456789abcdef", &[]), Some(LOCAL), &bytes);
            }
        }
    }
}
