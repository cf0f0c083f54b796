//! Waiting for sockets: one epoll set per core, which the core's event loop waits for.
//!
//! Why not glommio's own sockets: waiting for each read separately costs a request to the kernel and a
//! completion that interrupts the thread, half of what a core can do. With one set the cost of waiting is
//! shared by all sockets that become ready together, and a core that is busy anyway finds them ready without
//! having waited at all.
//!
//! Invariants: a source owns its descriptor and leaves the set when it is dropped, so an event never names a
//! source that is gone. A wake-up may be spurious, a lost one never happens: a source is marked as not ready
//! only by its owner, on this thread, between two looks at the set; and what has come before it entered the
//! set is told when it does. One task may wait per source and direction.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use slab::Slab;

use crate::sys;

/// Maximum number of events taken from the kernel at once; the tasks they wake run before more are taken. So
/// this many connections, at most, are served before the core returns to its other sockets.
pub(crate) const EVENTS_PER_POLL: usize = 256;

/// How a source's registration is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For connections: registered for both directions at the first wait, no system call per wait. Each
    /// arrival of data wakes the core. A connection that is served without a wait never enters the set.
    Edge,
    /// For sockets that are drained in a loop, such as UDP: registered for what is waited for, and asked by
    /// the kernel's side at each wait of the core, so that a task may wait without having found the socket
    /// empty. A wait costs no system call unless it is for the other direction than the last. Whoever finds
    /// such a socket busy has it [`leave`](Source::leave).
    Level,
}

/// Whether to wait for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Take what is there.
    No,
    /// Block the thread until there is something. No task of the core may be runnable.
    Yes,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Something to read, or the end of the stream.
    Read,
    /// Room to write.
    Write,
}

/// One direction of a source.
#[derive(Debug, Default)]
struct Side {
    /// An event has come since the owner last found nothing to do.
    ready: bool,
    waiting: Option<Waker>,
}

impl Side {
    /// Wakes the task that waits for this. Returns the number of tasks woken.
    fn wake(&mut self) -> usize {
        self.ready = true;
        self.waiting.take().map(Waker::wake).is_some().into()
    }
}

#[derive(Debug)]
struct Entry {
    mode: Mode,
    fd: RawFd,
    /// The kernel knows of it.
    watched: bool,
    /// What the kernel has been asked for, if it knows of it.
    asked: EventFlags,
    read: Side,
    write: Side,
    /// The other end has stopped sending, or something is wrong: no further event may come.
    ended: bool,
}

impl Entry {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    /// Wakes the tasks that wait for an event. Returns their number.
    fn wake(&mut self, flags: EventFlags) -> usize {
        let all = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let read = all || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        let write = all || flags.contains(EventFlags::OUT);
        self.ended |= flags.intersects(EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP);
        let readers = if read { self.read.wake() } else { 0 };
        readers + if write { self.write.wake() } else { 0 }
    }
}

struct Set {
    epoll: OwnedFd,
    entries: RefCell<Slab<Entry>>,
    failures: Cell<u64>,
}

/// A core's set of sources.
#[derive(Clone)]
pub struct Readiness {
    set: Rc<Set>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("sources", &self.len()).finish_non_exhaustive()
    }
}

impl Readiness {
    /// An empty set.
    ///
    /// # Errors
    /// Those of `epoll_create1`, such as too many open files.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { set: Rc::new(Set { epoll, entries: RefCell::default(), failures: Cell::new(0) }) })
    }

    /// How many sources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.entries.borrow().len()
    }

    /// Whether there are no sources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what wakes the core and is nobody's source. Each time it becomes readable counts, read or not.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub(crate) fn watch_waker(&self, waker: impl AsFd) -> io::Result<()> {
        // No source has this key.
        Ok(epoll::add(&self.set.epoll, waker, EventData::new_u64(u64::MAX), EventFlags::IN | EventFlags::ET)?)
    }

    /// Sources that could not be added to the set since the last call.
    pub(crate) fn take_failures(&self) -> u64 {
        self.set.failures.take()
    }

    /// Takes over a descriptor, which must be in non-blocking mode. Dropping the source closes it.
    ///
    /// # Errors
    /// In [`Mode::Level`] those of `epoll_ctl`, such as too many watched descriptors; in [`Mode::Edge`] the
    /// first wait has them.
    pub fn register<T: AsFd>(&self, io: T, mode: Mode) -> io::Result<Source<T>> {
        // A new source counts as ready: its owner tries first and waits only when there was nothing to do.
        let side = || Side { ready: true, waiting: None };
        let fd = io.as_fd().as_raw_fd();
        let asked = EventFlags::empty();
        let entry = Entry { mode, fd, watched: false, asked, read: side(), write: side(), ended: false };
        let key = self.set.entries.borrow_mut().insert(entry);
        let source = Source { set: Rc::clone(&self.set), key, io };
        if mode == Mode::Level {
            source.watch(EventFlags::IN)?;
        }
        Ok(source)
    }

    /// Takes events from the kernel and wakes the tasks that wait for them. Returns the number of tasks
    /// woken.
    pub(crate) fn poll_events(&self, events: &mut Vec<Event>, wait: Wait) -> usize {
        events.clear();
        let at_once = Timespec::default();
        let timeout = if wait == Wait::No { Some(&at_once) } else { None };
        // The descriptor is valid and the buffer is ours, so the only error left is an interruption by a
        // signal.
        let _ = epoll::wait(&self.set.epoll, spare_capacity(events), timeout);
        let mut entries = self.set.entries.borrow_mut();
        let mut woken = 0;
        for event in events.iter() {
            let Some(entry) = usize::try_from(event.data.u64()).ok().and_then(|key| entries.get_mut(key))
            else {
                continue;
            };
            let woken_by_event = entry.wake(event.flags);
            woken += woken_by_event;
            if woken_by_event == 0 && entry.mode == Mode::Level && wait == Wait::Yes {
                // The owner waits for something else; with this in the set, which tells it at each wait, no
                // wait of the core would last.
                sys::forget(self.set.epoll.as_fd(), entry.fd);
                entry.watched = false;
            }
        }
        woken
    }
}

/// A registered descriptor.
pub struct Source<T: AsFd> {
    set: Rc<Set>,
    key: usize,
    io: T,
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<T: AsFd> Source<T> {
    /// What was registered.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Completes when the descriptor may have something to read. It may complete without anything being
    /// there: the caller reads until that would block, and waits again. One task may wait for each direction.
    ///
    /// In [`Mode::Level`] it always waits for the core's next look at the set.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + use<'_, T> {
        self.until_ready(Direction::Read)
    }

    /// Completes when the descriptor may take something; as [`readable`](Self::readable).
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + use<'_, T> {
        self.until_ready(Direction::Write)
    }

    /// Leaves the set until the next wait, if nobody waits. In [`Mode::Level`], for a socket that is always
    /// busy: the kernel goes through all that watch a socket for each packet it takes or gets rid of. With
    /// UDP that is 4 % of a response. Leaving and coming back cost two system calls.
    pub fn leave(&self) {
        let leaves = self.with_entry(|entry| {
            let waited_for = entry.read.waiting.is_some() || entry.write.waiting.is_some();
            entry.mode == Mode::Level && !waited_for && std::mem::take(&mut entry.watched)
        });
        if leaves {
            // Cannot fail for a descriptor that is in the set.
            let _ = epoll::delete(&self.set.epoll, &self.io);
        }
    }

    /// Runs a read that may block; if it would have, the next [`readable`](Self::readable) really waits.
    /// Every read of a source in [`Mode::Edge`] has to go through here.
    ///
    /// # Errors
    /// Those of the operation, `WouldBlock` included.
    pub fn try_read<R>(&self, read: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.attempt(Direction::Read, read)
    }

    fn attempt<R>(&self, direction: Direction, act: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        let result = act(&self.io);
        if let Err(error) = &result
            && error.kind() == ErrorKind::WouldBlock
        {
            self.with_entry(|entry| entry.side(direction).ready = false);
        }
        result
    }

    async fn until_ready(&self, direction: Direction) -> io::Result<()> {
        self.arm(direction)?;
        poll_fn(|context| self.poll_ready(direction, context)).await;
        Ok(())
    }

    /// Whether nothing has come since an operation would have blocked, so that another try is for nothing.
    fn is_known_to_block(&self, direction: Direction) -> bool {
        self.with_entry(|entry| entry.mode == Mode::Edge && !entry.side(direction).ready)
    }

    /// Enters the set.
    fn watch(&self, flags: EventFlags) -> io::Result<()> {
        epoll::add(&self.set.epoll, &self.io, EventData::new_u64(self.key as u64), flags)
            .inspect_err(|_| self.set.failures.set(self.set.failures.get() + 1))?;
        self.with_entry(|entry| (entry.watched, entry.asked) = (true, flags));
        Ok(())
    }

    /// Sees to it that the kernel tells of what comes.
    fn arm(&self, direction: Direction) -> io::Result<()> {
        let (mode, watched) = self.with_entry(|entry| (entry.mode, entry.watched));
        match mode {
            Mode::Edge if watched => Ok(()),
            Mode::Edge => self.watch(EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET),
            Mode::Level => self.ask(direction),
        }
    }

    /// Asks the kernel for what is waited for.
    fn ask(&self, direction: Direction) -> io::Result<()> {
        let (watched, asked, flags) = self.with_entry(|entry| {
            entry.side(direction).ready = false;
            let mut flags = EventFlags::empty();
            if direction == Direction::Read || entry.read.waiting.is_some() {
                flags |= EventFlags::IN;
            }
            if direction == Direction::Write || entry.write.waiting.is_some() {
                flags |= EventFlags::OUT;
            }
            (entry.watched, entry.asked, flags)
        });
        if !watched {
            return self.watch(flags);
        }
        if asked != flags {
            epoll::modify(&self.set.epoll, &self.io, EventData::new_u64(self.key as u64), flags)?;
            self.with_entry(|entry| entry.asked = flags);
        }
        Ok(())
    }

    fn poll_ready(&self, direction: Direction, context: &Context<'_>) -> Poll<()> {
        self.with_entry(|entry| {
            let side = entry.side(direction);
            if side.ready {
                return Poll::Ready(());
            }
            match &mut side.waiting {
                Some(waker) => waker.clone_from(context.waker()),
                none @ None => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }

    fn with_entry<R>(&self, act: impl FnOnce(&mut Entry) -> R) -> R {
        let mut entries = self.set.entries.borrow_mut();
        // The entry lives exactly as long as the source.
        act(&mut entries[self.key])
    }

    /// Notes that a read of a stream in [`Mode::Edge`] has got less than it asked for, which spares the next
    /// read that would have got nothing: whatever comes later causes an event. The end of the stream does
    /// not, if it has been told together with the last bytes.
    pub fn note_short_read(&self) {
        self.with_entry(|entry| {
            if entry.mode == Mode::Edge && !entry.ended {
                entry.read.ready = false;
            }
        });
    }

    /// Whether the other end is known to have stopped sending.
    pub fn has_ended(&self) -> bool {
        self.with_entry(|entry| entry.ended)
    }

    /// Whether a read got less than it asked for, and no one has waited for more since.
    pub fn was_emptied_at_once(&self) -> bool {
        self.with_entry(|entry| !entry.watched && !entry.read.ready)
    }

    /// Runs an operation that may block; if it would have, the task is woken when it is worth another try.
    pub fn poll_io<R>(
        &self,
        direction: Direction,
        context: &Context<'_>,
        mut act: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if self.is_known_to_block(direction) {
            self.arm(direction)?;
            if self.poll_ready(direction, context).is_pending() {
                return Poll::Pending;
            }
        }
        loop {
            match self.attempt(direction, &mut act) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                done => return Poll::Ready(done),
            }
            self.arm(direction)?;
            if self.poll_ready(direction, context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<T: AsFd> Drop for Source<T> {
    fn drop(&mut self) {
        let entry = self.set.entries.borrow_mut().remove(self.key);
        if entry.watched {
            // Before the descriptor is closed: a duplicate of it elsewhere would keep it in the set
            // otherwise.
            let _already_gone = epoll::delete(&self.set.epoll, &self.io);
        }
    }
}

impl<T: AsFd + Unpin> AsyncRead for Source<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(Direction::Read, context, |mut io| io.read(buffer))
    }
}

impl<T: AsFd + Unpin> AsyncWrite for Source<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(Direction::Write, context, |mut io| io.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(Direction::Write, context, |mut io| io.flush())
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Closing happens when the source is dropped; nothing is buffered here.
        self.poll_flush(context)
    }
}
