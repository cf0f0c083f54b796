//! Replication between nodes: what a core notes of its announces for other nodes ([`Published`]), as records
//! ([`write_record`], [`take_record`]), and what it takes in from them
//! ([`Tracker::apply_change`](crate::Tracker::apply_change)).
//!
//! The node that heard a peer last owns its lifetime. It tells of a peer that is new, has changed its role,
//! has completed, has stopped, or was another node's until now; and once in each interval of
//! [`refresh_interval`] seconds in which the peer announces. So a living peer is told of at least once in
//! that interval and its own, and the other nodes remember it by [`remote_grace`] longer than their own
//! peers. That a peer has expired is not told.
//!
//! Peers that have stopped are remembered for nodes that may not have heard of it ([`MAX_DEPARTED`]). What a
//! node is told of those that live does not show it who has left.
//!
//! A change has the age of its announce in seconds, so clocks of nodes need not agree. All that is pure.

mod departed;
mod publishing;
mod records;

pub use aquatic_swarm::{Applied, Change, ChangeKind, Completion, HashKey, PartHasher, PartSet};

pub use self::departed::{DepartedCursor, MAX_DEPARTED};
pub(crate) use self::publishing::Publishing;
pub use self::publishing::{MAX_BATCH, MAX_UNPUBLISHED, Published, refresh_interval, remote_grace};
pub use self::records::{forget_order, record_length, take_record, write_record};
