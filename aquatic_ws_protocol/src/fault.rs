//! Why a message is refused, and what the client gets to read about it.

use std::fmt;

use aquatic_common::InfoHash;

use crate::limits::{MAX_DEPTH, MAX_OFFER_ID_LENGTH};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A peer of a torrent, and what peers tell each other.
    Announce,
    /// The counts of torrents.
    Scrape,
}

impl Action {
    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Scrape => "scrape",
        }
    }
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as they are on the wire")]
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
    /// The name on the wire.
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
    /// A number that a double cannot represent.
    NumberRange,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has more bytes than this.
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// It is no text.
    NotUtf8,
    /// It is not JSON.
    NotJson {
        /// The position in bytes of what is wrong.
        at: usize,
    },
    /// Lists and objects nest more than [`MAX_DEPTH`] levels.
    TooDeep,
    /// It is JSON, but no object.
    NotMessage,
    /// It does not say what it is about.
    ActionMissing,
    /// It is about something unknown.
    ActionUnknown,
    /// It lacks this.
    Missing(Field),
    /// This has to be a string.
    NotText(Field),
    /// This has to be a number.
    NotNumber(Field),
    /// This has to be a list.
    NotList(Field),
    /// This has to be an object.
    NotObject(Field),
    /// This has to have 20 characters, and has this many.
    Length(Field, usize),
    /// The characters of this have to stand for bytes.
    NotBytes(Field),
    /// An offer is named with this many characters.
    OfferIdTooLong(usize),
    /// This has half a surrogate pair in it, which is no character.
    LoneSurrogate(Field),
    /// This has a number in it that many readers cannot hold.
    NumberRange(Field),
    /// The scrape names no torrent, which elsewhere asks for all of them.
    FullScrape,
}

impl Fault {
    pub(crate) fn of_flaw(flaw: Flaw, field: Field) -> Self {
        match flaw {
            Flaw::LoneSurrogate => Self::LoneSurrogate(field),
            Flaw::NumberRange => Self::NumberRange(field),
        }
    }

    /// One of few names, whatever the message contains.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson { .. } | Self::NotMessage => "not_json",
            Self::TooDeep => "too_deep",
            Self::ActionMissing | Self::ActionUnknown => "action",
            Self::Missing(_) => "missing_field",
            Self::NotText(_) | Self::NotNumber(_) | Self::NotList(_) | Self::NotObject(_) => "wrong_type",
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
            Self::NotText(field) => write!(f, "{} must be a string", field.name()),
            Self::NotNumber(field) => write!(f, "{} must be a number", field.name()),
            Self::NotList(field) => write!(f, "{} must be a list", field.name()),
            Self::NotObject(field) => write!(f, "{} must be an object", field.name()),
            Self::Length(field, got) => write!(f, "{} must be 20 characters, got {got}", field.name()),
            Self::NotBytes(field) => write!(f, "{} has characters above U+00FF", field.name()),
            Self::OfferIdTooLong(got) => {
                write!(f, "offer_id must be at most {MAX_OFFER_ID_LENGTH} characters, got {got}")
            }
            Self::LoneSurrogate(field) => write!(f, "{} has half a surrogate pair in it", field.name()),
            Self::NumberRange(field) => write!(f, "{} has a number in it that is out of range", field.name()),
            Self::FullScrape => write!(f, "full scrapes are not supported"),
        }
    }
}

impl std::error::Error for Fault {}

/// A refused message with what is needed to answer it. Clients take an answer without action for a broken connection, and
/// one without info hash for nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the message was about; an announce, when it does not say.
    pub action: Action,
    /// The torrent it names.
    pub info_hash: Option<InfoHash>,
    /// Why.
    pub fault: Fault,
}
