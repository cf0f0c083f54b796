//! What is ready to be sent: documents with their compressed form, and the events of the last minute.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::history::Range;
use crate::report::View;

/// Events that a viewer who comes back is sent, one a second.
pub(crate) const KEPT_EVENTS: usize = 60;

/// Smallest document that is worth compressing, in bytes.
const MIN_COMPRESSED: usize = 512;

/// A document in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) content_type: &'static str,
    pub(crate) plain: Arc<[u8]>,
    /// Compressed by gzip, if anybody is likely to ask for it.
    pub(crate) gzip: Option<Arc<[u8]>>,
    /// Weak entity tag, the same for both forms.
    pub(crate) tag: String,
}

impl Document {
    /// A document that is compressed if there is a level for that, and if it is worth it.
    pub(crate) fn new(content_type: &'static str, bytes: Vec<u8>, level: Option<Compression>) -> Self {
        let hash = blake3::hash(&bytes).to_hex();
        let tag = format!("W/\"{}\"", hash.get(..16).unwrap_or_default());
        let level = level.filter(|_| bytes.len() >= MIN_COMPRESSED);
        let gzip = level.and_then(|level| compress(&bytes, level));
        Self { content_type, plain: bytes.into(), gzip, tag }
    }

    fn empty() -> Arc<Self> {
        Arc::new(Self::new("text/plain", Vec::new(), None))
    }
}

fn compress(bytes: &[u8], level: Compression) -> Option<Arc<[u8]>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), level);
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Into::into)
}

/// An event, for each view.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Second of the event; later events have larger numbers.
    pub(crate) id: u64,
    pub(crate) views: [Arc<[u8]>; 2],
}

/// Documents that exist for each range and view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The page.
    Page,
    /// The JSON with the history.
    History,
}

/// Position of a document that exists for each range and view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    pub(crate) range: Range,
    pub(crate) view: View,
}

impl Slot {
    /// Number of slots.
    pub(crate) const COUNT: usize = 2 * Range::ALL.len() * View::ALL.len();

    /// All slots, by index.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let with = |kind, range| View::ALL.map(|view| Self { kind, range, view });
        let of = move |kind| Range::ALL.into_iter().flat_map(move |range| with(kind, range));
        [Kind::Page, Kind::History].into_iter().flat_map(of)
    }

    pub(crate) fn index(self) -> usize {
        let Self { kind, range, view } = self;
        ((kind as usize) * Range::ALL.len() + range as usize) * View::ALL.len() + view as usize
    }
}

/// Everything that viewers get, as of one second.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Newest last.
    pub(crate) events: VecDeque<Event>,
    /// The JSON without history, for each view.
    pub(crate) json: [Arc<Document>; 2],
    pub(crate) slots: Vec<Arc<Document>>,
    pub(crate) opentracker: Arc<Document>,
}

impl Published {
    /// The second of the documents.
    fn second(&self) -> u64 {
        self.events.back().map_or(0, |event| event.id)
    }
}

impl Default for Published {
    fn default() -> Self {
        let empty = Document::empty();
        Self {
            events: VecDeque::new(),
            json: [Arc::clone(&empty), Arc::clone(&empty)],
            slots: vec![Arc::clone(&empty); Slot::COUNT],
            opentracker: empty,
        }
    }
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) published: ArcSwap<Published>,
    /// When each slot was last asked for, in seconds since 1970.
    asked: [AtomicU64; Slot::COUNT],
    /// When a document without a slot was last asked for.
    summary_asked: AtomicU64,
    /// Viewers with a stream.
    pub(crate) streams: AtomicUsize,
    pub(crate) max_streams: usize,
    /// Requests that were answered.
    pub(crate) requests: AtomicU64,
    /// Requests for the view of operators that were denied.
    pub(crate) denied: AtomicU64,
    /// Bytes of documents and events that were sent.
    pub(crate) sent: AtomicU64,
    /// Streams that were refused because there were too many.
    pub(crate) streams_refused: AtomicU64,
    /// Streams that ended because their client did not receive.
    pub(crate) streams_slow: AtomicU64,
}

impl Shared {
    pub(crate) fn new(max_streams: usize) -> Arc<Self> {
        Arc::new(Self {
            published: ArcSwap::default(),
            asked: [const { AtomicU64::new(0) }; Slot::COUNT],
            summary_asked: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            max_streams,
            requests: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            streams_refused: AtomicU64::new(0),
            streams_slow: AtomicU64::new(0),
        })
    }

    /// The document of a slot. It is made again every second for as long as it is asked for.
    pub(crate) fn slot(&self, slot: Slot) -> Option<Arc<Document>> {
        let published = self.published.load();
        if let Some(asked) = self.asked.get(slot.index()) {
            asked.store(published.second(), Ordering::Relaxed);
        }
        published.slots.get(slot.index()).cloned()
    }

    /// What has no slot. It is compressed for as long as it is asked for.
    pub(crate) fn summary(&self) -> Arc<Published> {
        let published = self.published.load_full();
        self.summary_asked.store(published.second(), Ordering::Relaxed);
        published
    }

    /// When a document without a slot was last asked for.
    pub(crate) fn summary_asked(&self) -> u64 {
        self.summary_asked.load(Ordering::Relaxed)
    }

    /// When a slot was last asked for.
    pub(crate) fn asked(&self, slot: Slot) -> u64 {
        self.asked.get(slot.index()).map_or(0, |asked| asked.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn slots_have_indices_of_their_own() {
        let indices: Vec<_> = Slot::all().map(Slot::index).collect();
        assert_eq!(indices, (0..Slot::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn documents_are_the_same_in_both_forms() {
        let text = "requests ".repeat(100).into_bytes();
        let document = Document::new("text/plain", text.clone(), Some(Compression::fast()));
        assert!(Document::new("text/plain", text.clone(), None).gzip.is_none());
        let gzip = document.gzip.unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut unpacked).unwrap();
        assert_eq!((unpacked, &*document.plain), (text.clone(), &*text));
        assert!(gzip.len() < 100, "{}", gzip.len());
        assert!(document.tag.starts_with("W/\"") && document.tag.len() == 20, "{}", document.tag);
        let other = Document::new("text/plain", b"x".to_vec(), Some(Compression::fast()));
        assert!(other.gzip.is_none() && other.tag != document.tag);
    }
}
