//! Replies to the HTTP-01 challenge (RFC 8555, 8.3), by which an authority verifies that a name leads here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aquatic_http_protocol::{Framing, PlainReply, Status};

/// What the paths of challenges begin with.
const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// Replies by token while challenges are under way, on all cores. Copies share them. Only requests below the
/// path of challenges look, and nobody holds the lock for longer than that.
#[derive(Clone, Debug, Default)]
pub struct HttpChallenges(Arc<Mutex<BTreeMap<String, String>>>);

impl HttpChallenges {
    /// Has a token answered.
    pub fn add(&self, token: &str, reply: &str) {
        let mut replies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        replies.insert(token.to_owned(), reply.to_owned());
    }

    /// Forgets all tokens.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Writes the reply to a request and returns its length; `None` if its path is that of no challenge.
    pub(crate) fn respond(&self, path: &[u8], framing: Framing, reply: &mut [u8]) -> Option<usize> {
        let token = std::str::from_utf8(path.strip_prefix(PREFIX)?).ok()?;
        let replies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = replies.get(token)?;
        PlainReply::text(Status::Ok, text).encode(framing, reply).ok()
    }
}

#[cfg(test)]
mod tests {
    use aquatic_http_protocol::Persistence;

    use super::*;

    #[test]
    fn tokens_are_answered_until_they_are_forgotten() {
        let challenges = HttpChallenges::default();
        let get = |path: &str| {
            let mut reply = [0; 2048];
            let framing = Framing::new(Persistence::Close);
            let written = challenges.respond(path.as_bytes(), framing, &mut reply)?;
            Some(String::from_utf8_lossy(&reply[..written]).into_owned())
        };
        assert_eq!(get("/.well-known/acme-challenge/abc"), None);
        challenges.add("abc", "abc.thumbprint");
        let reply = get("/.well-known/acme-challenge/abc").unwrap();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("\r\n\r\nabc.thumbprint"), "{reply}");
        for path in ["/abc", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/ab", "/"] {
            assert_eq!(get(path), None, "{path}");
        }
        challenges.clear();
        assert_eq!(get("/.well-known/acme-challenge/abc"), None);
    }
}
