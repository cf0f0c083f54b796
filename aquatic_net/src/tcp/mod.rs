//! TCP connections for every protocol that has them: listening sockets, limits, deadlines, TLS and the PROXY
//! protocol.
//!
//! In the main thread [`Listeners`] are made, on each core [`serve_tcp`] accepts and runs the service's
//! handler for each [`Connection`]. The service says by [`DeadlineHandle::enter`] what the connection is
//! doing, and the engine ends it when that takes too long or when the process stops.
//!
//! What belongs here is whatever a connection needs before and after its protocol. What the bytes mean
//! belongs to the service; who is behind a proxy's request header, to [`proxy`](crate::proxy).
//!
//! # Invariants
//!
//! - A connection is one task from accept to close. It starts no other, so nothing of it is left when it
//!   ends.
//! - Whatever a connection takes it gives back by a drop: its place under the limits, its record, its
//!   handshake slot, its part of every gauge.
//! - There is one timer per core for all deadlines of all connections.
//! - Nothing a client does, or leaves undone, keeps a connection longer than its deadline, or a core from
//!   others for longer than a bounded amount of work.
//! - An idle connection holds no buffer of the service's or of the engine's; with TLS, only the session's
//!   own.

mod accept;
mod alpn_challenge;
mod balancer;
mod bind;
pub mod config;
mod connection;
mod counters;
mod deadlines;
mod handshakes;
mod hello;
#[cfg(test)]
mod hello_properties;
mod indexed_queue;
mod preamble;
mod reserve;
mod socket_file;
mod source_gate;
mod stream;
mod tls;
mod tls_fault;
mod unix_socket;
mod validity;

pub use accept::{TcpSettings, serve_tcp};
pub use bind::{CoreListeners, ListenOptions, ListenerKind, Listeners, UnixOrigin};
pub use connection::{Connection, Peer};
pub use counters::Protocols;
pub use deadlines::{DeadlineHandle, Deadlines, Phase, SWEEP_INTERVAL};
pub use handshakes::HandshakeLimits;
pub use socket_file::SocketFile;
pub use source_gate::{SourceSettings, TcpBreakers};
pub use tls::{Tls, TlsError, TlsFiles, TlsPair, TlsReloader};
pub use unix_socket::{LocalListener, UnixBindError, check_unix_socket};
pub use validity::{Validity, Verdict};
