//! Lines out of what is received in pieces.

/// Maximum length of a line in bytes, without its end.
pub(crate) const MAX_LINE: usize = 4096;

/// A line was longer than [`MAX_LINE`]. Nothing that follows can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Received bytes that have not been taken yet: at most one line and a read.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineDecoder {
    received: Vec<u8>,
    /// Bytes in which no end of a line was found.
    searched: usize,
}

impl LineDecoder {
    /// Adds received bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Takes the next line, without its end; `None` while it is incomplete.
    pub(crate) fn take(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let unsearched = self.received.get(self.searched..).unwrap_or_default();
        let Some(end) = unsearched.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.received.len();
            return if without_return(&self.received).len() > MAX_LINE { Err(TooLong) } else { Ok(None) };
        };
        let end = self.searched + end;
        self.searched = 0;
        let mut line: Vec<u8> = self.received.drain(..=end).collect();
        line.pop();
        line.truncate(without_return(&line).len());
        if line.len() > MAX_LINE { Err(TooLong) } else { Ok(Some(line)) }
    }

    /// Whether nothing has been received that was not taken.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

/// A line, or the beginning of one, without a carriage return that is part of its end if a line feed follows.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Lines as a naive reader finds them in the whole input; the last element is a line that is too long.
    fn naive(input: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let mut lines = Vec::new();
        let mut rest = input;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if line.len() > MAX_LINE {
                return (lines, true);
            }
            lines.push(line.to_vec());
            rest = &rest[end + 1..];
        }
        (lines, without_return(rest).len() > MAX_LINE)
    }

    #[test]
    fn corpus_of_the_fuzz_target() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/control_lines");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 5, "only {} files", files.len());
        files.iter().for_each(|file| super::super::properties::check_bytes(&std::fs::read(file).unwrap()));
    }

    #[test]
    fn the_end_of_the_longest_line_may_come_in_pieces() {
        let mut decoder = LineDecoder::default();
        decoder.feed(&[b'a'; MAX_LINE]);
        for (piece, line) in [("\r", Ok(None)), ("\n", Ok(Some(vec![b'a'; MAX_LINE])))] {
            decoder.feed(piece.as_bytes());
            assert_eq!(decoder.take(), line);
        }
        decoder.feed(&[b'a'; MAX_LINE]);
        decoder.feed(b"\ra");
        assert_eq!(decoder.take(), Err(TooLong));
    }

    #[test]
    fn any_input_in_any_pieces_gives_the_same_lines() {
        for seed in 0..500 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let longest = [20, 300, MAX_LINE + 2][rng.random_range(0..3)];
            let mut input = Vec::new();
            for _ in 0..rng.random_range(0..8) {
                let len = if rng.random_bool(0.2) { longest } else { rng.random_range(0..=longest) };
                input.extend((0..len).map(|_| *b"{}\r\"a\0\xff".get(rng.random_range(0..7)).unwrap()));
                input.extend(if rng.random_bool(0.5) { &b"\r\n"[..] } else { b"\n" });
            }
            let (expected, too_long) = naive(&input);
            let (mut decoder, mut lines, mut failed) = (LineDecoder::default(), Vec::new(), false);
            let mut rest = &input[..];
            while !rest.is_empty() && !failed {
                let (piece, after) = rest.split_at(rng.random_range(1..=rest.len().min(900)));
                rest = after;
                decoder.feed(piece);
                loop {
                    match decoder.take() {
                        Ok(Some(line)) => lines.push(line),
                        Ok(None) => break,
                        Err(TooLong) => {
                            failed = true;
                            break;
                        }
                    }
                }
                assert!(
                    failed || decoder.received.len() <= MAX_LINE + 1,
                    "seed {seed}: what is kept is bounded"
                );
            }
            assert_eq!((lines, failed), (expected, too_long), "seed {seed}");
        }
    }
}
