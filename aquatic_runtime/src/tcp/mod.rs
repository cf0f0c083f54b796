//! TCP connections for every protocol that has them: listening sockets, limits, deadlines, TLS and the PROXY protocol.
//! A service gets a [`Connection`] for each client and does the rest.

mod accept;
mod balance;
mod begin;
mod bind;
mod connection;
mod counters;
mod deadlines;
mod handshakes;
mod reserve;
mod stream;
mod tls;

pub use accept::{TcpSettings, serve_tcp};
pub use bind::{CoreListeners, ListenOptions, Listeners, UnixBindError};
pub use connection::{Connection, Peer};
pub use deadlines::{Deadlines, Pace, Phase, SWEEP_INTERVAL};
pub use tls::{Tls, TlsError, TlsFiles, TlsReloader};
