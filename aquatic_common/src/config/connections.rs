//! Sections `[connections]` and `[proxies]`: TCP connections of clients and reverse proxies.

crate::settings! {
    /// Limits and timeouts of TCP connections. [ws.client] has those of WebSockets.
    pub struct ConnectionsConfig, section "connections" {
        /// Maximum number of connections of the process. Above it, the connection that has waited longest for
        /// data of its client is closed: during its handshake, or for the next HTTP request. If none waits,
        /// the new connection is closed. An idle connection takes about 1.5 KiB (10 KiB with TLS) besides the
        /// memory of the kernel, one whose client sends but does not receive up to 50 KiB. The limit of open
        /// files (LimitNOFILE= in a systemd unit) must be higher.
        pub max_connections: usize = 100_000, unit "connections", in 1..=10_000_000;
        /// Maximum number of connections per IPv4 address or IPv6 /64 network; 0 for no limit. Above it, one
        /// of them that waits is closed, chosen like for max_connections; if none waits, the new connection
        /// is closed. Trusted proxies are exempt.
        pub max_connections_per_address: u32 = 1000, unit "connections", in 0..=10_000_000;
        /// Maximum number of TLS handshakes per worker that wait for data of their client, about 12 KiB each.
        /// Above it the oldest is closed. Set it above the number of handshakes that a worker starts per
        /// second, so that only stalled clients are closed.
        pub max_tls_handshakes: usize = 4096, unit "handshakes", in 1..=100_000;
        /// Maximum number of TLS handshakes per worker that are queued to start. Each takes 0.1 to 1 ms of
        /// the worker. Above it new connections are closed.
        pub max_queued_tls_handshakes: usize = 1024, unit "handshakes", in 1..=100_000;
        /// Time after which an HTTP connection without a request is closed. Set it above the keep-alive time
        /// of reverse proxies (60 s in nginx), which might otherwise send a request on a connection that is
        /// being closed.
        pub max_connection_idle: u32 = 75, unit "seconds", in 1..=86_400;
        /// Maximum duration of the TLS handshake and the PROXY protocol header.
        pub handshake_timeout: u32 = 10, unit "seconds", in 1..=600;
        /// Maximum time from the first byte of an HTTP request to the end of its headers. For the first
        /// request, the time starts with the connection.
        pub request_timeout: u32 = 10, unit "seconds", in 1..=600;
        /// Maximum time until a client has received an HTTP reply.
        pub reply_timeout: u32 = 30, unit "seconds", in 3..=600;
        /// Maximum time that a connection which the tracker closes waits for the client to close it as well.
        pub linger_timeout: u32 = 2, unit "seconds", in 1..=60;
    }
}

crate::settings! {
    /// Reverse proxies in front of the tracker, and how they name the clients.
    pub struct ProxiesConfig, section "proxies" {
        /// Addresses and networks of trusted proxies: ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].
        /// Connections from all other addresses are those of clients. Proxies that connect to
        /// network.unix_socket_path are always trusted.
        pub trusted_proxies: Vec<String> = Vec::new();
        /// Request headers of trusted proxies that name the client, such as ["Forwarded", "X-Real-IP"]; case
        /// does not matter. The first one that a request has is read, from right to left, skipping trusted
        /// proxies. "Forwarded" is read as in RFC 7239, all others as lists of addresses. List only headers
        /// that the proxies set: others are passed on as clients sent them.
        pub client_headers: Vec<String> = vec!["X-Forwarded-For".to_owned()];
        /// Trusted proxies start each connection with a header of the PROXY protocol, version 1 or 2, that
        /// names the client ("send-proxy-v2" in HAProxy, "proxy_protocol on" in nginx).
        pub proxy_protocol: bool = false;
        /// Treatment of requests from a trusted proxy without a valid client address: "refuse" rejects them,
        /// "use_proxy_address" uses the address of the proxy.
        pub on_missing_client: OnMissingClient = OnMissingClient::Refuse;
    }
}

crate::choice! {
    /// Treatment of requests from a trusted proxy without a valid client address.
    pub enum OnMissingClient {
        /// Reject them.
        Refuse = "refuse",
        /// Use the address of the proxy.
        UseProxyAddress = "use_proxy_address",
    }
}
