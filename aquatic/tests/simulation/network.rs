//! Queues between the simulated cores, in which batches wait as long as the simulation likes.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

use aquatic_runtime::channel::OutboxFull;
use aquatic_tracker::messages::Messages;
use aquatic_tracker::{Forward, Tracker};
use aquatic_udp::ForwardedAnnounce;
use aquatic_ws::ForwardedBatch;

/// A batch on its way to another core.
pub(crate) enum Batch {
    /// Of the tracker: messages, and the requests among them by number.
    Tracker(Messages, Vec<usize>),
    /// Of UDP: announces, each with the number of the request.
    Udp(Vec<(usize, ForwardedAnnounce)>),
    /// Of WebTorrent: messages, and the operations among them by number.
    Ws(ForwardedBatch, Vec<usize>),
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Whether the last batch takes further messages.
    open: bool,
}

/// By sender and receiver, the queues of each kind of batch. Order is kept within a queue only.
pub(crate) struct Network {
    cores: usize,
    queues: Vec<RefCell<[Queue; 3]>>,
    /// Number of the request that is being served, or none while responses are sent.
    pub(crate) request: RefCell<Option<usize>>,
    /// The trackers of the cores, and which of these sleep unless something waits for them, as bits.
    trackers: RefCell<Vec<Rc<RefCell<Tracker>>>>,
    pub(crate) sleeping: Cell<u8>,
    /// Number of the WebTorrent operation that is being served.
    ws_operation: Cell<Option<usize>>,
}

impl Network {
    pub(crate) fn new(cores: usize) -> Rc<Self> {
        let queues = (0..cores * cores).map(|_| RefCell::default()).collect();
        Rc::new(Self {
            cores,
            queues,
            request: RefCell::default(),
            trackers: RefCell::default(),
            sleeping: Cell::default(),
            ws_operation: Cell::default(),
        })
    }

    /// Takes over the tracker of the next core.
    pub(crate) fn add_tracker(self: &Rc<Self>, tracker: Tracker) -> Trackers {
        let own = Rc::new(RefCell::new(tracker));
        self.trackers.borrow_mut().push(Rc::clone(&own));
        Trackers { own, network: Rc::clone(self) }
    }

    /// Whether a core sleeps: nothing waits for it.
    pub(crate) fn is_asleep(&self, core: usize) -> bool {
        self.sleeping.get() >> core & 1 == 1 && self.waiting().iter().all(|&(_, to, _)| to != core)
    }

    /// Queues that are not empty, by sender, receiver and kind.
    pub(crate) fn waiting(&self) -> Vec<(usize, usize, usize)> {
        let all = (0..self.cores).flat_map(|from| (0..self.cores).map(move |to| (from, to)));
        let all = all.flat_map(|(from, to)| [0, 1, 2].map(|kind| (from, to, kind)));
        all.filter(|&(from, to, kind)| !self.queue(from, to)[kind].batches.is_empty()).collect()
    }

    fn queue(&self, from: usize, to: usize) -> RefMut<'_, [Queue; 3]> {
        self.queues[from * self.cores + to].borrow_mut()
    }

    /// Takes the first batch of a queue.
    pub(crate) fn take(&self, (from, to, kind): (usize, usize, usize)) -> Batch {
        let queue = &mut self.queue(from, to)[kind];
        queue.open &= queue.batches.len() > 1;
        queue.batches.pop_front().unwrap()
    }

    /// Sends announces of UDP, several in a batch until it is closed.
    pub(crate) fn send_udp(&self, from: usize, to: usize, request: usize, announce: ForwardedAnnounce) {
        let queue = &mut self.queue(from, to)[1];
        match queue.batches.back_mut() {
            Some(Batch::Udp(announces)) if queue.open => announces.push((request, announce)),
            _ => queue.batches.push_back(Batch::Udp(vec![(request, announce)])),
        }
        queue.open = true;
    }

    /// Messages of WebTorrent from now on are about this operation.
    pub(crate) fn begin_ws(&self, number: usize) {
        self.ws_operation.set(Some(number));
    }

    /// Messages of WebTorrent from now on are responses and relays.
    pub(crate) fn end_ws(&self) {
        self.ws_operation.set(None);
    }

    /// Closes the batches that a core has begun.
    pub(crate) fn close(&self, from: usize) {
        for to in 0..self.cores {
            self.queue(from, to).iter_mut().for_each(|queue| queue.open = false);
        }
    }
}

/// The tracker of one core, and the way to those of cores that sleep.
pub(crate) struct Trackers {
    own: Rc<RefCell<Tracker>>,
    network: Rc<Network>,
}

impl aquatic_tracker::Trackers for Trackers {
    fn own(&self) -> RefMut<'_, Tracker> {
        self.own.borrow_mut()
    }

    fn with_sleeping<R>(&self, core: usize, act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        let tracker = Rc::clone(&self.network.trackers.borrow()[core]);
        self.network.is_asleep(core).then(|| act(&mut tracker.borrow_mut()))
    }
}

/// One core's end of the network.
pub(crate) struct Link {
    pub(crate) core: usize,
    pub(crate) network: Rc<Network>,
}

impl Forward<Messages> for Link {
    fn add(&self, core: usize, push: impl FnOnce(&mut Messages)) -> Result<(), OutboxFull> {
        let request = *self.network.request.borrow();
        let queue = &mut self.network.queue(self.core, core)[0];
        if !queue.open {
            queue.batches.push_back(Batch::Tracker(Messages::default(), Vec::new()));
            queue.open = true;
        }
        let Some(Batch::Tracker(messages, requests)) = queue.batches.back_mut() else {
            panic!("a batch of another kind")
        };
        push(messages);
        requests.extend(request);
        Ok(())
    }

    fn add_always(&self, core: usize, push: impl FnOnce(&mut Messages)) {
        self.add(core, push).unwrap();
    }

    fn flush(&self) {
        self.network.close(self.core);
    }
}

impl Forward<ForwardedBatch> for Link {
    fn add(&self, core: usize, push: impl FnOnce(&mut ForwardedBatch)) -> Result<(), OutboxFull> {
        self.add_always(core, push);
        Ok(())
    }

    fn add_always(&self, core: usize, push: impl FnOnce(&mut ForwardedBatch)) {
        let queue = &mut self.network.queue(self.core, core)[2];
        if !queue.open {
            queue.batches.push_back(Batch::Ws(ForwardedBatch::default(), Vec::new()));
            queue.open = true;
        }
        let Some(Batch::Ws(batch, operations)) = queue.batches.back_mut() else {
            panic!("a batch of another kind")
        };
        push(batch);
        operations.extend(self.network.ws_operation.get());
    }

    fn flush(&self) {
        self.network.close(self.core);
    }
}
