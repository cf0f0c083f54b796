//! Reasons for which messages are refused.

use std::fmt;

use aquatic_common::InfoHash;

use crate::limits::{MAX_DEPTH, MAX_OFFER_ID_LENGTH};

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Announce of a peer, or an offer or answer.
    Announce,
    /// Scrape of the counts of torrents.
    Scrape,
}

impl Action {
    /// Value of the member `action`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Scrape => "scrape",
        }
    }
}

/// Member of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are named like the members")]
pub enum Field {
    InfoHash,
    PeerId,
    ToPeerId,
    OfferId,
    Offers,
    Offer,
    Answer,
    Interval,
    Complete,
    Incomplete,
    Files,
    FailureReason,
}

impl Field {
    /// Name of the member.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InfoHash => "info_hash",
            Self::PeerId => "peer_id",
            Self::ToPeerId => "to_peer_id",
            Self::OfferId => "offer_id",
            Self::Offers => "offers",
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Interval => "interval",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Files => "files",
            Self::FailureReason => "failure reason",
        }
    }
}

/// A property of a JSON value that is valid but that some readers cannot process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// An escaped half of a surrogate pair, which is no character.
    LoneSurrogate,
    /// A number whose size a double cannot represent, or an integer that has more than 64 bits (RFC 8259,
    /// section 6).
    NumberRange,
}

/// Fault of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message is too long.
    TooLong {
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The message is not UTF-8.
    NotUtf8,
    /// The message is not JSON.
    NotJson {
        /// Position of the first wrong byte.
        at: usize,
    },
    /// Arrays and objects are nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
    /// The message is JSON, but no object.
    NotMessage,
    /// The message has no action.
    ActionMissing,
    /// The action is unknown.
    ActionUnknown,
    /// This member is missing.
    Missing(Field),
    /// This member must be a string.
    NotString(Field),
    /// This member must be a number.
    NotNumber(Field),
    /// This member must be an array.
    NotArray(Field),
    /// This member must be an object.
    NotObject(Field),
    /// This member has this many characters instead of 20.
    Length(Field, usize),
    /// This member has a character above U+00FF, which encodes no byte.
    NotBytes(Field),
    /// An offer id has this many characters, more than the maximum.
    OfferIdTooLong(usize),
    /// This member contains half a surrogate pair, which is no character.
    LoneSurrogate(Field),
    /// This member contains a number whose size a double cannot represent, or an integer that has more than
    /// 64 bits (RFC 8259, section 6).
    NumberRange(Field),
    /// The scrape has no info hash, which elsewhere asks for all torrents.
    FullScrape,
}

impl Fault {
    pub(crate) fn of_flaw(flaw: Flaw, field: Field) -> Self {
        match flaw {
            Flaw::LoneSurrogate => Self::LoneSurrogate(field),
            Flaw::NumberRange => Self::NumberRange(field),
        }
    }

    /// Name for metrics, one of a fixed set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson { .. } | Self::NotMessage => "not_json",
            Self::TooDeep => "too_deep",
            Self::ActionMissing | Self::ActionUnknown => "action",
            Self::Missing(_) => "missing_field",
            Self::NotString(_) | Self::NotNumber(_) | Self::NotArray(_) | Self::NotObject(_) => "wrong_type",
            Self::Length(..) | Self::NotBytes(_) | Self::OfferIdTooLong(_) => "bad_identifier",
            Self::LoneSurrogate(_) | Self::NumberRange(_) => "unsafe_to_relay",
            Self::FullScrape => "full_scrape",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "the message is longer than {limit} bytes"),
            Self::NotUtf8 => write!(f, "the message is not UTF-8"),
            Self::NotJson { at } => write!(f, "the message is not JSON at byte {at}"),
            Self::TooDeep => write!(f, "the message is nested deeper than {MAX_DEPTH} levels"),
            Self::NotMessage => write!(f, "the message is not a JSON object"),
            Self::ActionMissing => write!(f, "action is missing"),
            Self::ActionUnknown => write!(f, "action must be announce or scrape"),
            Self::Missing(field) => write!(f, "{} is missing", field.name()),
            Self::NotString(field) => write!(f, "{} must be a string", field.name()),
            Self::NotNumber(field) => write!(f, "{} must be a number", field.name()),
            Self::NotArray(field) => write!(f, "{} must be an array", field.name()),
            Self::NotObject(field) => write!(f, "{} must be an object", field.name()),
            Self::Length(field, got) => write!(f, "{} must be 20 characters, got {got}", field.name()),
            Self::NotBytes(field) => write!(f, "{} has characters above U+00FF", field.name()),
            Self::OfferIdTooLong(got) => {
                write!(f, "offer_id must be at most {MAX_OFFER_ID_LENGTH} characters, got {got}")
            }
            Self::LoneSurrogate(field) => write!(f, "{} contains half a surrogate pair", field.name()),
            Self::NumberRange(field) => write!(f, "{} contains a number that is out of range", field.name()),
            Self::FullScrape => write!(f, "full scrapes are not supported"),
        }
    }
}

impl std::error::Error for Fault {}

/// Refused message with what its failure reply needs. Clients close the connection on a reply without action,
/// and ignore one without info hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Action of the message; an announce if it has none.
    pub action: Action,
    /// Info hash of the message, if it has a valid one.
    pub info_hash: Option<InfoHash>,
    /// Fault of the message.
    pub fault: Fault,
}
