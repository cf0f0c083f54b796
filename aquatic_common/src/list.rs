//! Format of files with one entry per line: access lists (info hashes) and block lists (networks).
//!
//! A line holds one entry, and optionally white space or a comma with any text behind it. Blank lines and
//! lines that start with `#`, `;` or `//` are ignored, and so is white space in front. A line ends with LF,
//! CR LF, or CR. The file may begin with the byte order mark of UTF-8. Any other line is an error, so that
//! neither a truncated file nor one of another kind (an error page of a web server) passes for a list.

use std::fmt;

/// Byte order mark of UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Number of bytes of a word that are kept. No entry is longer.
const MAX_WORD: usize = 60;

/// Maximum number of bad lines that are kept; the others are counted.
const MAX_KEPT_LINES: usize = 10;

/// What a list holds.
pub trait ListEntry: Sized {
    /// Why a word is not an entry.
    type Error: fmt::Display;

    /// Names of one entry and of several, for errors.
    const NAMES: (&'static str, &'static str);

    /// Maximum number of entries in a list.
    const MAX_LEN: usize;

    /// Length of the shortest usual line with an entry, in bytes.
    const MIN_LINE_BYTES: u64;

    /// Reads an entry from a word of `len` bytes, of which the first 60 are given.
    ///
    /// # Errors
    /// Why it is none.
    fn from_word(word: &[u8], len: usize) -> Result<Self, Self::Error>;
}

/// A line that is neither an entry nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1.
    pub number: u64,
    /// Why the first word of the line is not an entry.
    pub error: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.error)
    }
}

/// Why a text is not a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseListError {
    /// Lines are not entries.
    BadLines {
        /// Name of several entries.
        entries: &'static str,
        /// The first of the lines, 10 at most.
        first: Vec<BadLine>,
        /// How many there are.
        total: u64,
    },
    /// There are more entries than [`ListEntry::MAX_LEN`].
    TooLong {
        /// Name of several entries.
        entries: &'static str,
        /// Maximum number of entries.
        max: usize,
    },
    /// There is no entry, and the list may not be empty.
    Empty {
        /// Name of one entry.
        entry: &'static str,
    },
}

impl ParseListError {
    /// Number of lines that are not entries.
    #[must_use]
    pub fn bad_lines(&self) -> u64 {
        match self {
            Self::BadLines { total, .. } => *total,
            Self::TooLong { .. } | Self::Empty { .. } => 0,
        }
    }

    /// What an operator does about it. `allow_empty` is the full name of the key that accepts empty lists.
    #[must_use]
    pub fn remedy(&self, allow_empty: &str) -> String {
        match self {
            Self::BadLines { .. } => "Correct or remove these lines, or put a # in front of each".to_owned(),
            Self::TooLong { .. } => "Remove some".to_owned(),
            Self::Empty { .. } => {
                format!("If the list is meant to be empty, set {allow_empty} to true")
            }
        }
    }
}

impl fmt::Display for ParseListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLines { entries, first, total } => {
                write!(f, "{total} line(s) are not {entries}")?;
                first.iter().try_for_each(|line| write!(f, "; {line}"))?;
                let more = total.saturating_sub(first.len() as u64);
                if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
            }
            Self::TooLong { entries, max } => write!(f, "more than {max} {entries}"),
            Self::Empty { entry } => write!(f, "no {entry} in it"),
        }
    }
}

impl std::error::Error for ParseListError {}

/// What the next byte of a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// White space in front of the first word.
    Start,
    /// The first word, which is an entry or begins a comment.
    Word,
    /// What follows the first word.
    Rest,
}

/// Reads a list in pieces of any size. Keeps the entries and one word, never a line.
#[derive(Debug)]
pub struct ListParser<E> {
    entries: Vec<E>,
    too_long: bool,
    first_bad: Vec<BadLine>,
    bad: u64,
    line: u64,
    position: Position,
    /// First bytes of the current word.
    word: [u8; MAX_WORD],
    /// Length of the current word, which may exceed the bytes kept.
    word_len: usize,
    /// Length of the byte order mark read so far; `None` once the text has begun.
    mark: Option<usize>,
    after_carriage_return: bool,
}

impl<E: ListEntry> ListParser<E> {
    /// A parser for a text of about this many bytes; 0 if that is not known. Memory for as many entries as
    /// such a text may hold is reserved at once, so that it need not be moved while the list grows.
    #[must_use]
    pub fn new(expected_bytes: u64) -> Self {
        let expected = usize::try_from(expected_bytes.div_ceil(E::MIN_LINE_BYTES)).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        // Without this reservation the list grows piece by piece.
        let _ = entries.try_reserve_exact(expected.min(E::MAX_LEN));
        Self {
            entries,
            too_long: false,
            first_bad: Vec::new(),
            bad: 0,
            line: 1,
            position: Position::Start,
            word: [0; MAX_WORD],
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

    /// The entries in their order, once the whole text has been read.
    ///
    /// # Errors
    /// Bad lines, too many entries, or none although the list may not be empty.
    pub fn finish(mut self, allow_empty: bool) -> Result<Vec<E>, ParseListError> {
        self.begin_text();
        if self.position == Position::Word {
            self.end_word();
        }
        let (entry, entries) = E::NAMES;
        if self.bad > 0 {
            return Err(ParseListError::BadLines { entries, first: self.first_bad, total: self.bad });
        }
        if self.too_long {
            return Err(ParseListError::TooLong { entries, max: E::MAX_LEN });
        }
        if self.entries.is_empty() && !allow_empty {
            return Err(ParseListError::Empty { entry });
        }
        Ok(self.entries)
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
        let word = self.word.get(..len.min(MAX_WORD)).unwrap_or_default();
        if word.starts_with(b"#") || word.starts_with(b";") || word.starts_with(b"//") {
            return;
        }
        match E::from_word(word, len) {
            // The list will not be used, so its memory can go.
            Ok(_) if self.bad > 0 || self.too_long => self.entries = Vec::new(),
            Ok(_) if self.entries.len() == E::MAX_LEN => self.too_long = true,
            Ok(entry) => self.entries.push(entry),
            Err(error) => {
                self.bad += 1;
                if self.first_bad.len() < MAX_KEPT_LINES {
                    self.first_bad.push(BadLine { number: self.line, error: error.to_string() });
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
    use crate::{InfoHash, Prefix};

    const A: &str = "00000000000000000000000000000000000000aa";
    const B: &str = "00000000000000000000000000000000000000BB";

    fn parse(text: &[u8]) -> Result<Vec<InfoHash>, ParseListError> {
        parse_as(text)
    }

    fn parse_as<E: ListEntry>(text: &[u8]) -> Result<Vec<E>, ParseListError> {
        let mut parser = ListParser::new(text.len() as u64);
        parser.feed(text);
        parser.finish(false)
    }

    fn list(info_hashes: &[&str]) -> Vec<InfoHash> {
        info_hashes.iter().map(|text| text.parse().unwrap()).collect()
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
        let both = list(&[A, B]);
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
            let empty = ParseListError::Empty { entry: "info hash" };
            assert_eq!(parse(text.as_bytes()), Err(empty), "{text:?}");
            let mut parser = ListParser::<InfoHash>::new(0);
            parser.feed(text.as_bytes());
            assert_eq!(parser.finish(true), Ok(Vec::new()), "{text:?}");
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
                Ok(found) => assert_eq!(found, if both { list(&[A, B]) } else { list(&[A]) }, "{end}"),
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

    #[test]
    fn a_block_list_is_read_like_an_access_list() {
        let expected: Vec<Prefix> =
            ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec();
        let (a, b) = ("192.0.2.7/24", "2001:db8::/32");
        for text in [
            format!("# comment\n\n; one\n// two\n{a} spammers\r\n {b}\n"),
            format!("{a}\r{b}\r"),
            format!("\u{feff}{a}\n{b}"),
            format!("{a},x\n{b},192.0.2.1\n"),
            format!("\t{a}\t# \n{}\n", b.to_uppercase()),
        ] {
            assert_eq!(parse_as::<Prefix>(text.as_bytes()).as_ref(), Ok(&expected), "{text:?}");
        }
        let longest = "0000:0000:0000:0000:0000:ffff:255.255.255.255/128";
        assert_eq!(parse_as(longest.as_bytes()), Ok(vec!["255.255.255.255".parse::<Prefix>().unwrap()]));
        let empty = parse_as::<Prefix>(b"# nothing\n").unwrap_err();
        assert_eq!(empty, ParseListError::Empty { entry: "network to block" });
    }

    #[test]
    fn a_block_list_with_a_bad_line_is_rejected_as_a_whole() {
        for (text, expected) in [
            (
                "192.0.2.1\n<html>\nx\ny\nz",
                "4 line(s) are not networks to block; line 2: \"<html>\" is neither",
            ),
            ("192.0.2.1\n10.0.0.0/8#\n", "1 line(s) are not networks to block; line 2: \"10.0.0.0/8#\" is"),
            ("192.0.2.1\n\u{feff}192.0.2.2\n", "; line 2: \"\\u{feff}192.0.2.2\" is neither"),
            ("192.0.2.1\r0.0.0.0/0\r", "; line 2: 0.0.0.0/0 is everybody"),
            ("::1\n\n::/0 all\n", "; line 3: ::/0 is everybody"),
            ("::ffff:0.0.0.0/96", "; line 1: 0.0.0.0/0 is everybody"),
            ("\u{0}", "; line 1: \"\\0\" is neither"),
        ] {
            let error = parse_as::<Prefix>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        for word in [&b"\xff"[..], &[b'1'; 200], "\u{e9}".repeat(100).as_bytes()] {
            assert_eq!(parse_as::<Prefix>(word).unwrap_err().bad_lines(), 1);
        }
    }
}
