//! Requests that other cores or other nodes have to respond to before the client is answered.

use std::rc::Rc;

use aquatic_common::Family;
use aquatic_swarm::{MAX_NUMWANT, SwarmCounts};
use aquatic_tracker::gather::MAX_PENDING;
use aquatic_tracker::{OwnerResponse, Reason, Respond, RouteError, Waiter};

use super::State;
use crate::forwarded::{Forwarded, ForwardedAnnounce, ForwardedScrape};

/// Maximum number of scrapes of one core that wait for other cores, of 1.6 KB each.
const MAX_PENDING_SCRAPES: usize = 16_384;

/// Marks the numbers of announces for parts that other nodes hold among those of requests.
const ELSEWHERE: u32 = 1 << 31;

const _: () = assert!(MAX_PENDING < ELSEWHERE as usize);

impl State {
    /// Has a node that holds the part of the torrent apply an announce.
    pub(super) fn ask_node(self: &Rc<Self>, announce: ForwardedAnnounce) {
        let family = Family::of(announce.announce.address.ip());
        if self.elsewhere.borrow().len() >= MAX_PENDING {
            return self.handler.borrow().give_up(family, Reason::Overflow);
        }
        let numwant = u32::try_from(announce.announce.numwant.min(MAX_NUMWANT)).unwrap_or_default();
        let room = match family {
            Family::V4 => (6 * numwant, 0),
            Family::V6 => (0, 18 * numwant),
        };
        // Lossless: see `MAX_PENDING`.
        let token = self.elsewhere.borrow_mut().insert(announce) as u32;
        let waiter = Waiter { respond: Rc::clone(self) as Rc<dyn Respond>, token: ELSEWHERE | token };
        self.tracker.announce(&announce.announce, room, waiter);
    }

    fn take_announce(&self, token: u32) -> Option<ForwardedAnnounce> {
        let slot = (token & ELSEWHERE != 0).then_some(token & !ELSEWHERE)?;
        self.elsewhere.borrow_mut().try_remove(slot as usize)
    }

    /// Asks the owners of the torrents of scrapes.
    pub(crate) fn ask_owners(self: &Rc<Self>, forwarded: &mut Forwarded) {
        for scrape in forwarded.scrapes.drain(..) {
            if self.scrapes.borrow().len() >= MAX_PENDING_SCRAPES {
                self.handler.borrow().give_up(scrape.family, Reason::Overflow);
                continue;
            }
            let slot = self.scrapes.borrow_mut().insert(scrape);
            let waiter = Waiter { respond: Rc::clone(self) as Rc<dyn Respond>, token: slot as u32 };
            self.tracker.scrape(scrape.info_hashes(), scrape.family.into(), waiter);
        }
    }

    fn take_scrape(&self, token: u32) -> Option<ForwardedScrape> {
        self.scrapes.borrow_mut().try_remove(token as usize)
    }
}

impl Respond for State {
    /// Other cores reply to announces by themselves, so this one has been applied by another node.
    fn announced(&self, token: u32, response: OwnerResponse<'_>) {
        let Some(announce) = self.take_announce(token) else { return };
        self.reply_apart(announce.listener, announce.path, |handler, buffer| {
            handler.finish_announce(&announce, response, &mut self.tracker.state(), buffer)
        });
        self.flush_replies();
        self.count_served(1, announce.received);
    }

    fn scraped(&self, token: u32, counts: &[SwarmCounts]) {
        let Some(scrape) = self.take_scrape(token) else { return };
        self.reply_apart(scrape.listener, scrape.path, |handler, buffer| {
            handler.finish_scrape(&scrape, counts, buffer)
        });
        self.flush_replies();
        self.count_served(1, scrape.received);
    }

    fn failed(&self, token: u32, error: RouteError) {
        if let Some(announce) = self.take_announce(token) {
            let family = Family::of(announce.announce.address.ip());
            return self.handler.borrow().give_up(family, error.into());
        }
        let Some(scrape) = self.take_scrape(token) else { return };
        self.handler.borrow().give_up(scrape.family, error.into());
    }
}
