//! Bursts of requests from one socket.

use std::io;
use std::net::UdpSocket;

use aquatic_load_engine::tally::Counted;
use aquatic_udp_protocol::TransactionId;

use crate::counters::Kind;
use crate::sys::{MAX_BATCH, Message, Sender};

/// Maximum length of a request: a scrape of 70 torrents.
const MAX_REQUEST: usize = 16 + 70 * 20;
/// Maximum length of a segmented message in bytes; below that of a UDP packet.
const MAX_SEGMENTED: usize = 60_000;

/// Packets by kind. Those of a kind have the same length, so that the kernel can split them.
pub(crate) struct Burst {
    rows: [Row; 3],
    sender: Sender,
}

struct Row {
    bytes: Vec<u8>,
    used: usize,
    length: usize,
    ids: Vec<TransactionId>,
}

impl Burst {
    pub(crate) fn new() -> Self {
        let row = || Row { bytes: vec![0; MAX_BATCH * MAX_REQUEST], used: 0, length: 0, ids: Vec::new() };
        Self { rows: [row(), row(), row()], sender: Sender::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.ids.is_empty())
    }

    /// Adds a request, which `write` encodes at the front of the given buffer, returning its length. Nothing
    /// is added on an error.
    pub(crate) fn add<E>(
        &mut self,
        kind: Kind,
        id: TransactionId,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let row = &mut self.rows[kind.index()];
        let length = write(row.bytes.get_mut(row.used..).unwrap_or_default())?;
        row.used += length;
        row.length = length;
        row.ids.push(id);
        Ok(())
    }

    /// Removes all requests, and has `send` send them one by one. Those that it did not send are passed to
    /// `not_sent`.
    pub(crate) fn send_by(
        &mut self,
        mut send: impl FnMut(&[u8]) -> bool,
        mut not_sent: impl FnMut(TransactionId),
    ) {
        for row in &mut self.rows {
            let packets = row.bytes.get(..row.used).unwrap_or_default().chunks_exact(row.length.max(1));
            for (id, packet) in row.ids.drain(..).zip(packets) {
                if !send(packet) {
                    not_sent(id);
                }
            }
            row.used = 0;
        }
    }

    /// Sends and removes all requests. Those that the kernel did not accept are passed to `not_sent`. Returns
    /// the last error, which does not stop other requests.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        segment: bool,
        mut not_sent: impl FnMut(TransactionId),
    ) -> io::Result<()> {
        let mut result = Ok(());
        for row in &mut self.rows {
            if row.ids.is_empty() {
                continue;
            }
            let bytes = row.bytes.get(..row.used).unwrap_or_default();
            let together = segment && row.ids.len() > 1 && row.used <= MAX_SEGMENTED;
            let sent = if together {
                let message = Message { bytes, segment: u16::try_from(row.length).ok() };
                send_all(&mut self.sender, socket, &[message], &mut result) * row.ids.len()
            } else {
                let packets = bytes.chunks_exact(row.length).map(|bytes| Message { bytes, segment: None });
                send_all(&mut self.sender, socket, &packets.collect::<Vec<_>>(), &mut result)
            };
            row.ids.drain(..).skip(sent).for_each(&mut not_sent);
            row.used = 0;
        }
        result
    }
}

/// Returns the number of messages that the kernel accepted.
fn send_all(
    sender: &mut Sender,
    socket: &UdpSocket,
    messages: &[Message<'_>],
    result: &mut io::Result<()>,
) -> usize {
    let mut sent = 0;
    let mut refused = false;
    while sent < messages.len() {
        match sender.send(socket, &messages[sent..]) {
            Ok(count) => sent += count,
            // The kernel reports that an earlier packet was refused, and has not sent this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !refused => {
                refused = true;
                *result = Err(error);
            }
            Err(error) => {
                *result = Err(error);
                break;
            }
        }
    }
    sent
}
