//! What has been decided by hand: blocked networks, torrents, breakers. Commands and the hand-over to a
//! successor share it.
//!
//! It is handed over as requests of the control socket, one on each line, so that processes of different
//! versions understand each other as clients and trackers do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aquatic_common::{BreakerMode, Family, InfoHash};
use aquatic_net::block_list::{Ban, BlockList};
use aquatic_net::breaker::{Breakers, Protocol};
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::handover::DecidedByHand;
use aquatic_tracker::SharedAccessList;

use super::reply::{ErrorCode, Failure};
use super::request::{
    self, BadArgument, BreakerFamily, BreakerProtocol, BreakerSetting, Request, parse_info_hash,
    parse_network,
};

/// What commands decide. Copies share it.
#[derive(Clone, Debug)]
pub(crate) struct ByHand {
    pub(crate) access_list: Arc<SharedAccessList>,
    pub(crate) block_list: Arc<BlockList>,
    pub(crate) breakers: Breakers,
    epoch: Epoch,
    /// Whether it is being handed over. Locked while a command changes something.
    is_held: Arc<Mutex<bool>>,
}

/// Permission to change something, until dropped.
#[derive(Debug)]
pub(super) struct Change<'a>(#[allow(dead_code, reason = "held until dropped")] MutexGuard<'a, bool>);

impl ByHand {
    pub(crate) fn new(
        access_list: Arc<SharedAccessList>,
        block_list: Arc<BlockList>,
        breakers: Breakers,
        epoch: Epoch,
    ) -> Self {
        Self { access_list, block_list, breakers, epoch, is_held: Arc::default() }
    }

    /// Permits a command to change something, unless that would be lost with this process.
    pub(super) fn change(&self) -> Result<Change<'_>, Failure> {
        let is_held = self.is_held();
        if *is_held {
            let text = "another process is taking over from this one; try again, it answers in a moment";
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        Ok(Change(is_held))
    }

    fn is_held(&self) -> MutexGuard<'_, bool> {
        self.is_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests with which another tracker comes to the same decisions.
    fn requests(&self, now: Duration) -> Vec<Request> {
        let bans = self.block_list.bans().into_iter().map(|Ban { prefix, until }| Request::Ban {
            network: prefix.to_string(),
            // A block that is about to end has not ended yet.
            seconds: until.map(|until| until.saturating_sub(now).as_secs().max(1)),
        });
        let torrents = self.access_list.decisions().into_iter().map(|(info_hash, serve)| {
            let info_hash = info_hash.to_string();
            if serve { Request::Allow { info_hash } } else { Request::Deny { info_hash } }
        });
        let breakers = self.breakers.status().into_iter().filter_map(|status| {
            let mode = match status.mode {
                BreakerMode::Automatic => return None,
                BreakerMode::Open => BreakerSetting::Open,
                BreakerMode::Closed => BreakerSetting::Closed,
            };
            Some(Request::Breaker {
                protocol: Some(BreakerProtocol::of(status.protocol)),
                family: Some(BreakerFamily::of(status.family)),
                mode: Some(mode),
            })
        });
        bans.chain(torrents).chain(breakers).collect()
    }

    /// Replaces all decisions by those of requests.
    fn replace(&self, requests: &[u8], now: Duration) -> Result<Replaced, String> {
        let mut decisions = Decisions::default();
        for line in requests.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let request = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            decisions.add(request, now).map_err(|error| error.to_string())?;
        }
        let Decisions { bans, torrents, breakers } = decisions;
        let replaced = Replaced { bans: bans.len(), torrents: torrents.len(), breakers: breakers.len() };
        self.block_list.replace_bans(bans);
        self.access_list.replace_decisions(torrents);
        for (protocol, family, mode) in breakers {
            if let Err(error) = self.breakers.set(protocol, family, mode) {
                log::warn!("a breaker that was set by hand is not taken over: {error}");
            }
        }
        Ok(replaced)
    }
}

impl DecidedByHand for ByHand {
    fn hold(&self) -> Vec<u8> {
        *self.is_held() = true;
        let mut lines = Vec::new();
        for request in self.requests(self.epoch.elapsed()) {
            // What has been read from JSON can be written as JSON.
            if let Ok(line) = serde_json::to_vec(&request) {
                lines.extend_from_slice(&line);
                lines.push(b'\n');
            }
        }
        lines
    }

    fn release(&self) {
        *self.is_held() = false;
    }

    fn take_over(&self, bytes: &[u8]) -> Result<(), String> {
        let Replaced { bans, torrents, breakers } = self
            .replace(bytes, self.epoch.elapsed())
            .map_err(|error| format!("what has been decided by hand cannot be taken over: {error}"))?;
        log::info!("taken over by hand: {bans} blocked networks, {torrents} torrents, {breakers} breakers");
        Ok(())
    }
}

/// How much has been taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replaced {
    bans: usize,
    torrents: usize,
    breakers: usize,
}

/// What requests decide.
#[derive(Debug, Default)]
struct Decisions {
    bans: Vec<Ban>,
    torrents: Vec<(InfoHash, bool)>,
    breakers: Vec<(Protocol, Family, BreakerMode)>,
}

impl Decisions {
    fn add(&mut self, request: Request, now: Duration) -> Result<(), BadArgument> {
        match request {
            Request::Ban { network, seconds } => {
                let until = seconds.map(request::seconds).transpose()?.map(|time| now + time);
                self.bans.push(Ban { prefix: parse_network(&network)?, until });
            }
            Request::Allow { info_hash } => self.torrents.push((parse_info_hash(&info_hash)?, true)),
            Request::Deny { info_hash } => self.torrents.push((parse_info_hash(&info_hash)?, false)),
            Request::Breaker { protocol: Some(protocol), family: Some(family), mode: Some(mode) } => {
                self.breakers.push((protocol.into(), family.into(), mode.into()));
            }
            other @ (Request::Status {}
            | Request::Top { .. }
            | Request::Torrent { .. }
            | Request::Unban { .. }
            | Request::Bans {}
            | Request::Reset { .. }
            | Request::Log { .. }
            | Request::Reload {}
            | Request::Snapshot {}
            | Request::Connections {}
            | Request::Breaker { .. }
            | Request::Cluster { .. }
            | Request::Drain { .. }) => return Err(BadArgument(format!("{other:?} is no decision"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::BreakerRules;
    use aquatic_common::config::AccessListConfig;
    use aquatic_metrics::Registry;

    use super::*;

    fn by_hand(protocols: &[Protocol]) -> ByHand {
        let rules = BreakerRules { pause: Duration::from_secs(1), ..BreakerRules::default() };
        let (breakers, _) = Breakers::new(protocols, rules, &Registry::default(), 1).unwrap();
        let access_list = SharedAccessList::load(&AccessListConfig::default()).unwrap();
        ByHand::new(access_list, Arc::default(), breakers, Epoch::start())
    }

    #[test]
    fn a_successor_decides_as_its_predecessor() {
        let old = by_hand(&[Protocol::Udp, Protocol::Ws]);
        let new = by_hand(&[Protocol::Udp]);
        assert!(old.hold().is_empty(), "nothing is handed over if nothing has been decided");
        let forever = Ban { prefix: "192.0.2.0/24".parse().unwrap(), until: None };
        let short = Ban { prefix: "2001:db8::/32".parse().unwrap(), until: Some(Duration::from_secs(900)) };
        old.block_list.replace_bans(vec![forever, short]);
        old.access_list.replace_decisions([(InfoHash([1; 20]), true), (InfoHash([2; 20]), false)]);
        old.breakers.set(Protocol::Udp, Family::V6, BreakerMode::Open).unwrap();
        old.breakers.set(Protocol::Ws, Family::V4, BreakerMode::Closed).unwrap();
        // What the new process has is replaced.
        new.block_list.replace_bans(vec![Ban { prefix: "198.51.100.0/24".parse().unwrap(), until: None }]);
        new.take_over(&old.hold()).unwrap();
        let bans = new.block_list.bans();
        assert_eq!(bans[0], forever);
        let left = bans[1].until.unwrap();
        assert!(bans.len() == 2 && left > Duration::from_secs(890) && left < Duration::from_secs(910));
        assert!(new.block_list.blocks("192.0.2.7".parse().unwrap()));
        assert_eq!(new.access_list.decisions(), [(InfoHash([1; 20]), true), (InfoHash([2; 20]), false)]);
        assert!(!new.access_list.allows(&InfoHash([2; 20])));
        let modes: Vec<BreakerMode> = new.breakers.status().iter().map(|status| status.mode).collect();
        assert_eq!(modes, [BreakerMode::Automatic, BreakerMode::Open], "WebTorrent is not served any more");
    }

    #[test]
    fn nothing_changes_while_it_is_handed_over() {
        let by_hand = by_hand(&[Protocol::Udp]);
        drop(by_hand.change().unwrap());
        by_hand.hold();
        assert_eq!(by_hand.change().unwrap_err().code, ErrorCode::Busy);
        by_hand.release();
        assert!(by_hand.change().is_ok());
    }

    #[test]
    fn what_is_no_decision_refuses_the_hand_over() {
        let by_hand = by_hand(&[Protocol::Udp]);
        for bad in ["garbage", "{\"command\":\"reload\"}", "{\"command\":\"ban\",\"network\":\"::/0\"}"] {
            let error = by_hand.take_over(bad.as_bytes()).unwrap_err();
            assert!(error.contains("cannot be taken over"), "{error}");
        }
        assert!(by_hand.block_list.bans().is_empty());
    }
}
