//! Ways between simulated cores. For unit tests, integration tests and the fuzz target `ws_sessions`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use aquatic_runtime::Batch;
use aquatic_runtime::channel::OutboxFull;
use aquatic_tracker::Forward;

/// Batches by sender and receiver.
pub(crate) type Network<B> = Rc<RefCell<BTreeMap<(usize, usize), B>>>;

/// One core's way to the others.
pub(crate) struct Link<B> {
    pub(crate) core: usize,
    pub(crate) network: Network<B>,
}

impl<B: Batch> Forward<B> for Link<B> {
    fn add(&self, core: usize, push: impl FnOnce(&mut B)) -> Result<(), OutboxFull> {
        let waiting = self.network.borrow().get(&(self.core, core)).map_or(0, Batch::size);
        if waiting >= B::MAX_WAITING {
            return Err(OutboxFull);
        }
        self.add_always(core, push);
        Ok(())
    }

    fn add_always(&self, core: usize, push: impl FnOnce(&mut B)) {
        assert_ne!(self.core, core, "no core sends to itself");
        push(self.network.borrow_mut().entry((self.core, core)).or_default());
    }

    fn flush(&self) {}
}
