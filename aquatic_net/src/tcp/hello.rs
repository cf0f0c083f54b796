//! Whether the first message of a TLS handshake has come as a whole. Nothing of TLS is decided here: whatever
//! cannot be the preamble of a handshake counts as whole, so that TLS itself refuses it.

/// Bytes before the contents of a record, and before those of a handshake message.
const RECORD_HEAD: usize = 5;
const MESSAGE_HEAD: usize = 4;

/// Content type of records with handshake messages, and type of the message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Whether these bytes, with which a connection begins, hold all of the client's first message, which may be
/// spread over several records, or can be no such message.
pub(super) fn is_whole(mut bytes: &[u8]) -> bool {
    let (mut head, mut headed) = ([0; MESSAGE_HEAD], 0);
    let mut come = 0;
    loop {
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) {
            return true;
        }
        let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
            return false;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 {
            return true;
        }
        let here = rest.get(..len).unwrap_or(rest);
        for (slot, &byte) in head.iter_mut().skip(headed).zip(here) {
            *slot = byte;
            headed += 1;
        }
        come += here.len();
        if headed > 0 && head[0] != CLIENT_HELLO {
            return true;
        }
        let [_, a, b, c] = head;
        if headed == MESSAGE_HEAD && come >= MESSAGE_HEAD + u32::from_be_bytes([0, a, b, c]) as usize {
            return true;
        }
        bytes = &rest[here.len()..];
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::hello_properties::check_first_bytes;
    use super::*;

    /// A first message with so many bytes of contents.
    fn message(len: u8) -> Vec<u8> {
        [&[CLIENT_HELLO, 0, 0, len][..], &vec![7; len.into()]].concat()
    }

    /// In records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[HANDSHAKE, 3, 1, 0, part.len() as u8][..], part].concat())
            .collect()
    }

    #[test]
    fn a_message_is_whole_with_its_last_byte_however_it_is_cut() {
        for len in [0, 1, 200] {
            let message = message(len);
            for size in [1, 2, 3, 4, 5, 100, 255] {
                let whole = records(&message, size);
                for end in 0..whole.len() {
                    assert!(!is_whole(&whole[..end]), "{len} {size} {end}");
                }
                assert!(is_whole(&whole), "{len} {size}");
                assert!(is_whole(&[&whole[..], b"more"].concat()), "{len} {size}");
            }
        }
    }

    #[test]
    fn the_corpus_of_the_fuzz_target_holds_nothing_that_fails() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/tls_hello");
        let corpus: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(corpus.len() >= 10, "{}", corpus.len());
        for path in corpus {
            let bytes = std::fs::read(path).unwrap();
            check_first_bytes(&bytes);
        }
    }

    #[test]
    fn what_is_no_first_message_is_not_waited_for() {
        for nonsense in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0, 9, 2],
            // An alert in the midst of the message.
            &[HANDSHAKE, 3, 1, 0, 1, CLIENT_HELLO, 21],
        ] {
            assert!(is_whole(nonsense), "{nonsense:?}");
        }
    }
}
