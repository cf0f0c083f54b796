//! Tasks of a core that share something.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::core::Core;

/// Pause while another task has its turn.
const RETRY: Duration = Duration::from_millis(1);

/// Has tasks of one core that share something run one after the other. Clones are handles to the same turns.
///
/// A task that was cancelled notices it some time later, when its successor may have been started already.
#[derive(Clone, Debug, Default)]
pub struct Turns(Rc<Cell<bool>>);

impl Turns {
    /// Waits until no other task has a turn. This one ends with what is returned.
    pub async fn next(&self, core: &Core) -> Turn {
        while self.0.replace(true) {
            core.sleep(RETRY).await;
        }
        Turn(Rc::clone(&self.0))
    }
}

/// The turn of a task.
#[derive(Debug)]
#[must_use = "the turn ends at once"]
pub struct Turn(Rc<Cell<bool>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
