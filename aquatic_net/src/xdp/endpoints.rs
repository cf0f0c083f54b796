//! What the tracker is contacted at: addresses and ports together with the VLAN tags of frames for them.
//! Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::frame::MAX_TAGS;
use super::program::{ENDPOINT_KEY, FAMILY_BITS, FAMILY_V4, FAMILY_V6, NETWORK_KEY};
use aquatic_common::Prefix;

/// VLAN tags of a frame, from the outermost on; 0 for none.
pub(super) type Tags = [u16; MAX_TAGS];

/// An address at which frames with some tags arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalAddress {
    pub(super) ip: IpAddr,
    pub(super) tags: Tags,
}

/// An address and port that the tracker serves, and the tags of frames for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    address: SocketAddr,
    tags: Tags,
}

impl Endpoint {
    /// The key in the map of endpoints.
    pub(super) fn key(&self) -> [u8; ENDPOINT_KEY] {
        let mut key = [0; ENDPOINT_KEY];
        key[..16].copy_from_slice(&octets(self.address.ip()));
        key[16..18].copy_from_slice(&self.address.port().to_be_bytes());
        let [outer, inner] = self.tags;
        key[18..20].copy_from_slice(&outer.to_be_bytes());
        key[20..22].copy_from_slice(&inner.to_be_bytes());
        key
    }
}

/// An address with 16 bytes, IPv4 mapped into IPv6.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The key of a network in the map of blocked ones.
pub(super) fn network_key(network: Prefix) -> [u8; NETWORK_KEY] {
    let ip = network.first();
    let (family, mapped) = if ip.is_ipv4() { (FAMILY_V4, 96) } else { (FAMILY_V6, 0) };
    let bits = FAMILY_BITS + mapped + u32::from(network.length());
    let mut key = [0; NETWORK_KEY];
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4..8].copy_from_slice(&family.to_be_bytes());
    key[8..].copy_from_slice(&octets(ip));
    key
}

/// The tags of frames that arrive at an interface for a VLAN's interface; `None` if they do not, or have more
/// tags than [`MAX_TAGS`]. `vlan` returns the interface below that of a VLAN, and its tag.
pub(super) fn tags_of(
    interface: &str,
    name: &str,
    vlan: impl Fn(&str) -> Option<(String, u16)>,
) -> Option<Tags> {
    let mut inside_out = Vec::new();
    let mut name = name.to_owned();
    while name != interface {
        let (below, tag) = vlan(&name)?;
        if tag == 0 || inside_out.len() == MAX_TAGS {
            return None;
        }
        inside_out.push(tag);
        name = below;
    }
    let mut tags = [0; MAX_TAGS];
    tags.iter_mut().zip(inside_out.into_iter().rev()).for_each(|(to, tag)| *to = tag);
    Some(tags)
}

/// What listeners are contacted at: their own address, or all there are.
pub(super) fn endpoints(listeners: &[SocketAddr], addresses: &[LocalAddress]) -> BTreeSet<Endpoint> {
    let serves = |listener: &SocketAddr, ip: IpAddr| {
        listener.is_ipv4() == ip.is_ipv4() && (listener.ip().is_unspecified() || listener.ip() == ip)
    };
    let of_listener = |listener: &SocketAddr| {
        let listener = *listener;
        addresses.iter().filter(move |local| serves(&listener, local.ip)).map(move |local| Endpoint {
            address: SocketAddr::new(local.ip, listener.port()),
            tags: local.tags,
        })
    };
    listeners.iter().flat_map(of_listener).collect()
}

/// The listener that serves an address and port.
pub(super) fn listener_of(listeners: &[SocketAddr], local: SocketAddr) -> Option<usize> {
    let serves = |listener: &SocketAddr| {
        listener.port() == local.port()
            && listener.is_ipv4() == local.is_ipv4()
            && (listener.ip().is_unspecified() || listener.ip() == local.ip())
    };
    listeners.iter().position(serves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(ip: &str, tags: Tags) -> LocalAddress {
        LocalAddress { ip: ip.parse().unwrap(), tags }
    }

    fn shown(listeners: &[&str], addresses: &[LocalAddress]) -> Vec<String> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|listener| listener.parse().unwrap()).collect();
        let endpoints = endpoints(&listeners, addresses);
        endpoints.iter().map(|endpoint| format!("{} {:?}", endpoint.address, endpoint.tags)).collect()
    }

    #[test]
    fn listeners_are_contacted_at_their_addresses() {
        let addresses =
            [local("192.0.2.1", [0, 0]), local("192.0.2.2", [5, 0]), local("2001:db8::1", [0, 0])];
        assert_eq!(
            shown(&["0.0.0.0:1", "[::]:2"], &addresses),
            ["192.0.2.1:1 [0, 0]", "192.0.2.2:1 [5, 0]", "[2001:db8::1]:2 [0, 0]"]
        );
        assert_eq!(shown(&["192.0.2.2:7"], &addresses), ["192.0.2.2:7 [5, 0]"]);
        assert_eq!(shown(&["198.51.100.1:7"], &addresses), [""; 0]);
    }

    #[test]
    fn listeners_are_found_by_address_and_port() {
        let listeners: Vec<SocketAddr> =
            ["192.0.2.1:1", "0.0.0.0:2", "[::]:1"].iter().map(|text| text.parse().unwrap()).collect();
        let found = |local: &str| listener_of(&listeners, local.parse().unwrap());
        assert_eq!(found("192.0.2.1:1"), Some(0));
        assert_eq!(found("192.0.2.2:1"), None);
        assert_eq!(found("192.0.2.2:2"), Some(1));
        assert_eq!(found("[2001:db8::1]:1"), Some(2));
        assert_eq!(found("[2001:db8::1]:2"), None);
    }

    #[test]
    fn tags_lead_from_the_interface_to_the_vlan() {
        let vlan = |name: &str| match name {
            "eth0.5" => Some(("eth0".to_owned(), 5)),
            "eth0.5.7" => Some(("eth0.5".to_owned(), 7)),
            "eth0.5.7.9" => Some(("eth0.5.7".to_owned(), 9)),
            "wlan0.1" => Some(("wlan0".to_owned(), 1)),
            _ => None,
        };
        let tags = |name| tags_of("eth0", name, vlan);
        assert_eq!(tags("eth0"), Some([0, 0]));
        assert_eq!(tags("eth0.5"), Some([5, 0]));
        assert_eq!(tags("eth0.5.7"), Some([5, 7]));
        assert_eq!([tags("eth0.5.7.9"), tags("wlan0.1"), tags("wlan0")], [None; 3]);
    }

    #[test]
    fn keys_are_what_the_program_reads() {
        let key = Endpoint { address: "192.0.2.1:258".parse().unwrap(), tags: [5, 6] }.key();
        assert_eq!(key[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]);
        assert_eq!(key[12..], [192, 0, 2, 1, 1, 2, 0, 5, 0, 6, 0, 0]);
        let key = network_key("192.0.2.0/24".parse().unwrap());
        assert_eq!((&key[..4], &key[20..]), (&152_u32.to_ne_bytes()[..], &[192, 0, 2, 0][..]));
        assert_eq!(key[4..8], [0, 0, 0, 4]);
        let key = network_key("2001:db8::/32".parse().unwrap());
        assert_eq!((&key[..4], &key[8..12]), (&64_u32.to_ne_bytes()[..], &[0x20, 1, 0xd, 0xb8][..]));
        assert_eq!(key[4..8], [0, 0, 0, 6]);
    }
}
