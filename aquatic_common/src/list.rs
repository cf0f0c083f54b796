//! Access list file format.
//!
//! A line holds one info hash of 40 hexadecimal digits in either case, and optionally white space or a comma
//! with any text behind it. Blank lines and lines that start with `#`, `;` or `//` are ignored, and so is
//! white space in front. A line ends with LF, CR LF, or CR. The file may begin with the byte order mark of
//! UTF-8. Any other line is an error, so that neither a truncated file nor one of another kind (an error page
//! of a web server) passes for a list.

use std::fmt;

use crate::identity::{InfoHash, ParseHexError};
use crate::info_hash_set::InfoHashSet;

/// Byte order mark of UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Length of an info hash in hexadecimal digits.
const DIGITS: usize = 40;

/// Length of the shortest line with an info hash, in bytes.
const MIN_LINE_BYTES: u64 = 41;

/// Maximum number of bad lines that are kept; the others are counted.
const MAX_KEPT_LINES: usize = 10;

/// A line that is neither an info hash nor a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1.
    pub number: u64,
    /// Why the first word of the line is not an info hash.
    pub error: ParseHexError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.error)
    }
}

/// Why a text is not an access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseListError {
    /// Lines are not info hashes.
    BadLines {
        /// The first of them, 10 at most.
        first: Vec<BadLine>,
        /// How many there are.
        total: u64,
    },
    /// There are more info hashes than [`InfoHashSet::MAX_LEN`].
    TooLong,
    /// There is no info hash, and the list may not be empty.
    Empty,
}

impl ParseListError {
    /// Number of lines that are not info hashes.
    #[must_use]
    pub fn bad_lines(&self) -> u64 {
        match self {
            Self::BadLines { total, .. } => *total,
            Self::TooLong | Self::Empty => 0,
        }
    }
}

impl fmt::Display for ParseListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLines { first, total } => {
                write!(f, "{total} line(s) are not info hashes")?;
                first.iter().try_for_each(|line| write!(f, "; {line}"))?;
                let more = total.saturating_sub(first.len() as u64);
                if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
            }
            Self::TooLong => write!(f, "more than {} info hashes", InfoHashSet::MAX_LEN),
            Self::Empty => f.write_str("no info hash in it"),
        }
    }
}

impl std::error::Error for ParseListError {}

/// What the next byte of a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// White space in front of the first word.
    Start,
    /// The first word, which is an info hash or begins a comment.
    Word,
    /// What follows the first word.
    Rest,
}

/// Reads an access list in pieces of any size. Keeps the info hashes and one word, never a line.
#[derive(Debug)]
pub struct ListParser {
    info_hashes: Vec<InfoHash>,
    too_long: bool,
    first_bad: Vec<BadLine>,
    bad: u64,
    line: u64,
    position: Position,
    /// First bytes of the current word.
    word: [u8; DIGITS],
    /// Length of the current word, which may exceed the bytes kept.
    word_len: usize,
    /// Length of the byte order mark read so far; `None` once the text has begun.
    mark: Option<usize>,
    after_carriage_return: bool,
}

impl ListParser {
    /// A parser for a text of about this many bytes; 0 if that is not known. Memory for as many info hashes
    /// as such a text may hold is reserved at once, so that it need not be moved while the list grows.
    #[must_use]
    pub fn new(expected_bytes: u64) -> Self {
        let expected = usize::try_from(expected_bytes.div_ceil(MIN_LINE_BYTES)).unwrap_or(usize::MAX);
        let mut info_hashes = Vec::new();
        // Without this reservation the list grows piece by piece.
        let _ = info_hashes.try_reserve_exact(expected.min(InfoHashSet::MAX_LEN));
        Self {
            info_hashes,
            too_long: false,
            first_bad: Vec::new(),
            bad: 0,
            line: 1,
            position: Position::Start,
            word: [0; DIGITS],
            word_len: 0,
            mark: Some(0),
            after_carriage_return: false,
        }
    }

    /// Reads the next piece of the text.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let (Some(seen), Some((&byte, rest))) = (self.mark, bytes.split_first()) {
            if BYTE_ORDER_MARK.get(seen) != Some(&byte) {
                self.begin_text();
                break;
            }
            bytes = rest;
            self.mark = (seen + 1 < BYTE_ORDER_MARK.len()).then_some(seen + 1);
        }
        for &byte in bytes {
            self.byte(byte);
        }
    }

    /// Builds the set once the whole text has been read.
    ///
    /// # Errors
    /// Bad lines, too many info hashes, or none although the list may not be empty.
    pub fn finish(mut self, allow_empty: bool) -> Result<InfoHashSet, ParseListError> {
        self.begin_text();
        if self.position == Position::Word {
            self.end_word();
        }
        if self.bad > 0 {
            return Err(ParseListError::BadLines { first: self.first_bad, total: self.bad });
        }
        if self.too_long {
            return Err(ParseListError::TooLong);
        }
        if self.info_hashes.is_empty() && !allow_empty {
            return Err(ParseListError::Empty);
        }
        Ok(InfoHashSet::from_unsorted(self.info_hashes))
    }

    /// Reads the bytes that were taken for the beginning of a byte order mark and are none.
    fn begin_text(&mut self) {
        let seen = self.mark.take().unwrap_or(0);
        BYTE_ORDER_MARK.into_iter().take(seen).for_each(|byte| self.byte(byte));
    }

    fn byte(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\r') {
            if byte == b'\r' || !self.after_carriage_return {
                self.end_line();
            }
            self.after_carriage_return = byte == b'\r';
            return;
        }
        self.after_carriage_return = false;
        let separator = byte == b',' || is_white_space(byte);
        match self.position {
            Position::Start if is_white_space(byte) => {}
            Position::Start | Position::Word if separator => {
                self.end_word();
                self.position = Position::Rest;
            }
            Position::Start | Position::Word => {
                self.position = Position::Word;
                if let Some(free) = self.word.get_mut(self.word_len) {
                    *free = byte;
                }
                self.word_len += 1;
            }
            Position::Rest => {}
        }
    }

    fn end_line(&mut self) {
        if self.position == Position::Word {
            self.end_word();
        }
        self.position = Position::Start;
        self.line += 1;
    }

    fn end_word(&mut self) {
        let len = std::mem::take(&mut self.word_len);
        let word = self.word.get(..len.min(DIGITS)).unwrap_or_default();
        if word.starts_with(b"#") || word.starts_with(b";") || word.starts_with(b"//") {
            return;
        }
        let parsed = if len > DIGITS { Err(ParseHexError::Length(len)) } else { InfoHash::from_hex(word) };
        match parsed {
            // The list will not be used, so its memory can go.
            Ok(_) if self.bad > 0 || self.too_long => self.info_hashes = Vec::new(),
            Ok(_) if self.info_hashes.len() == InfoHashSet::MAX_LEN => self.too_long = true,
            Ok(info_hash) => self.info_hashes.push(info_hash),
            Err(error) => {
                self.bad += 1;
                if self.first_bad.len() < MAX_KEPT_LINES {
                    self.first_bad.push(BadLine { number: self.line, error });
                }
            }
        }
    }
}

fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00000000000000000000000000000000000000aa";
    const B: &str = "00000000000000000000000000000000000000BB";

    fn parse(text: &[u8]) -> Result<InfoHashSet, ParseListError> {
        let mut parser = ListParser::new(text.len() as u64);
        parser.feed(text);
        parser.finish(false)
    }

    fn set(info_hashes: &[&str]) -> InfoHashSet {
        info_hashes.iter().map(|text| text.parse::<InfoHash>().unwrap()).collect()
    }

    /// Numbers of the bad lines.
    fn bad(text: &[u8]) -> Vec<u64> {
        match parse(text) {
            Err(ParseListError::BadLines { first, .. }) => first.iter().map(|line| line.number).collect(),
            other => panic!("{:?} is {other:?}", text.escape_ascii().to_string()),
        }
    }

    #[test]
    fn all_common_ways_to_write_a_list_are_read() {
        let both = set(&[A, B]);
        for text in [
            format!("{A}\n{B}\n"),
            format!("{A}\n{B}"),
            format!("{A}\r\n{B}\r\n"),
            format!("{A}\r{B}\r"),
            format!("{A}\r{B}"),
            format!("\u{feff}{A}\n{B}\n"),
            format!("\u{feff}\r\n{A}\n{B}\n"),
            format!("\u{feff}# comment\n{A}\n{B}\n"),
            format!("\n\n  \n\t\r\n{A}\n\n\n{B}\n\n"),
            format!("# one, two\n#\n;\n; comment\n//\n// comment\n//comment\n  # comment\n{A}\n{B}\n"),
            format!("{A} some text\n{B}\tsome more\n"),
            format!("{A},name\n{B},name,nonsense\n"),
            format!("{A}   # comment\n{B} ; comment\n"),
            format!("  {A}  \n\t{B}\t\n"),
            format!("{}\n{}\n", A.to_uppercase(), B.to_lowercase()),
            format!("{A}\n{B}\n{A}\n{B}\n"),
            format!("{A}\n# {}\n{B}\n", "long comment ".repeat(10_000)),
        ] {
            assert_eq!(parse(text.as_bytes()).as_ref(), Ok(&both), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_info_hash_is_an_error_with_its_number() {
        for (line, number) in [
            ("nonsense".to_owned(), 2),
            (A[1..].to_owned(), 2),
            (format!("{A}0"), 2),
            (format!("{A}#"), 2),
            (format!("{A}{A}"), 2),
            (format!(",{A}"), 2),
            (format!("name {A}"), 2),
            (format!("/ {A}"), 2),
            (format!("urn:btih:{A}"), 2),
            (format!("\u{feff}{A}"), 2),
            (format!("\u{a0}{A}"), 2),
            ("\0".to_owned(), 2),
            (format!("\n\n{}", &A[..20]), 4),
        ] {
            for end in ["", "\n", "\r\n", "\r", "\n# comment\n"] {
                let text = format!("{B}\n{line}{end}");
                assert_eq!(bad(text.as_bytes()), [number], "{text:?}");
            }
        }
        assert_eq!(bad(format!("{A}\r\n\r\n\r\nxyz\r\n\r{B}\rxyz").as_bytes()), [4, 7]);
    }

    #[test]
    fn what_is_no_list_at_all_is_an_error() {
        assert_eq!(bad(b"<!DOCTYPE html>\n<title>502 Bad Gateway</title>\n"), [1, 2]);
        let utf_16: Vec<u8> = format!("\u{feff}{A}\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(bad(&utf_16), [1, 2], "the end of the line is LF and NUL");
        assert_eq!(bad(&[0xef]), [1]);
        assert_eq!(bad(&[0xef, 0xbb]), [1]);
        for text in ["", "\n", "\r\n\r\n", "# comment\n", "\u{feff}", "   "] {
            assert_eq!(parse(text.as_bytes()), Err(ParseListError::Empty), "{text:?}");
            let mut parser = ListParser::new(0);
            parser.feed(text.as_bytes());
            assert_eq!(parser.finish(true), Ok(InfoHashSet::default()), "{text:?}");
        }
    }

    #[test]
    fn half_a_file_is_an_error_wherever_a_line_is_cut() {
        let text = format!("{A},first\n{B},second\n");
        let second = A.len() + ",first\n".len();
        for end in 1..text.len() {
            let first_only = end >= A.len() && end <= second;
            let both = end >= second + B.len();
            match parse(&text.as_bytes()[..end]) {
                Ok(found) => assert_eq!(found, if both { set(&[A, B]) } else { set(&[A]) }, "{end}"),
                Err(error) => assert!(!first_only && !both && error.bad_lines() == 1, "{end}: {error}"),
            }
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_result() {
        let good = format!("\u{feff}  {A} text\r\n# comment\r{B},x\r\n\n;").into_bytes();
        let bad = format!("{A}\r\nnonsense, {B}\r\r\n{B}{B}\n\u{feff}").into_bytes();
        for text in [&good, &bad] {
            let whole = parse(text);
            for size in 1..text.len() {
                let mut parser = ListParser::new(0);
                text.chunks(size).for_each(|piece| parser.feed(piece));
                assert_eq!(parser.finish(false), whole, "{size}");
            }
        }
    }

    #[test]
    fn the_first_bad_lines_are_named_and_the_others_counted() {
        let text = format!("{A}\n{}{B}\n", "nonsense\n".repeat(13));
        let error = parse(text.as_bytes()).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.bad_lines(), 13);
        assert!(shown.starts_with("13 line(s) are not info hashes; line 2: expected 40 "), "{shown}");
        assert!(shown.ends_with("; and 3 more") && !shown.contains("line 12"), "{shown}");
    }
}
