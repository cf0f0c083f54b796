//! Offers and answers of WebRTC, which the tracker relays.

use std::borrow::Cow;

use crate::fault::{Fault, Field};
use crate::output::Sink;
use crate::scan::{Kind, Scanner, Value};
use crate::text;

/// Offer or answer: a JSON object that the tracker relays byte for byte, unknown members included. It cannot
/// break out of the message it is embedded in, because its grammar has been checked strictly, and every
/// reader can process it, because it has neither lone surrogates nor numbers out of range. Duplicate names
/// are left to the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description<'a>(&'a str);

impl<'a> Description<'a> {
    /// Parses a text that is a JSON object.
    ///
    /// # Errors
    /// When it is anything else, or must not be relayed.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        Self::of(&Scanner::whole(text)?, Field::Offer)
    }

    pub(crate) fn of(value: &Value<'a>, field: Field) -> Result<Self, Fault> {
        match (value.kind, value.flaw) {
            (Kind::Object, None) => Ok(Self(value.raw)),
            (Kind::Object, Some(flaw)) => Err(Fault::of_flaw(flaw, field)),
            (Kind::Null | Kind::Bool | Kind::Number | Kind::String | Kind::Array, _) => {
                Err(Fault::NotObject(field))
            }
        }
    }

    /// Description whose text is that of another one.
    pub(crate) fn known(text: &'a str) -> Self {
        Self(text)
    }

    /// Text as it was sent.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Session description (SDP) in it; `None` if there is none.
    #[must_use]
    pub fn sdp(self) -> Option<Cow<'a, str>> {
        let mut sdp = None;
        let found = Scanner::new(self.0).object(0, |scanner, name, depth| {
            let value = scanner.value(depth)?;
            if text::name(name, &mut [0; 16]) == "sdp" {
                sdp = value.string();
            }
            Ok(())
        });
        found.ok()?;
        text::plain(sdp?)
    }

    /// Text of an offer with this session description.
    #[must_use]
    pub fn write_offer(sdp: &str) -> String {
        write("offer", sdp)
    }

    /// Text of an answer with this session description.
    #[must_use]
    pub fn write_answer(sdp: &str) -> String {
        write("answer", sdp)
    }
}

fn write(kind: &str, sdp: &str) -> String {
    let mut text = format!("{{\"type\":\"{kind}\",\"sdp\":");
    text.quoted(sdp);
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for sdp in ["", "v=0\r\na=mid:\"0\"\r\n", "\0\u{1f}ÿ😀\\"] {
            for text in [Description::write_offer(sdp), Description::write_answer(sdp)] {
                assert_eq!(Description::parse(&text).unwrap().sdp().unwrap(), sdp);
            }
        }
        assert_eq!(Description::write_offer("v=0\r\n"), r#"{"type":"offer","sdp":"v=0\r\n"}"#);
    }

    #[test]
    fn the_session_description_is_the_last_one() {
        let sdp = |text| Description::parse(text).unwrap().sdp();
        assert_eq!(sdp(r#"{"sdp":"a","a":{"sdp":"b"},"sd\u0070":"c"}"#).unwrap(), "c");
        assert_eq!(sdp(r#"{"sdp":1}"#), None);
        assert_eq!(sdp(r#"{}"#), None);
    }

    #[test]
    fn only_objects_that_all_readers_can_read() {
        let parsed = |text| Description::parse(text).map(Description::as_str);
        assert_eq!(
            parsed(" {\"a\" : [1e300, \"\\ud83d\\ude00\", null]}\n"),
            Ok("{\"a\" : [1e300, \"\\ud83d\\ude00\", null]}")
        );
        for not_object in ["null", "true", "1", "\"{}\"", "[{}]"] {
            assert_eq!(parsed(not_object), Err(Fault::NotObject(Field::Offer)));
        }
        for (text, at) in
            [("{}{}", 2), ("{} x", 3), ("{", 1), ("{\"a\":\"\n\"}", 6), ("{'a':1}", 1), ("{\"a\":1,}", 7)]
        {
            assert_eq!(parsed(text), Err(Fault::NotJson { at }));
        }
        assert_eq!(parsed(r#"{"a":["\ud83d"]}"#), Err(Fault::LoneSurrogate(Field::Offer)));
        assert_eq!(parsed(r#"{"\ude00":1}"#), Err(Fault::LoneSurrogate(Field::Offer)));
        assert_eq!(parsed(r#"{"a":[1e400]}"#), Err(Fault::NumberRange(Field::Offer)));
    }

    #[test]
    fn only_numbers_that_all_readers_can_read() {
        let parsed = |number: &str| Description::parse(&format!("{{\"a\":{number}}}")).map(|_| ());
        for read in [
            "0",
            "-0",
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "99999999999999999999999999.0",
            "9999999999999999999999999e1",
            "0.00000000000000000000000000000000000001",
        ] {
            assert_eq!(parsed(read), Ok(()), "{read}");
        }
        let digits = "9".repeat(400);
        for out_of_range in [
            "18446744073709551616",
            "-9223372036854775809",
            "1048222222222222222222222222222222222222222222222222",
            "1e400",
            "-1e400",
            &digits,
            &format!("{digits}.0"),
        ] {
            assert_eq!(parsed(out_of_range), Err(Fault::NumberRange(Field::Offer)), "{out_of_range}");
        }
    }
}
