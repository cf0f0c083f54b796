//! Snapshots: the torrents of all cores in a file of the state directory, from which the next process goes
//! on.
//!
//! - [`format`](mod@format): the bytes. [`stream`]: writing and reading all of them. Both are pure.
//! - `core`: what each core does, in steps. `thread`: the side thread, which does all input and output.
//!   `distribution`: sorting by core what is taken in.
//! - `handing`: the same between a process and its successor, with `records` of what changes meanwhile.
//!
//! Cores and side thread meet in bounded queues only: the side thread asks through mailboxes and never has
//! more than a few batches waiting for a core; a core gives full chunks away, or waits with the next step.

mod core;
mod distribution;
pub mod format;
mod handing;
mod loading;
pub(crate) mod records;
mod run;
pub mod stream;
mod thread;

pub use self::core::{CoreSnapshots, Loaded};
pub(crate) use self::loading::Loading;
pub use self::run::Run;
pub use self::thread::{Prepared, Restored, SnapshotInterval, SnapshotTrigger, prepare};
pub use aquatic_swarm::{SaveSwarms, SavedPeer, SavedTorrent};
