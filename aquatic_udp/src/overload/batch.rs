//! What is dropped of a received batch.

use std::time::Duration;

use aquatic_net::udp::Datagrams;

use super::OverloadControl;

/// Length of a connect request (BEP 15).
const CONNECT_REQUEST_LENGTH: usize = 16;

impl OverloadControl {
    /// Datagrams of a batch that are to be dropped unread, as bits.
    pub(crate) fn choose(&mut self, batch: &impl Datagrams, now: Duration) -> u64 {
        let mut dropped = 0;
        if self.is_active() {
            for at in 0..batch.count() {
                let is_connect = batch.request(at).len() == CONNECT_REQUEST_LENGTH;
                let source = batch.source(at).map(|source| source.ip().to_canonical());
                if source.is_some_and(|source| self.drops(source, is_connect, now)) {
                    dropped |= 1 << at;
                }
            }
        }
        dropped
    }
}
