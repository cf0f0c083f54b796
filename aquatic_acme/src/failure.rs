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

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A request, of the account or of an order.
    Request,
    /// A challenge, for which the authority connects to this port.
    Challenge(u16),
}

/// What the type of a problem means.
pub(crate) fn reason_of_problem(kind: &str, about: About) -> Reason {
    match (kind.strip_prefix(PROBLEM).unwrap_or(kind), about) {
        ("rateLimited", _) => Reason::RateLimited,
        ("badNonce", _) => Reason::BadNonce,
        ("caa" | "dns", _) | (_, About::Challenge(_)) => Reason::Challenge,
        ("serverInternal", About::Request) => Reason::Connection,
        (_, About::Request) => Reason::Refused,
    }
}

/// What an operator can do about a problem.
pub(crate) fn advice(kind: &str, about: About) -> String {
    let kind = kind.strip_prefix(PROBLEM).unwrap_or(kind);
    if let About::Challenge(port) = about {
        match kind {
            "connection" => {
                return format!(
                    "Let port {port} of every address of the name reach this machine: firewall, router, IPv6 address in \
                     the DNS"
                );
            }
            "unauthorized" | "incorrectResponse" | "tls" => {
                return format!(
                    "Something else answers on port {port} of an address of the name: look for a proxy or CDN in front, \
                     and for records in the DNS that lead to another machine"
                );
            }
            _ => {}
        }
    }
    match kind {
        "dns" => "Create the A or AAAA record of the name, and wait until it can be seen".to_owned(),
        "unauthorized" => {
            "The authority does not accept the account: check acme.external_account_id and \
             acme.external_account_key_path if they are set; with acme-accounts.json removed from the state directory, \
             another account is made"
                .to_owned()
        }
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
        let (kind, about) = ("urn:ietf:params:acme:error:connection", About::Challenge(443));
        assert_eq!(reason_of_problem(kind, about), Reason::Challenge);
        assert!(advice(kind, about).contains("port 443"));
        let limited = "urn:ietf:params:acme:error:rateLimited";
        assert_eq!(reason_of_problem(limited, About::Request), Reason::RateLimited);
        assert_eq!(reason_of_problem("about:blank", About::Request), Reason::Refused);
        assert_eq!(advice("about:blank", About::Challenge(80)), "");
    }

    #[test]
    fn an_account_that_is_not_accepted_is_no_failed_challenge() {
        let kind = "urn:ietf:params:acme:error:unauthorized";
        assert_eq!(reason_of_problem(kind, About::Request), Reason::Refused);
        let text = advice(kind, About::Request);
        assert!(text.contains("acme-accounts.json") && !text.contains("port"), "{text}");
        assert_eq!(reason_of_problem(kind, About::Challenge(80)), Reason::Challenge);
        assert!(advice(kind, About::Challenge(80)).contains("port 80"));
    }
}
