//! What holds for any bytes that a client may send, in pieces of any size, and however slowly it receives.
//! For the tests and the fuzz target `http_front`.

use std::rc::Rc;

use aquatic_http_protocol::Refusal;

use crate::fakes::{Closed, Read, SWITCHING, Served, Sites};

/// Maximum number of pieces that differ from the rest of the stream.
const MAX_PIECES: usize = 64;
/// Maximum length of a stream, so that none takes long.
const MAX_STREAM: usize = 20_000;

/// How a client sends and receives: a byte of flags, one for what it receives, the number of pieces, for each
/// of them a byte with its length and whether it comes by itself, and the stream.
struct Script<'a> {
    sites: Sites,
    stopping: bool,
    released: bool,
    fails: bool,
    room: usize,
    max_write: usize,
    pieces: &'a [u8],
    stream: &'a [u8],
}

impl<'a> Script<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let [flags, receives, count, rest @ ..] = bytes else { return None };
        let (pieces, stream) = rest.split_at_checked(usize::from(*count) % (MAX_PIECES + 1))?;
        Some(Self {
            sites: if flags & 1 == 0 { Sites::Both } else { Sites::OnlySockets },
            stopping: flags & 2 != 0,
            released: flags & 4 != 0,
            fails: flags & 8 != 0,
            room: usize::from(receives & 0xf) * 16,
            max_write: if receives >> 4 == 0 { usize::MAX } else { usize::from(receives >> 4) },
            pieces,
            stream: &stream[..stream.len().min(MAX_STREAM)],
        })
    }

    /// The reads of a connection that gets the stream piece by piece.
    fn reads(&self) -> Vec<Read> {
        let (mut reads, mut rest) = (Vec::new(), self.stream);
        for piece in self.pieces {
            let (first, last) = rest.split_at((usize::from(piece & 0x7f) + 1).min(rest.len()));
            if !first.is_empty() {
                reads.push(Read::Bytes(first.to_vec()));
            }
            if piece & 0x80 != 0 {
                reads.push(Read::Pause);
            }
            rest = last;
        }
        if !rest.is_empty() {
            reads.push(Read::Bytes(rest.to_vec()));
        }
        reads
    }
}

/// What has come of a connection.
#[derive(Debug)]
struct Seen {
    paths: Vec<String>,
    sent: Vec<u8>,
    refusals: Vec<Refusal>,
    upgraded: Option<(String, Vec<u8>)>,
}

/// Serves a connection to its end.
fn serve(script: &Script<'_>, mut reads: Vec<Read>, slow: bool) -> Seen {
    let received = script.stream.len();
    reads.push(if script.fails { Read::Fail } else { Read::End });
    let mut served = Served::new(script.sites, reads);
    served.wire().stopping = script.stopping;
    served.log.released.set(!slow || script.released);
    if slow {
        (served.wire().room, served.wire().max_write) = (script.room, script.max_write);
    }
    let mut ended = false;
    for room in [200, 3000, usize::MAX, usize::MAX] {
        ended = served.run();
        if ended {
            break;
        }
        served.log.released.set(true);
        served.wire().room = room;
    }
    assert!(ended, "the connection stays open");
    let log = Rc::clone(&served.log);
    let (sent, closed) = {
        let wire = served.wire();
        (wire.sent.clone(), wire.closed)
    };
    let seen =
        Seen { paths: log.paths.take(), sent, refusals: log.refusals.take(), upgraded: log.upgraded.take() };
    check_end(&seen, closed, script.fails);
    let (counted, sent) = log.bytes.get();
    assert!(counted <= received, "{counted} of {received} bytes counted");
    assert!(
        matches!(script.sites, Sites::OnlySockets) || sent == seen.sent.len(),
        "sent bytes counted: {sent}"
    );
    assert_eq!(log.given_up.get(), 0, "nothing is given up");
    seen
}

fn check_end(seen: &Seen, closed: Option<Closed>, fails: bool) {
    assert!(seen.refusals.len() <= 1, "nothing is believed after a refusal");
    match (seen.refusals.len(), &seen.upgraded) {
        (1, None) => assert_eq!(closed, Some(Closed::Lingering)),
        (0, Some(_)) => assert!(seen.sent.ends_with(SWITCHING)),
        (0, None) => assert!(fails || closed.is_some(), "a connection is closed"),
        (_, _) => panic!("upgraded after a refusal"),
    }
}

/// However a stream is cut, and however slowly replies are received, each request gets the same reply.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some(script) = Script::decode(bytes) else { return };
    let whole = serve(&script, vec![Read::Bytes(script.stream.to_vec())], false);
    let pieces = serve(&script, script.reads(), true);
    if whole.refusals.is_empty() && pieces.refusals.is_empty() {
        assert_eq!(whole.paths, pieces.paths);
        assert_eq!(whole.sent, pieces.sent);
        assert_eq!(whole.upgraded, pieces.upgraded);
        return;
    }
    // Whether something is refused may depend on the pieces: empty lines that come one by one, and how much
    // of a head is there when it becomes clear that it is too long. What comes before does not.
    let (fewer, more) =
        if whole.paths.len() < pieces.paths.len() { (&whole, &pieces) } else { (&pieces, &whole) };
    assert!(more.paths.starts_with(&fewer.paths), "{fewer:?}, {more:?}");
    let refusal: &[u8] = b"HTTP/1.1 400 ";
    let replies = |seen: &Seen| {
        let end = seen.sent.windows(refusal.len()).rposition(|part| part == refusal);
        end.filter(|_| !seen.refusals.is_empty()).unwrap_or(seen.sent.len())
    };
    let both = replies(&whole).min(replies(&pieces));
    assert_eq!(whole.sent[..both], pieces.sent[..both]);
}
