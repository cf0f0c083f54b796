//! State of one core that other cores may use while that core sleeps.
//!
//! To wake a core costs more than most work that it would be woken for. So a core puts its state into a slot
//! behind a lock before it sleeps, and takes it back when it has woken. Other cores use what they find there,
//! as if a task of the sleeping core had run; if there is nothing, they send a message as ever. While a core
//! runs, its state is its own and is used without a lock.
//!
//! Invariants: the slot holds the state only while its core waits for events, when no task of the core runs.
//! No core blocks while it holds the lock of another, so a core that has woken waits at most as long as the
//! others' work on its state takes. A core that has a notice is not asleep: what was sent to it earlier is
//! handled earlier.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::core::Core;
use crate::notifier::Notifier;

/// Where a sleeping core leaves its state. Apart from other data, as several cores write to it.
#[repr(align(128))]
struct Slot<T>(Mutex<Option<Box<T>>>);

/// The slots of all cores, in core order.
pub struct CoreStates<T> {
    slots: Arc<[Slot<T>]>,
}

impl<T> Clone for CoreStates<T> {
    fn clone(&self) -> Self {
        Self { slots: Arc::clone(&self.slots) }
    }
}

impl<T> fmt::Debug for CoreStates<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreStates").field("cores", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> CoreStates<T> {
    /// Empty slots for this many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { slots: (0..cores).map(|_| Slot(Mutex::new(None))).collect() }
    }

    /// Hands its state to a core, which shares it from now on while it sleeps. To be called once per core.
    #[must_use]
    pub fn attach(&self, core: &Rc<Core>, state: T) -> Rc<CoreState<T>> {
        let state = Rc::new(self.state_of(core.index(), core.notifiers(), state));
        if core.count() > 1 {
            core.add_shared(Rc::clone(&state) as Rc<dyn Shared>);
        }
        state
    }

    fn state_of(&self, index: usize, notifiers: Arc<[Notifier]>, state: T) -> CoreState<T> {
        CoreState {
            index,
            own: RefCell::new(Some(Box::new(state))),
            slots: Arc::clone(&self.slots),
            notifiers,
        }
    }
}

/// The state of a core, on that core.
pub struct CoreState<T> {
    index: usize,
    /// None only while the core sleeps.
    own: RefCell<Option<Box<T>>>,
    slots: Arc<[Slot<T>]>,
    notifiers: Arc<[Notifier]>,
}

impl<T> fmt::Debug for CoreState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreState").field("core", &self.index).finish_non_exhaustive()
    }
}

impl<T> CoreState<T> {
    /// This core's state. The borrow must end before the next `.await`.
    pub fn own(&self) -> RefMut<'_, T> {
        RefMut::map(self.own.borrow_mut(), |own| match own {
            Some(state) => &mut **state,
            None => unreachable!("tasks run only while their core is awake"),
        })
    }

    /// Has `act` use the state of another core, if that core sleeps and nobody else uses its state. `act`
    /// must do no more than a small amount of work: the core may wake meanwhile, and then waits for it.
    pub fn with_sleeping<R>(&self, core: usize, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        if core == self.index || !self.notifiers.get(core)?.is_asleep() {
            return None;
        }
        let mut slot = match self.slots.get(core)?.0.try_lock() {
            Ok(slot) => slot,
            // A panic on another core ends the process.
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        slot.as_deref_mut().map(act)
    }

    fn slot(&self) -> Option<MutexGuard<'_, Option<Box<T>>>> {
        let Slot(slot) = self.slots.get(self.index)?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a core shares while it sleeps.
pub(crate) trait Shared {
    /// Lets other cores use it: the core is about to sleep.
    fn release(&self);

    /// Takes it back: the core has woken. Waits for whoever uses it.
    fn reclaim(&self);
}

impl<T> Shared for CoreState<T> {
    fn release(&self) {
        if let (Some(mut slot), Ok(mut own)) = (self.slot(), self.own.try_borrow_mut()) {
            *slot = own.take();
        }
    }

    fn reclaim(&self) {
        if let (Some(mut slot), Ok(mut own)) = (self.slot(), self.own.try_borrow_mut())
            && let Some(state) = slot.take()
        {
            *own = Some(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::*;

    fn notifiers() -> Arc<[Notifier]> {
        [(); 2].map(|()| Notifier::new().unwrap()).into()
    }

    #[test]
    fn the_state_of_a_core_is_shared_only_while_it_sleeps_without_a_notice() {
        let (states, notifiers) = (CoreStates::new(2), notifiers());
        let [asking, owner] = [0, 1].map(|core| states.state_of(core, Arc::clone(&notifiers), core));
        let ask = || asking.with_sleeping(1, |state| std::mem::replace(state, *state + 10));
        assert_eq!(ask(), None, "the core runs");
        owner.release();
        assert_eq!(ask(), None, "it may still find a notice");
        assert!(notifiers[1].begin_sleep());
        assert_eq!((ask(), ask()), (Some(1), Some(11)));
        assert_eq!(owner.with_sleeping(1, |_| ()), None, "its own is not another's");
        assert_eq!(asking.with_sleeping(7, |_| ()), None, "there is no such core");
        notifiers[1].notify();
        assert_eq!(ask(), None, "what it was sent comes first");
        notifiers[1].end_sleep();
        owner.reclaim();
        assert_eq!((ask(), *owner.own()), (None, 21));
        *owner.own() = 5;
        let in_use = owner.own();
        owner.release();
        drop(in_use);
        owner.reclaim();
        assert_eq!(*owner.own(), 5, "what is in use is not shared");
    }

    #[test]
    fn nothing_is_lost_while_a_core_falls_asleep_and_wakes() {
        // Both ways are taken so many times, at least.
        const REQUESTS: u64 = 40;
        let (states, notifiers) = (CoreStates::new(2), notifiers());
        let (messages, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        let (done, sleeping) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let asking = states.state_of(0, Arc::clone(&notifiers), 0);
                let (mut served, mut sent) = (0, 0);
                while served < REQUESTS || sent < REQUESTS {
                    if asking.with_sleeping(1, |sum| *sum += 1).is_some() {
                        served += 1;
                        sleeping.store(true, Ordering::Release);
                    } else {
                        messages.fetch_add(1, Ordering::Release);
                        notifiers[1].notify();
                        sent += 1;
                    }
                    if (served + sent).is_multiple_of(16) {
                        thread::yield_now();
                    }
                }
                requests.store(served + sent, Ordering::Release);
                done.store(true, Ordering::Release);
            });
            let owner = states.state_of(1, Arc::clone(&notifiers), 0);
            while !done.load(Ordering::Acquire) || messages.load(Ordering::Acquire) > 0 {
                if notifiers[1].take() {
                    *owner.own() += messages.swap(0, Ordering::Acquire);
                }
                owner.release();
                if notifiers[1].begin_sleep() {
                    // Until it has been used once, or there is a notice.
                    let is_over = || done.load(Ordering::Acquire) || sleeping.swap(false, Ordering::Acquire);
                    while notifiers[1].is_asleep() && !is_over() {
                        thread::yield_now();
                    }
                    notifiers[1].end_sleep();
                }
                owner.reclaim();
            }
            assert_eq!(*owner.own(), requests.load(Ordering::Acquire));
        });
    }
}
