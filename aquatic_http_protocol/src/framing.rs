//! Request methods and response framing.

/// What the client wants to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The answer.
    Get,
    /// The answer without its body.
    Head,
    /// Something trackers do not do.
    Other,
}

/// What becomes of the connection once the answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, as is the rule since HTTP/1.1.
    Open,
    /// It stays open because the client asked for it over HTTP/1.0, and the answer has to say so.
    KeepAlive,
    /// It closes, and the answer says so.
    Close,
}

/// What the frame of an answer depends on, apart from the answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// What becomes of the connection.
    pub persistence: Persistence,
    /// Whether to send the body, and not just what would stand before it.
    pub body: bool,
}

impl Framing {
    /// For an answer that is the last on its connection, whatever the client asked for.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { persistence: Persistence::Close, ..self }
    }

    /// Whether the answer is the last on its connection.
    #[must_use]
    pub fn closes(self) -> bool {
        self.persistence == Persistence::Close
    }
}
