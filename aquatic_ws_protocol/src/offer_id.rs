//! Offer ids.

use std::fmt;

use crate::fault::{Fault, Field};
use crate::limits::MAX_OFFER_ID_LENGTH;
use crate::output::Sink;
use crate::text::{Characters, Latin1, LoneSurrogate};

/// Offer id: a string of at most [`MAX_OFFER_ID_LENGTH`] characters that a client chooses for one of its
/// offers. It is stored unescaped, so that ids are equal however they were escaped. Up to 22 characters below
/// U+0100, which includes the ids of all known clients, are stored inline; other ids take up to 256 bytes on
/// the heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(Form);

/// Storage of an id. Equal ids have the same form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// One byte per character, padded with zeros.
    Short { length: u8, bytes: [u8; SHORT] },
    /// Any other id.
    Long(Box<str>),
}

const SHORT: usize = 22;

const _: () = assert!(size_of::<OfferId>() == 24);

impl OfferId {
    /// Offer id with these characters.
    ///
    /// # Errors
    /// When the text is too long.
    pub fn new(text: &str) -> Result<Self, Fault> {
        let count = text.chars().count();
        if count > MAX_OFFER_ID_LENGTH {
            return Err(Fault::OfferIdTooLong(count));
        }
        Ok(Self::of(text.chars()).unwrap_or_else(|| Self(Form::Long(text.into()))))
    }

    /// Offer id with one character per byte, as clients make it from random bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 20]) -> Self {
        let mut short = [0; SHORT];
        short.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        Self(Form::Short { length: 20, bytes: short })
    }

    /// Decodes a string that the scanner has accepted.
    pub(crate) fn read(raw: &str) -> Result<Self, Fault> {
        let Latin1 { bytes, count, is_wide } =
            Latin1::read(raw).map_err(|LoneSurrogate| Fault::LoneSurrogate(Field::OfferId))?;
        match u8::try_from(count) {
            Ok(length) if count <= SHORT && !is_wide => Ok(Self(Form::Short { length, bytes })),
            Ok(_) if count <= MAX_OFFER_ID_LENGTH => {
                let text: String = Characters::of(raw).filter_map(Result::ok).collect();
                Ok(Self(Form::Long(text.into())))
            }
            _ => Err(Fault::OfferIdTooLong(count)),
        }
    }

    /// The inline form; `None` if the characters do not fit.
    fn of(characters: impl Iterator<Item = char>) -> Option<Self> {
        let mut bytes = [0; SHORT];
        let mut length = 0;
        for character in characters {
            *bytes.get_mut(usize::from(length))? = u8::try_from(character).ok()?;
            length += 1;
        }
        Some(Self(Form::Short { length, bytes }))
    }

    /// Characters of the id.
    pub fn characters(&self) -> impl Iterator<Item = char> {
        let (short, long) = match &self.0 {
            Form::Short { length, bytes } => (bytes.get(..usize::from(*length)).unwrap_or_default(), ""),
            Form::Long(text) => (&[][..], &**text),
        };
        short.iter().copied().map(char::from).chain(long.chars())
    }

    /// Heap memory of the id in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Short { .. } => 0,
            Form::Long(text) => text.len(),
        }
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        match &self.0 {
            Form::Short { length, bytes } => {
                sink.quoted_bytes(bytes.get(..usize::from(*length)).unwrap_or_default());
            }
            Form::Long(text) => sink.quoted(text),
        }
    }
}

impl fmt::Debug for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.characters().try_for_each(|character| write!(f, "{}", character.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_however_written() {
        let id = OfferId::new("é\"😀").unwrap();
        assert_eq!(OfferId::read(r#"\u00e9\u0022\ud83d\ude00"#).unwrap(), id);
        assert_eq!(OfferId::read(r#"é\"😀"#).unwrap(), id);
        assert_ne!(OfferId::new("é\"").unwrap(), id);
        assert_ne!(OfferId::new("a").unwrap(), OfferId::new("a\0").unwrap());
        assert_eq!(OfferId::new("aaaaaaaaaaaaaaaaaaaa"), Ok(OfferId::from_bytes(b"aaaaaaaaaaaaaaaaaaaa")));
    }

    #[test]
    fn lengths_are_in_characters() {
        for (character, sizes) in
            [("a", [0..=22, 23..=64]), ("é", [0..=22, 23..=64]), ("😀", [0..=0, 1..=64])]
        {
            for (is_long, size) in
                sizes.into_iter().enumerate().flat_map(|(at, range)| range.map(move |n| (at, n)))
            {
                let text = character.repeat(size);
                let id = OfferId::new(&text).unwrap();
                assert_eq!(id.characters().collect::<String>(), text);
                assert_eq!(OfferId::read(&text).unwrap(), id);
                assert_eq!(id.heap_bytes() > 0, is_long == 1);
            }
            assert_eq!(OfferId::new(&character.repeat(65)), Err(Fault::OfferIdTooLong(65)));
            assert_eq!(OfferId::read(&character.repeat(65)), Err(Fault::OfferIdTooLong(65)));
        }
        assert_eq!(OfferId::read(r"a\udc00"), Err(Fault::LoneSurrogate(Field::OfferId)));
    }
}
