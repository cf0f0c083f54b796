//! What a configuration asks of a machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use aquatic_common::Family;
use aquatic_common::processors::Processors;

/// Transport of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// Name, as firewalls write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Address that the tracker listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Transport.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
}

/// How the memory of the process is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAsked {
    /// Bytes that the process may take.
    pub total: u64,
    /// Bytes that it takes at least.
    pub least: u64,
    /// Maximum number of connections that the bound allows.
    pub connections: u64,
}

/// What a configuration asks of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// Configured number of workers; 0 for one per processor.
    pub workers: usize,
    /// Processors to use; empty for all.
    pub cpus: Processors,
    /// Listening addresses of clients.
    pub listeners: Vec<Listener>,
    /// Whether TCP sockets on `[::]` accept IPv4 connections as well.
    pub dual_stack: bool,
    /// Addresses of metrics and of the status page.
    pub endpoints: Vec<SocketAddr>,
    /// Whether there is a unix socket.
    pub unix_socket: bool,
    /// Size of the receive buffer of each UDP socket, in bytes; 0 for that of the system.
    pub receive_buffer: u64,
    /// Name of the interface whose UDP bypasses the network stack, if there is one.
    pub xdp: Option<String>,
    /// Maximum number of connections that wait to be accepted.
    pub backlog: u64,
    /// Maximum number of connections.
    pub max_connections: u64,
    /// Whether clients come through a proxy on this machine over TCP.
    pub proxied: bool,
    /// The bound of memory; `None` if there is none.
    pub memory: Option<MemoryAsked>,
    /// File with the certificate, if TLS is served.
    pub certificate: Option<PathBuf>,
    /// How the tracker obtains that certificate, if it does.
    pub acme: Option<AcmeAsked>,
    /// NATS servers of the cluster, and what came of trying them; empty without a cluster.
    pub nats_servers: Vec<NatsServerAsked>,
    /// Number of nodes of the cluster that keep the same torrent, if nodes divide the torrents.
    pub replicas: Option<u32>,
}

/// NATS server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsServerAsked {
    /// Its URL.
    pub url: String,
    /// Its version, or why it cannot be used.
    pub outcome: Result<String, String>,
}

/// How the tracker obtains its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcmeAsked {
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// Ports on which the authority verifies them.
    pub ports: Vec<u16>,
    /// Why the last order failed; `None` if it did not.
    pub failure: Option<String>,
}

impl Asked {
    /// Whether a transport is served.
    #[must_use]
    pub fn serves(&self, transport: Transport) -> bool {
        self.listeners.iter().any(|listener| listener.transport == transport)
    }

    /// The listening addresses that clients of a family can reach.
    pub fn listeners_for(&self, family: Family) -> impl Iterator<Item = &Listener> {
        let accepts = move |listener: &&Listener| {
            let ip = listener.address.ip();
            let is_dual = self.dual_stack
                && family == Family::V4
                && listener.transport == Transport::Tcp
                && ip.is_unspecified();
            is_dual || Family::of(ip) == family
        };
        self.listeners.iter().filter(accepts)
    }

    /// Whether a family is served.
    #[must_use]
    pub fn serves_family(&self, family: Family) -> bool {
        self.listeners_for(family).next().is_some()
    }

    /// The ports of clients, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<(Transport, u16)> {
        let mut ports = Vec::new();
        for Listener { transport, address } in &self.listeners {
            let port = (*transport, address.port());
            if address.port() != 0 && !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }
}
