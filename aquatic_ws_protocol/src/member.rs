//! Decoding of the members of a message.

use std::borrow::Cow;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};

use crate::description::Description;
use crate::fault::{Action, Fault, Field};
use crate::offer_id::OfferId;
use crate::scan::{Kind, Value};
use crate::text::{self, twenty_bytes};

/// Member that may be absent. Null counts as absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Member<'a>(Option<Value<'a>>);

impl<'a> Member<'a> {
    pub(crate) fn new(value: Value<'a>) -> Self {
        Self(Some(value).filter(|value| value.kind != Kind::Null))
    }

    pub(crate) fn is_present(self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn value(self) -> Option<Value<'a>> {
        self.0
    }

    pub(crate) fn required(self, field: Field) -> Result<Value<'a>, Fault> {
        self.0.ok_or(Fault::Missing(field))
    }

    /// Text of a string, still escaped.
    pub(crate) fn raw_string(self, field: Field) -> Result<&'a str, Fault> {
        self.required(field)?.string().ok_or(Fault::NotString(field))
    }

    pub(crate) fn info_hash(self) -> Result<InfoHash, Fault> {
        twenty_bytes(self.raw_string(Field::InfoHash)?, Field::InfoHash).map(InfoHash)
    }

    pub(crate) fn peer_id(self, field: Field) -> Result<PeerId, Fault> {
        twenty_bytes(self.raw_string(field)?, field).map(PeerId)
    }

    pub(crate) fn offer_id(self) -> Result<OfferId, Fault> {
        OfferId::read(self.raw_string(Field::OfferId)?)
    }

    pub(crate) fn description(self, field: Field) -> Result<Description<'a>, Fault> {
        Description::of(&self.required(field)?, field)
    }

    pub(crate) fn action(self) -> Result<Action, Fault> {
        let raw = self.0.ok_or(Fault::ActionMissing)?.string().ok_or(Fault::ActionUnknown)?;
        match text::name(raw, &mut [0; 16]) {
            "announce" => Ok(Action::Announce),
            "scrape" => Ok(Action::Scrape),
            _ => Err(Fault::ActionUnknown),
        }
    }

    /// Event of this name in any case. An unknown event is none.
    pub(crate) fn event(self) -> AnnounceEvent {
        let raw = self.0.and_then(|value| value.string()).unwrap_or_default();
        let mut buffer = [0; 16];
        let name = text::name(raw, &mut buffer);
        let events = [
            ("started", AnnounceEvent::Started),
            ("stopped", AnnounceEvent::Stopped),
            ("completed", AnnounceEvent::Completed),
            ("paused", AnnounceEvent::Paused),
        ];
        let known = events.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        known.map_or(AnnounceEvent::None, |(_, event)| event)
    }

    /// Number of bytes, as a number or a string, saturated; `None` if it is absent or anything else.
    pub(crate) fn amount(self) -> Option<u64> {
        let value = self.0?;
        let digits =
            if value.kind == Kind::Number { Cow::Borrowed(value.raw) } else { text::plain(value.string()?)? };
        digits.parse().ok().or_else(|| rounded(&digits).map(saturated_amount))
    }

    /// Integer part of a count, saturated.
    pub(crate) fn count(self, field: Field) -> Result<u32, Fault> {
        let value = self.required(field)?;
        if value.kind != Kind::Number {
            return Err(Fault::NotNumber(field));
        }
        let count = value.raw.parse().ok().or_else(|| rounded(value.raw).map(saturated_count));
        count.ok_or(Fault::NotNumber(field))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn saturated_amount(number: f64) -> u64 {
    number.ceil() as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn saturated_count(number: f64) -> u32 {
    number as u32
}

/// A number that is not below 0, in any notation, such as -0, 1.5 and 12e1.
fn rounded(number: &str) -> Option<f64> {
    let is_number = number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    number.parse().ok().filter(|number| is_number && *number >= 0.0)
}
