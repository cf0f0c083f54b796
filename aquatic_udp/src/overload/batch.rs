//! What is dropped of a received batch.

use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::load_table::SourceKey;
use aquatic_net::udp::{BATCH, Datagrams};

use super::OverloadControl;

/// Action of a connect request (BEP 15), as it is sent. Such a request may be longer than it has to be.
const CONNECT_ACTION: [u8; 4] = [0; 4];

impl OverloadControl {
    /// Datagrams of a batch that are to be dropped unread, as bits.
    pub(crate) fn choose(&mut self, batch: &impl Datagrams, now: Duration) -> u64 {
        if !self.is_charging() {
            return 0;
        }
        let mut sources = [None; BATCH];
        for (at, source) in sources.iter_mut().enumerate().take(batch.count()) {
            let ip = batch.source(at).map(|source| source.ip().to_canonical());
            *source = ip.map(|ip| (ip, self.key(ip)));
        }
        let drops = |(at, source): (usize, &Option<(IpAddr, SourceKey)>)| {
            let source = (*source)?;
            let is_connect = batch.request(at).get(8..12) == Some(&CONNECT_ACTION);
            self.drops(source, is_connect, now).then_some(1_u64 << at)
        };
        sources.iter().enumerate().filter_map(drops).fold(0, |dropped, bit| dropped | bit)
    }
}
