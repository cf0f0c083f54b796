//! The network layer of the tracker: TCP connections with their limits, deadlines, TLS and proxies, and UDP
//! in batches. It knows neither torrents nor what the bytes mean; that belongs to the services.
//!
//! - [`tcp`]: listening sockets, connections, TLS. [`proxy`]: the client behind a proxy (PROXY protocol,
//!   forwarded headers); pure.
//! - [`udp`]: groups of sockets that are read and written in batches, and the program that steers packets to
//!   cores.
//! - [`xdp`]: datagrams of an interface that bypass the network stack.
//! - [`block_list`], [`breaker`]: who is not served, and which protocols.
//! - [`listen`]: why an address cannot be bound, and what to do about it.

#![warn(missing_docs)]

pub mod block_list;
pub mod breaker;
pub mod listen;
pub mod proxy;
mod sys;
pub mod tcp;
pub mod udp;
pub mod xdp;
