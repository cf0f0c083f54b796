//! Methods, versions and response framing of HTTP/1 (RFC 9112).

/// Method of a request. Requests with any other method are refused with status 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`, which is answered like `GET` but without the body.
    Head,
}

/// Version of HTTP in a request line. Later minor versions count as HTTP/1.1, as RFC 9110 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: connections close by default.
    Http10,
    /// HTTP/1.1: connections persist by default.
    Http11,
}

/// Whether the connection persists after a response (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The connection persists, as is the default of HTTP/1.1; the response has no `Connection` field.
    Default,
    /// The connection persists because an HTTP/1.0 client asked for it; the response says `Connection:
    /// keep-alive`.
    KeepAlive,
    /// The connection closes; the response says `Connection: close`.
    Close,
}

/// What the framing of a response depends on, apart from the response itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Whether the connection persists after the response.
    pub persistence: Persistence,
    /// Whether the body is sent. Without it the header fields are those of the response with body.
    pub body: bool,
    /// Whether the response says `Cache-Control: no-store`, so that no cache between tracker and client
    /// replays it.
    pub no_store: bool,
}

impl Framing {
    /// Framing of a response with body that caches may store.
    #[must_use]
    pub const fn new(persistence: Persistence) -> Self {
        Self { persistence, body: true, no_store: false }
    }

    /// The same framing for the last response on its connection, whatever the client asked for.
    #[must_use]
    pub const fn closing(self) -> Self {
        Self { persistence: Persistence::Close, ..self }
    }

    /// The same framing for a response that caches must not store.
    #[must_use]
    pub const fn no_store(self) -> Self {
        Self { no_store: true, ..self }
    }

    /// Whether the response is the last on its connection.
    #[must_use]
    pub fn closes(self) -> bool {
        self.persistence == Persistence::Close
    }
}
