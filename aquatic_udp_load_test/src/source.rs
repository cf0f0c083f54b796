//! Sockets of the simulated peers.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

use anyhow::Context;
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::prefill::PendingPeers;
use aquatic_udp_protocol::ConnectionId;
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::Plan;

/// Connected socket and its connection id.
pub(crate) struct Source {
    pub(crate) socket: UdpSocket,
    /// Last connection id, and the time at which it was requested.
    pub(crate) connection: Option<(ConnectionId, Nanos)>,
    /// Time at which the pending connect request was sent.
    pub(crate) renewing_since: Option<Nanos>,
    /// When a connection id may be asked for again after a refusal.
    pub(crate) connect_again_at: Nanos,
    /// Number of requests without a response.
    pub(crate) in_flight: u32,
    /// Peers at the address of the socket.
    pub(crate) peers: Range<u64>,
    /// Peers that a prefill has yet to announce from this socket.
    pub(crate) unannounced: PendingPeers,
}

/// Opens the sockets of a thread. Addresses without peers get none.
pub(crate) fn open(plan: &Plan, thread: u32) -> anyhow::Result<Vec<Source>> {
    let per_address = u64::from(plan.config.network.sockets_per_address);
    let mut sources = Vec::new();
    for address in
        (u64::from(thread)..plan.topology.endpoints.addresses()).step_by(plan.config.threads as usize)
    {
        let peers = plan.topology.endpoints.peers_at(address);
        if peers.is_empty() {
            continue;
        }
        let share = (peers.end - peers.start).div_ceil(per_address);
        for number in 0..per_address {
            let start = (peers.start + number * share).min(peers.end);
            sources.push(Source {
                socket: connected_socket(plan, address)?,
                connection: None,
                renewing_since: None,
                connect_again_at: 0,
                in_flight: 0,
                peers: peers.clone(),
                unannounced: PendingPeers::new(start..(start + share).min(peers.end)),
            });
        }
    }
    Ok(sources)
}

fn connected_socket(plan: &Plan, address: u64) -> anyhow::Result<UdpSocket> {
    let server = plan.config.server_address;
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))
        .context("cannot open a socket; is the limit of open files large enough?")?;
    socket.set_nonblocking(true)?;
    match usize::try_from(plan.config.network.socket_recv_buffer_size)? {
        0 => {}
        size => socket.set_recv_buffer_size(size).context("cannot set the size of the receive buffer")?,
    }
    if let Some(ip) = plan.topology.source_ip(address) {
        let source = SocketAddr::new(ip, 0);
        socket.bind(&source.into()).with_context(|| {
            format!("cannot send from {}: is it an address of this machine?", source.ip())
        })?;
    }
    socket.connect(&server.into()).with_context(|| format!("cannot send to {server}"))?;
    Ok(socket.into())
}
