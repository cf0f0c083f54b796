//! Request encoding, for clients.

use aquatic_common::{AnnounceEvent, BufferTooSmall, InfoHash, PeerId};

use crate::query::encode_20;
use crate::wire::{Message, Sink, put};

/// Header fields of the requests of a client to a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHeaders<'a> {
    /// Name or address of the tracker, with the port if it is not the default of the scheme.
    pub host: &'a str,
    /// Name and version of the client.
    pub user_agent: &'a str,
    /// Whether the connection is to persist after the response.
    pub keep_alive: bool,
}

impl ClientHeaders<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(b" HTTP/1.1\r\nHost: ");
        sink.bytes(self.host.as_bytes());
        sink.bytes(b"\r\nUser-Agent: ");
        sink.bytes(self.user_agent.as_bytes());
        sink.bytes(b"\r\nAccept-Encoding: gzip\r\n");
        sink.bytes(if self.keep_alive {
            b"Connection: keep-alive\r\n\r\n"
        } else {
            b"Connection: close\r\n\r\n"
        });
    }
}

/// Parameters of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceFields {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the client (BEP 3, BEP 20).
    pub peer_id: PeerId,
    /// Port on which the client listens.
    pub port: u16,
    /// Number of bytes sent to other peers.
    pub uploaded: u64,
    /// Number of bytes received from other peers.
    pub downloaded: u64,
    /// Number of bytes still to download.
    pub left: u64,
    /// Event of the announce.
    pub event: AnnounceEvent,
    /// Random number that identifies the client when its address changes.
    pub key: u32,
    /// Maximum number of peers in the reply; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
}

impl AnnounceFields {
    /// Writes a whole request to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, headers: &ClientHeaders<'_>, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Announce { fields: self, headers }, buffer)
    }
}

struct Announce<'a> {
    fields: &'a AnnounceFields,
    headers: &'a ClientHeaders<'a>,
}

impl Message for Announce<'_> {
    fn write(&self, sink: &mut impl Sink) {
        let fields = self.fields;
        sink.bytes(b"GET /announce?info_hash=");
        sink.bytes(encode_20(&fields.info_hash.0, &mut [0; 60]));
        sink.bytes(b"&peer_id=");
        sink.bytes(encode_20(&fields.peer_id.0, &mut [0; 60]));
        let numbers: [(&[u8], u64); 5] = [
            (b"&port=", fields.port.into()),
            (b"&uploaded=", fields.uploaded),
            (b"&downloaded=", fields.downloaded),
            (b"&left=", fields.left),
            (b"&key=", fields.key.into()),
        ];
        for (key, number) in numbers {
            sink.bytes(key);
            sink.number(number);
        }
        sink.bytes(match fields.event {
            AnnounceEvent::None => b"",
            AnnounceEvent::Started => b"&event=started",
            AnnounceEvent::Stopped => b"&event=stopped",
            AnnounceEvent::Completed => b"&event=completed",
            AnnounceEvent::Paused => b"&event=paused",
        });
        if let Some(numwant) = fields.numwant {
            sink.bytes(b"&numwant=");
            sink.number(numwant.into());
        }
        sink.bytes(b"&compact=1&no_peer_id=1&supportcrypto=1");
        self.headers.write(sink);
    }
}

/// Writes a scrape of these torrents to the front of a buffer and returns its length.
///
/// # Errors
/// When the buffer is too small.
pub fn encode_scrape_request(
    headers: &ClientHeaders<'_>,
    info_hashes: &[InfoHash],
    buffer: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    put(&Scrape { headers, info_hashes }, buffer)
}

struct Scrape<'a> {
    headers: &'a ClientHeaders<'a>,
    info_hashes: &'a [InfoHash],
}

impl Message for Scrape<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(b"GET /scrape");
        for (index, info_hash) in self.info_hashes.iter().enumerate() {
            sink.bytes(if index == 0 { b"?info_hash=" } else { b"&info_hash=" });
            sink.bytes(encode_20(&info_hash.0, &mut [0; 60]));
        }
        self.headers.write(sink);
    }
}
