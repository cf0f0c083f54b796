//! Requests and replies that bypass the network stack of this machine (AF_XDP), so that the load test costs
//! little. The first request of each socket leaves through the socket, and its reply tells how to address
//! frames.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use aquatic_net::block_list::BlockList;
use aquatic_net::xdp::frame::Headers;
use aquatic_net::xdp::{self, Opened, XdpControl, XdpOptions, XdpQueue};

use crate::config::NetworkConfig;
use crate::source::Source;

/// The queues of an interface.
pub(crate) struct FastPath {
    queues: Vec<XdpQueue>,
    /// Descriptors to wait for frames with.
    watched: Vec<OwnedFd>,
    /// The queue of the last batch.
    current: usize,
    /// By source: the headers of a reply that came this way.
    replies: Vec<Option<Headers>>,
    /// The program is attached for as long as this lives.
    _control: XdpControl,
}

impl FastPath {
    /// Opens the queues of the interface of the configuration, if there is one.
    ///
    /// # Errors
    /// Those of [`xdp::open`].
    pub(crate) fn open(network: &NetworkConfig, sources: &[Source]) -> anyhow::Result<Option<Self>> {
        if network.xdp_interface.is_empty() {
            return Ok(None);
        }
        let addresses = sources.iter().map(|source| source.socket.local_addr());
        let addresses: Vec<_> = addresses.collect::<Result<_, _>>().context("a socket has no address")?;
        let options = XdpOptions {
            interface: &network.xdp_interface,
            mode: network.xdp_mode,
            listeners: &addresses,
            cores: 1,
        };
        let opened = xdp::open(options, &Arc::new(BlockList::default()));
        let Opened { queues, control, .. } = opened.map_err(|error| anyhow::anyhow!("{error}"))?;
        let queues: Vec<XdpQueue> = queues.into_iter().flatten().collect();
        let watched = queues.iter().map(XdpQueue::watched).collect::<Result<_, _>>();
        queues.iter().for_each(|queue| queue.set_open(true));
        Ok(Some(Self {
            queues,
            watched: watched.context("cannot wait for frames")?,
            current: 0,
            replies: vec![None; sources.len()],
            _control: control,
        }))
    }

    /// What to wait for.
    pub(crate) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watched.iter().map(AsFd::as_fd)
    }

    /// Whether requests of a source can be sent this way.
    pub(crate) fn serves(&self, source: usize) -> bool {
        self.replies.get(source).is_some_and(Option::is_some)
    }

    /// Receives a batch from the next queue that has frames. The last batch must have been
    /// [finished](Self::finish). Returns the number of frames.
    pub(crate) fn receive(&mut self) -> usize {
        for _ in 0..self.queues.len() {
            self.current = (self.current + 1) % self.queues.len();
            let Some(queue) = self.queues.get_mut(self.current) else { break };
            let count = queue.receive();
            if count > 0 {
                self.learn(count);
                return count;
            }
        }
        0
    }

    /// Notes the headers of the first replies.
    fn learn(&mut self, count: usize) {
        let Some(queue) = self.queues.get(self.current) else { return };
        for at in 0..count {
            if let Some((source, _)) = queue.received(at)
                && let Some(headers @ None) = self.replies.get_mut(source)
            {
                *headers = queue.headers(at);
            }
        }
    }

    /// A packet of the batch, with its source; `None` for frames that are none.
    pub(crate) fn packet(&self, at: usize) -> Option<(u32, &[u8])> {
        let (source, packet) = self.queues.get(self.current)?.received(at)?;
        Some((u32::try_from(source).ok()?, packet))
    }

    /// Ends the batch.
    pub(crate) fn finish(&mut self) {
        if let Some(queue) = self.queues.get_mut(self.current) {
            queue.finish();
        }
    }

    /// Sends a packet of a source that is [served](Self::serves). Returns whether it will be sent, after
    /// [`flush`](Self::flush) at the latest.
    pub(crate) fn send(&mut self, source: usize, packet: &[u8]) -> bool {
        let Some(Some(headers)) = self.replies.get(source) else { return false };
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.has_spare()) else { return false };
        let write = |buffer: &mut [u8]| match buffer.get_mut(..packet.len()) {
            Some(place) => {
                place.copy_from_slice(packet);
                packet.len()
            }
            None => 0,
        };
        queue.reply(headers, write, |_| {})
    }

    /// Has the kernel send what has been written.
    pub(crate) fn flush(&mut self) {
        self.queues.iter_mut().for_each(XdpQueue::flush);
    }
}
