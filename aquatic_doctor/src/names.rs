//! Names of announce URLs.

use std::net::{IpAddr, ToSocketAddrs};

/// Name of the tracker and the addresses that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Host of an announce URL.
    pub name: String,
    /// Its addresses, or why there are none.
    pub addresses: Result<Vec<IpAddr>, String>,
    /// Whether clients of it verify the certificate.
    pub is_tls: bool,
}

/// Looks a name up in the way that programs of this machine do, which may ask a name server.
#[must_use]
pub fn resolve(name: &str, is_tls: bool) -> Name {
    let mut addresses = Vec::new();
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string()).map(|found| {
        for ip in found.map(|address| address.ip()) {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        addresses
    });
    Name { name: name.to_owned(), addresses: found, is_tls }
}
