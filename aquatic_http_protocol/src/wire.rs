//! Results of parsing the front of a buffer, and writing to the front of one.

use aquatic_common::BufferTooSmall;

/// Result of parsing the front of a receive buffer. More bytes never change a result other than
/// [`Parsed::NeedMore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T, R> {
    /// The message is incomplete, and nothing is wrong so far.
    NeedMore,
    /// The message is complete.
    Complete(T),
    /// The message cannot be served.
    Refused(R),
}

/// Destination of a message, written piece by piece: a buffer or a counter of its length.
pub(crate) trait Sink {
    /// Writes bytes as they are.
    fn bytes(&mut self, bytes: &[u8]);

    /// Writes a number in decimal digits.
    fn number(&mut self, number: u64);

    /// Writes a byte string of bencode.
    #[inline]
    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(b":");
        self.bytes(bytes);
    }

    /// Writes an integer of bencode.
    #[inline]
    fn integer(&mut self, number: u32) {
        self.bytes(b"i");
        self.number(number.into());
        self.bytes(b"e");
    }
}

/// Something that can be written, with the same bytes each time.
pub(crate) trait Message {
    fn write(&self, sink: &mut impl Sink);
}

/// Length of a message in bytes.
#[inline]
pub(crate) fn length(message: &impl Message) -> usize {
    let mut counter = Counter(0);
    message.write(&mut counter);
    counter.0
}

/// Writes a message to the front of a buffer and returns its length.
#[inline]
pub(crate) fn put(message: &impl Message, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
    let mut writer = Writer { buffer, length: 0 };
    message.write(&mut writer);
    let Writer { buffer, length: needed } = writer;
    if needed <= buffer.len() { Ok(needed) } else { Err(BufferTooSmall { needed }) }
}

struct Counter(usize);

impl Sink for Counter {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.0 += 1 + number.checked_ilog10().unwrap_or_default() as usize;
    }
}

/// Writes while there is space in the buffer, and counts all bytes.
struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl Sink for Writer<'_> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(slot) = self.buffer.get_mut(self.length..end) {
            slot.copy_from_slice(bytes);
        }
        self.length = end;
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.bytes(itoa::Buffer::new().format(number).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u64);

    impl Message for Number {
        fn write(&self, sink: &mut impl Sink) {
            sink.number(self.0);
        }
    }

    #[test]
    fn digits_are_counted_as_they_are_written() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX]) {
            let mut buffer = [0; 20];
            let written = put(&Number(number), &mut buffer).unwrap();
            assert_eq!(length(&Number(number)), written);
            assert_eq!(buffer.get(..written).unwrap(), number.to_string().as_bytes());
        }
    }
}
