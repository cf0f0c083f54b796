//! Which sources may open connections.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::RateLimitMode;
use aquatic_common::{RateEvent, RateVerdict, SourceLimit, SourceRules};

use super::counters::{Counters, Refused};
use crate::block_list::BlockList;
use crate::breaker::{CoreBreakers, Protocol};

/// Limits of sources. Trusted proxies have none.
#[derive(Clone, Debug, Default)]
pub struct SourceSettings {
    /// How many connections a source may open per second and core.
    pub connections: SourceRules,
    /// What becomes of TLS handshakes of sources that have taken much processor time.
    pub handshakes: RateLimitMode,
    /// Networks that are not served.
    pub blocked: Arc<BlockList>,
    /// Key of the table of loads, which must not be known to clients.
    pub key: [u8; 16],
}

/// The breakers that decide whether connections are accepted. The default accepts all.
#[derive(Clone, Debug, Default)]
pub struct TcpBreakers {
    /// Those of the core.
    pub breakers: CoreBreakers,
    /// Protocols that are served. While the breakers of all of them are open for a family, its connections
    /// are closed at once.
    pub protocols: Vec<Protocol>,
}

impl TcpBreakers {
    fn refuse(&self, client: IpAddr) -> bool {
        let mut protocols = self.protocols.iter();
        !self.protocols.is_empty() && protocols.all(|&protocol| self.breakers.refuses(protocol, client))
    }
}

/// What decides about the sources of one core: those that connect by themselves, and those that trusted
/// proxies name by the PROXY protocol.
#[derive(Debug)]
pub(super) struct SourceGate {
    rates: RefCell<SourceLimit>,
    blocked: Arc<BlockList>,
    breakers: TcpBreakers,
}

impl SourceGate {
    pub(super) fn new(settings: &SourceSettings, breakers: TcpBreakers) -> Self {
        Self {
            rates: RefCell::new(SourceLimit::new(settings.connections.clone(), settings.key)),
            blocked: Arc::clone(&settings.blocked),
            breakers,
        }
    }

    /// Replaces the limits of connections.
    pub(super) fn set_rules(&self, rules: SourceRules) {
        self.rates.borrow_mut().set_rules(rules);
    }

    /// Why a connection of a source, whose address is in canonical form, is to be closed; `None` if it is
    /// not.
    pub(super) fn refuses(&self, source: IpAddr, now: Duration, counters: &Counters) -> Option<Refused> {
        if self.blocks(source) {
            return Some(Refused::Blocked);
        }
        if self.breakers.refuse(source) {
            return Some(Refused::Breaker);
        }
        match self.rates.borrow_mut().check(source, now) {
            RateVerdict::Within => None,
            RateVerdict::Above => Some(Refused::Rate),
            RateVerdict::AboveInDryRun => {
                counters.above_in_dry_run.add(1);
                None
            }
        }
    }

    /// Whether a source, whose address is in canonical form, is on the block list.
    pub(super) fn blocks(&self, source: IpAddr) -> bool {
        self.blocked.blocks(source)
    }

    /// What has to be told about the limits. To be asked about every second.
    pub(super) fn event(&self, now: Duration) -> Option<RateEvent> {
        self.rates.borrow_mut().event(now)
    }

    /// Whether sources are above their limit, or were a moment ago.
    pub(super) fn is_limiting(&self) -> bool {
        self.rates.borrow().is_limiting()
    }
}
