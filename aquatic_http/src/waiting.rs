//! Responses of other cores on their way to the connections that wait for them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use aquatic_swarm::{Announced, SwarmCounts};
use aquatic_tracker::{OwnerResponse, Respond, RouteError};
use aquatic_web::Waiting;

use crate::handler::{ForwardedAnnounce, ForwardedScrape};

/// Buffers of one core that are kept for later responses.
const MAX_SPARE: usize = 64;

/// Buffers for compact peers, shared by the connections of a core, so that idle connections hold none.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerBufferPool {
    spare: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl PeerBufferPool {
    fn take(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE && buffer.capacity() > 0 {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// What other cores have responded.
enum Response {
    /// The peers of both families stand one after the other.
    Announce(Announced, Vec<u8>),
    Scrape(Vec<SwarmCounts>),
    Failed(RouteError),
}

/// Where the response to a connection's request arrives. A connection has at most one request under way.
pub struct ResponseSlot {
    response: Cell<Option<Response>>,
    waker: Cell<Option<Waker>>,
    pool: PeerBufferPool,
}

impl fmt::Debug for ResponseSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseSlot").finish_non_exhaustive()
    }
}

impl ResponseSlot {
    pub(crate) fn new(pool: &PeerBufferPool) -> Rc<Self> {
        Rc::new(Self { response: Cell::new(None), waker: Cell::new(None), pool: pool.clone() })
    }

    fn put(&self, response: Response) {
        self.response.set(Some(response));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Hands the response to an announce to `act`.
    pub(crate) fn with_announced<R>(
        &self,
        act: impl FnOnce(Result<OwnerResponse<'_>, RouteError>) -> R,
    ) -> R {
        match self.response.take() {
            Some(Response::Announce(announced, peers)) => {
                let (v4, v6) = peers.split_at_checked(announced.v4_len).unwrap_or_default();
                let result = act(Ok(OwnerResponse { announced, v4, v6 }));
                self.pool.give_back(peers);
                result
            }
            Some(Response::Failed(error)) => act(Err(error)),
            Some(Response::Scrape(_)) | None => act(Err(RouteError::Timeout)),
        }
    }

    /// Hands the response to a scrape to `act`.
    pub(crate) fn with_counts<R>(&self, act: impl FnOnce(Result<&[SwarmCounts], RouteError>) -> R) -> R {
        match self.response.take() {
            Some(Response::Scrape(counts)) => act(Ok(&counts)),
            Some(Response::Failed(error)) => act(Err(error)),
            Some(Response::Announce(..)) | None => act(Err(RouteError::Timeout)),
        }
    }
}

impl Respond for ResponseSlot {
    fn announced(&self, _token: u32, response: OwnerResponse<'_>) {
        let mut peers = self.pool.take();
        peers.extend_from_slice(response.v4);
        peers.extend_from_slice(response.v6);
        self.put(Response::Announce(response.announced, peers));
    }

    fn scraped(&self, _token: u32, counts: &[SwarmCounts]) {
        self.put(Response::Scrape(counts.to_vec()));
    }

    fn failed(&self, _token: u32, error: RouteError) {
        self.put(Response::Failed(error));
    }
}

/// The request that a connection has under way.
#[derive(Debug)]
pub(crate) enum Question {
    Announce(ForwardedAnnounce),
    Scrape(ForwardedScrape),
}

/// A reply that waits for other cores.
#[derive(Debug)]
pub struct WaitingReply {
    pub(crate) question: Question,
    pub(crate) slot: Rc<ResponseSlot>,
}

impl Waiting for WaitingReply {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let response = self.slot.response.take();
        let has_come = response.is_some();
        self.slot.response.set(response);
        if has_come {
            return Poll::Ready(());
        }
        self.slot.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}
