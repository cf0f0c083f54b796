//! What holds for any bytes that a client of the control socket sends. For the tests and the fuzz target
//! `control_lines`.

use super::line::{LineDecoder, MAX_LINE, TooLong};
use super::request::{Request, parse_duration, parse_info_hash, parse_network};

/// Checks that all bytes but the first, in pieces of any size (one of them is the first byte), are the same
/// lines, that a request is read as it is written, and that none of its arguments ends the process.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let expected = lines(stream, 1);
    for piece in [usize::from(piece).max(1), stream.len().max(1)] {
        assert_eq!(lines(stream, piece), expected, "in pieces of {piece}");
    }
    for line in &expected.0 {
        check_line(line);
    }
}

/// The lines, and whether one that is too long follows.
fn lines(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut lines) = (LineDecoder::default(), Vec::new());
    for piece in stream.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.take() {
                Ok(Some(line)) => {
                    assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
                    lines.push(line);
                }
                Ok(None) => break,
                Err(TooLong) => return (lines, true),
            }
        }
    }
    (lines, false)
}

fn check_line(line: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
    let written = serde_json::to_vec(&request).expect("a request can be written");
    assert_eq!(serde_json::from_slice::<Request>(&written).ok(), Some(request.clone()));
    match request {
        Request::Torrent { info_hash: text }
        | Request::Allow { info_hash: text }
        | Request::Deny { info_hash: text }
        | Request::Reset { info_hash: text } => {
            if let Ok(info_hash) = parse_info_hash(&text) {
                assert_eq!(parse_info_hash(&info_hash.to_string()), Ok(info_hash));
            }
            // What the command line would make of it.
            let _ = parse_duration(&text);
        }
        Request::Ban { network, .. } | Request::Unban { network } => {
            if let Ok(prefix) = parse_network(&network) {
                assert!(prefix.length() > 0);
                assert_eq!(parse_network(&prefix.to_string()), Ok(prefix));
            }
        }
        Request::Status {}
        | Request::Top { .. }
        | Request::Bans {}
        | Request::Log { .. }
        | Request::Reload {}
        | Request::Snapshot {}
        | Request::Connections {}
        | Request::Breaker { .. }
        | Request::Cluster { .. }
        | Request::Drain { .. } => {}
    }
}
