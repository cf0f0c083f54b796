//! Why no certificate was obtained, and what the operator can do about it.

use serde::{Deserialize, Serialize};

/// Most characters of a failure's text: what authorities say is not bounded.
const MAX_TEXT: usize = 600;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The authority cannot be reached, or does not reply in time.
    Connection,
    /// It replies with something that is not ACME.
    InvalidReply,
    /// It did not take a nonce several times.
    BadNonce,
    /// Too many orders or failures.
    RateLimited,
    /// It could not verify a name.
    Challenge,
    /// It refuses for another reason.
    Refused,
    /// The certificate it sent cannot be used.
    Certificate,
    /// A file in the state directory.
    Storage,
}

impl Reason {
    /// All of them, in the order of declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Connection,
        Self::InvalidReply,
        Self::BadNonce,
        Self::RateLimited,
        Self::Challenge,
        Self::Refused,
        Self::Certificate,
        Self::Storage,
    ];

    /// Label in the metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::InvalidReply => "invalid_reply",
            Self::BadNonce => "bad_nonce",
            Self::RateLimited => "rate_limited",
            Self::Challenge => "challenge",
            Self::Refused => "refused",
            Self::Certificate => "certificate",
            Self::Storage => "storage",
        }
    }

    /// Whether it counts towards the limits of the authority.
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self, Self::Challenge | Self::Refused)
    }
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Seconds since 1970.
    pub(crate) time: i64,
    pub(crate) reason: Reason,
    /// What happened, and what to do about it.
    pub(crate) text: String,
}

/// A failure that has no time yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Fault {
    /// Without control characters, and of bounded length: the text may come from the authority.
    pub(crate) fn new(reason: Reason, text: impl AsRef<str>) -> Self {
        let text = text.as_ref().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        Self { reason, text: text.take(MAX_TEXT).collect() }
    }

    pub(crate) fn at(self, time: i64) -> Failure {
        Failure { time, reason: self.reason, text: self.text }
    }
}

/// Prefix of the types of problems (RFC 8555, 6.7).
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// What the type of a problem means.
pub(crate) fn reason_of_problem(kind: &str) -> Reason {
    match kind.strip_prefix(PROBLEM).unwrap_or(kind) {
        "rateLimited" => Reason::RateLimited,
        "badNonce" => Reason::BadNonce,
        "caa" | "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" => Reason::Challenge,
        "serverInternal" => Reason::Connection,
        _ => Reason::Refused,
    }
}

/// What an operator can do about a problem; `challenge` is the port that the authority connects to.
pub(crate) fn advice(kind: &str, port: u16) -> String {
    match kind.strip_prefix(PROBLEM).unwrap_or(kind) {
        "connection" => format!(
            "Let port {port} of every address of the name reach this machine: firewall, router, IPv6 address in the DNS"
        ),
        "dns" => "Create the A or AAAA record of the name, and wait until it can be seen".to_owned(),
        "unauthorized" | "incorrectResponse" | "tls" => format!(
            "Something else answers on port {port} of an address of the name: look for a proxy or CDN in front, and for \
             records in the DNS that lead to another machine"
        ),
        "caa" => {
            "A CAA record in the DNS does not allow this authority; change it, or acme.directory".to_owned()
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "Name hosts and addresses in network.acme that this authority grants certificates for".to_owned()
        }
        "externalAccountRequired" => {
            "This authority grants certificates to its customers only: make an account on its website, and set \
             acme.external_account_id and acme.external_account_key_path to what it shows"
                .to_owned()
        }
        "invalidContact" | "unsupportedContact" => "Change acme.contact, or leave it empty".to_owned(),
        "invalidProfile" => "Change acme.profile, or leave it empty".to_owned(),
        "rateLimited" => "The authority's limits apply; the next attempt is made when it allows".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_labels_of_their_own() {
        let labels: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }

    #[test]
    fn texts_of_authorities_are_bounded_and_plain() {
        let fault = Fault::new(Reason::Refused, format!("a\x1b[31m\r\nb{}", "x".repeat(10_000)));
        assert!(fault.text.starts_with("a [31m  b") && fault.text.len() == MAX_TEXT, "{}", fault.text);
    }

    #[test]
    fn problems_of_validation_name_the_port() {
        assert_eq!(reason_of_problem("urn:ietf:params:acme:error:connection"), Reason::Challenge);
        assert!(advice("urn:ietf:params:acme:error:connection", 443).contains("port 443"));
        assert_eq!(reason_of_problem("urn:ietf:params:acme:error:rateLimited"), Reason::RateLimited);
        assert_eq!(reason_of_problem("about:blank"), Reason::Refused);
        assert_eq!(advice("about:blank", 80), "");
    }
}
