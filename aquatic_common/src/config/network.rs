//! Section `[network]`: listening addresses of all protocols, and TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{DEFAULT_PORT, MetricsConfig};
use crate::addr::Family;
use crate::settings::{Addresses, Problem};

/// Maximum length of the path of a unix socket in bytes: `sun_path` without its final zero (unix(7)).
pub const MAX_UNIX_PATH: usize = 107;

crate::choice! {
    /// How UDP datagrams come from an interface past the network stack.
    #[derive(Default)]
    pub enum XdpMode {
        /// The first of the others that works.
        #[default]
        Auto = "auto",
        /// The network card writes into the memory of the process.
        ZeroCopy = "zero_copy",
        /// The driver runs the program, and the kernel copies.
        Native = "native",
        /// The kernel runs the program, and copies.
        Generic = "generic",
    }
}

/// Maximum length of the name of a network interface in bytes: `IFNAMSIZ` without its final zero.
const MAX_INTERFACE_NAME: usize = 15;

/// Port that TLS is served on unless addresses say otherwise.
pub(super) const TLS_PORT: u16 = 443;

crate::settings! {
    /// Listening addresses and TLS. UDP and TCP (HTTP and WebTorrent) use the same addresses and port
    /// numbers.
    pub struct NetworkConfig, section "network" {
        /// Serve clients over IPv4.
        pub use_ipv4: bool = true;
        /// Serve clients over IPv6.
        pub use_ipv6: bool = true;
        /// Address and port for IPv4, or a list of them: ["192.0.2.1:6969", "192.0.2.2:6969"].
        pub address_ipv4: Addresses = Addresses(vec![SocketAddr::from(([0; 4], DEFAULT_PORT))]);
        /// Address and port for IPv6, or a list of them: ["[2001:db8::1]:6969", "[2001:db8::2]:6969"].
        pub address_ipv6: Addresses = Addresses(vec![SocketAddr::from(([0_u16; 8], DEFAULT_PORT))]);
        /// Accept only IPv6 connections on IPv6 sockets. If false, a TCP socket on [::] accepts IPv4
        /// connections as well, and use_ipv4 must be false. UDP sockets for IPv6 always accept IPv6 only.
        pub only_ipv6: bool = true;
        /// Path of an additional unix socket for reverse proxies on this machine; empty for none. Its
        /// connections are not encrypted, and every process that may open it is trusted like
        /// proxies.trusted_proxies.
        pub unix_socket_path: PathBuf = PathBuf::new();
        /// Permissions of the unix socket as three octal digits.
        pub unix_socket_mode: String = "660".to_owned();
        /// Maximum number of connections that wait in the kernel to be accepted, per worker and address. The
        /// sysctl net.core.somaxconn limits it further.
        pub tcp_backlog: u16 = 4096, unit "connections", in 1..=65_535;
        /// Network interface whose UDP requests bypass the network stack of the kernel (AF_XDP); empty for
        /// none. They are then invisible to tcpdump and the firewall. Needs root or capabilities at the
        /// start; see docs/xdp.md.
        pub xdp_interface: String = String::new();
        /// "auto" uses the first mode that works: "zero_copy" (the network card writes into the memory of the
        /// tracker), "native" (the driver runs the program, the kernel copies) or "generic" (any interface).
        pub xdp_mode: XdpMode = XdpMode::Auto;
        /// Encrypt TCP connections with TLS 1.2 or 1.3.
        pub enable_tls: bool = false;
        /// Names and IP addresses of the tracker, for which a certificate is obtained from Let's Encrypt, or
        /// the authority of acme.directory, and renewed: ["tracker.example.org"]. By naming them you agree to
        /// the terms of service of that authority. Needs state_directory, and port 443 or 80 of each name to
        /// lead to the tracker. Implies TLS: on port 443, unless enable_tls is true or there are addresses
        /// for TLS. See docs/acme.md.
        pub acme: Vec<String> = Vec::new();
        /// Address and port for TLS over IPv4, or a list of them. If both lists are empty, TLS is used on
        /// address_ipv4 and address_ipv6. Otherwise TCP connections to those are not encrypted.
        pub tls_address_ipv4: Addresses = Addresses(Vec::new());
        /// Address and port for TLS over IPv6, or a list of them.
        pub tls_address_ipv6: Addresses = Addresses(Vec::new());
        /// Accept plain connections on the TLS addresses as well. They are recognised by their first byte.
        pub accept_plain: bool = false;
        /// PEM file with the certificate and its intermediate certificates. Reloaded when it changes and on
        /// SIGHUP; open connections are not affected.
        pub tls_certificate_path: PathBuf = PathBuf::new();
        /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
        pub tls_private_key_path: PathBuf = PathBuf::new();
    }
}

/// The transports that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// UDP.
    pub udp: bool,
    /// HTTP or WebTorrent.
    pub tcp: bool,
}

/// Kind of connections that a listening TCP socket accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerKind {
    /// Plain connections only.
    #[default]
    Plain,
    /// Encrypted connections only.
    Tls,
    /// Both, distinguished by their first byte.
    TlsOrPlain,
}

impl NetworkConfig {
    /// The addresses that UDP and TCP listen on, with their families, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (Family, SocketAddr)> {
        self.of_families(&self.address_ipv4, &self.address_ipv6)
    }

    /// The additional addresses for TLS, with their families, IPv4 first.
    fn tls_addresses(&self) -> impl Iterator<Item = (Family, SocketAddr)> {
        if self.has_tls_addresses() || !self.implies_tls_port() {
            return self.of_families(&self.tls_address_ipv4, &self.tls_address_ipv6);
        }
        let port = |ip: IpAddr| Addresses(vec![SocketAddr::new(ip, TLS_PORT)]);
        self.of_families(&port(Ipv4Addr::UNSPECIFIED.into()), &port(Ipv6Addr::UNSPECIFIED.into()))
    }

    /// Whether TLS is served.
    #[must_use]
    pub fn serves_tls(&self) -> bool {
        self.enable_tls || !self.acme.is_empty()
    }

    /// Whether TLS is served on its usual port because of the names for a certificate alone.
    #[must_use]
    pub fn implies_tls_port(&self) -> bool {
        !self.enable_tls && !self.acme.is_empty() && !self.has_tls_addresses()
    }

    fn of_families(
        &self,
        v4: &Addresses,
        v6: &Addresses,
    ) -> impl Iterator<Item = (Family, SocketAddr)> + use<> {
        let of = |family, is_used: bool, addresses: &Addresses| {
            let addresses = if is_used { addresses.0.clone() } else { Vec::new() };
            addresses.into_iter().map(move |address| (family, address))
        };
        of(Family::V4, self.use_ipv4, v4).chain(of(Family::V6, self.use_ipv6, v6))
    }

    /// The addresses that TCP listens on and the kind of connections that each accepts: those for all
    /// protocols first, then those for TLS.
    #[must_use]
    pub fn tcp_listeners(&self) -> Vec<(SocketAddr, ListenerKind)> {
        let encrypted = if self.accept_plain { ListenerKind::TlsOrPlain } else { ListenerKind::Tls };
        let shared =
            if self.enable_tls && !self.has_tls_addresses() { encrypted } else { ListenerKind::Plain };
        let serves_tls = self.serves_tls();
        let tls = self.tls_addresses().filter(|_| serves_tls).map(|(_, address)| (address, encrypted));
        self.addresses().map(|(_, address)| (address, shared)).chain(tls).collect()
    }

    fn has_tls_addresses(&self) -> bool {
        !self.tls_address_ipv4.0.is_empty() || !self.tls_address_ipv6.0.is_empty()
    }

    /// Whether there is a unix socket to listen on.
    #[must_use]
    pub fn has_unix_socket(&self) -> bool {
        !self.unix_socket_path.as_os_str().is_empty()
    }

    /// Permissions of the unix socket, unless they are malformed.
    #[must_use]
    pub fn unix_socket_permissions(&self) -> Option<u32> {
        let text = &self.unix_socket_mode;
        let is_octal = text.len() == 3 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()
    }

    /// Whether the tracker may start without listening on an address whose family the machine lacks. Machines
    /// without IPv6 are common, and serving both families is the default.
    #[must_use]
    pub fn may_skip(&self, address: SocketAddr) -> bool {
        address.is_ipv6() && address.ip().is_unspecified() && self.use_ipv4
    }

    /// Reports impossible combinations of the settings that the transports use, and a metrics endpoint on a
    /// listening address of TCP.
    pub fn check(&self, transports: Transports, metrics: &MetricsConfig, problems: &mut Vec<Problem>) {
        self.check_addresses(transports, problems);
        if transports.udp {
            self.check_xdp(problems);
        }
        if transports.tcp {
            self.check_dual_stack(problems);
            self.check_unix_socket(problems);
            self.check_tls_addresses(problems);
            self.check_tls_files(problems);
            self.check_metrics(metrics, problems);
        }
    }

    fn check_addresses(&self, transports: Transports, problems: &mut Vec<Problem>) {
        for (family, key, addresses) in [
            (Family::V4, Self::address_ipv4, &self.address_ipv4),
            (Family::V6, Self::address_ipv6, &self.address_ipv6),
        ] {
            if addresses.0.is_empty() {
                let switch = if family == Family::V4 { Self::use_ipv4 } else { Self::use_ipv6 };
                let text = format!("the list is empty; to not listen, set {switch} = false");
                problems.push(Problem::new(key, text));
            }
            check_list(family, key, addresses, problems);
        }
        // UDP cannot use a unix socket.
        let may_have_none = self.has_unix_socket() && !transports.udp;
        if !self.use_ipv4 && !self.use_ipv6 && !may_have_none {
            let text = format!(
                "is false like {}, so there is no address to listen on; set one to true",
                Self::use_ipv6
            );
            problems.push(Problem::new(Self::use_ipv4, text));
        }
    }

    fn check_xdp(&self, problems: &mut Vec<Problem>) {
        let name = &self.xdp_interface;
        let is_name = name.len() <= MAX_INTERFACE_NAME
            && !matches!(name.as_str(), "." | "..")
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        if !is_name {
            let text = format!("{name:?} is not the name of a network interface (ip link show)");
            problems.push(Problem::new(Self::xdp_interface, text));
        }
        if name.is_empty() && self.xdp_mode != XdpMode::Auto {
            let text = format!("has no effect unless {} names an interface", Self::xdp_interface);
            problems.push(Problem::new(Self::xdp_mode, text));
        }
    }

    /// Reports IPv6 sockets that accept IPv4 connections beside IPv4 sockets on the same port.
    fn check_dual_stack(&self, problems: &mut Vec<Problem>) {
        if self.only_ipv6 || !self.use_ipv4 || !self.use_ipv6 {
            return;
        }
        let listeners = self.tcp_listeners();
        let v4_ports: Vec<u16> =
            listeners.iter().filter(|(address, _)| address.is_ipv4()).map(|(v4, _)| v4.port()).collect();
        for (address, _) in &listeners {
            let accepts_both = address.is_ipv6() && address.ip().is_unspecified() && address.port() != 0;
            if accepts_both && v4_ports.contains(&address.port()) {
                let text = format!(
                    "is false, so {address} accepts the IPv4 connections of port {}, which has an IPv4 address as \
                     well; set {} = false, or {} = true",
                    address.port(),
                    Self::use_ipv4,
                    Self::only_ipv6
                );
                problems.push(Problem::new(Self::only_ipv6, text));
            }
        }
    }

    fn check_unix_socket(&self, problems: &mut Vec<Problem>) {
        if self.unix_socket_path.as_os_str().len() > MAX_UNIX_PATH {
            let text = format!("the path is longer than {MAX_UNIX_PATH} bytes");
            problems.push(Problem::new(Self::unix_socket_path, text));
        }
        if self.unix_socket_permissions().is_none() {
            let text = format!("{:?} is not three octal digits such as \"660\"", self.unix_socket_mode);
            problems.push(Problem::new(Self::unix_socket_mode, text));
        }
    }

    fn check_tls_addresses(&self, problems: &mut Vec<Problem>) {
        let requires_tls =
            format!("has no effect unless {} is true or {} has names", Self::enable_tls, Self::acme);
        for (family, key, addresses) in [
            (Family::V4, Self::tls_address_ipv4, &self.tls_address_ipv4),
            (Family::V6, Self::tls_address_ipv6, &self.tls_address_ipv6),
        ] {
            if !self.serves_tls() && !addresses.0.is_empty() {
                problems.push(Problem::new(key, requires_tls.clone()));
            }
            check_list(family, key, addresses, problems);
            for (_, tls) in self.tls_addresses().filter(|(own, _)| *own == family) {
                if let Some((_, shared)) = self.addresses().find(|(_, shared)| overlap(*shared, tls)) {
                    let shared_key =
                        if family == Family::V4 { Self::address_ipv4 } else { Self::address_ipv6 };
                    problems
                        .push(Problem::new(key, format!("{tls} conflicts with {shared} of {shared_key}")));
                }
            }
        }
        if !self.serves_tls() && self.accept_plain {
            problems.push(Problem::new(Self::accept_plain, requires_tls));
        }
        if self.serves_tls() && self.has_tls_addresses() && self.tls_addresses().next().is_none() {
            let text =
                "is true, but the families of the TLS addresses are switched off, so nothing is encrypted";
            problems.push(Problem::new(Self::enable_tls, text));
        }
    }

    fn check_tls_files(&self, problems: &mut Vec<Problem>) {
        for (key, path) in [
            (Self::tls_certificate_path, &self.tls_certificate_path),
            (Self::tls_private_key_path, &self.tls_private_key_path),
        ] {
            let is_empty = path.as_os_str().is_empty();
            if !self.acme.is_empty() {
                if !is_empty {
                    let text =
                        format!("has no effect because {} has names; leave one of the two out", Self::acme);
                    problems.push(Problem::new(key, text));
                }
                continue;
            }
            match (self.enable_tls, is_empty) {
                (true, true) => {
                    let text = format!(
                        "is required when {} is true, unless {} has names",
                        Self::enable_tls,
                        Self::acme
                    );
                    problems.push(Problem::new(key, text));
                }
                (false, false) => {
                    let text = format!("has no effect unless {} is true", Self::enable_tls);
                    problems.push(Problem::new(key, text));
                }
                (true, false) | (false, true) => {}
            }
        }
    }

    fn check_metrics(&self, metrics: &MetricsConfig, problems: &mut Vec<Problem>) {
        if metrics.enable {
            self.check_endpoint(MetricsConfig::address, metrics.address, problems);
        }
    }

    /// Reports the address of an endpoint, the value of a key, that is a listening address of TCP, or that of
    /// no host.
    pub fn check_endpoint(&self, key: &str, address: SocketAddr, problems: &mut Vec<Problem>) {
        check_ip(key, address, problems);
        let listeners = self.tcp_listeners();
        if let Some((taken, _)) = listeners.iter().find(|(taken, _)| overlap(*taken, address)) {
            problems
                .push(Problem::new(key, format!("{address} conflicts with the listening address {taken}")));
        }
    }
}

/// Reports addresses of the other family, and two addresses that cannot both be listened on.
fn check_list(family: Family, key: &str, addresses: &Addresses, problems: &mut Vec<Problem>) {
    for address in &addresses.0 {
        if address.is_ipv4() != (family == Family::V4) {
            let version = if family == Family::V4 { 4 } else { 6 };
            problems.push(Problem::new(key, format!("{address} is not an IPv{version} address")));
        }
        if let SocketAddr::V6(address) = address
            && let Some(ip) = address.ip().to_ipv4_mapped()
        {
            let text = format!(
                "{address} is an IPv4 address in IPv6 form; write \"{ip}:{}\" into the key for IPv4 addresses",
                address.port()
            );
            problems.push(Problem::new(key, text));
        }
        check_ip(key, *address, problems);
    }
    if let Some((one, other)) = overlapping(&addresses.0) {
        problems.push(Problem::new(key, format!("{one} conflicts with {other}; leave one of them out")));
    }
}

/// Reports an address to which no client can connect: it is not that of one host.
fn check_ip(key: &str, address: SocketAddr, problems: &mut Vec<Problem>) {
    let kind = match address.ip() {
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V4(_) | IpAddr::V6(_) => return,
    };
    let any = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let text = format!("{address} has {kind}; write an address of this machine, or {any} for all of them");
    problems.push(Problem::new(key, text));
}

/// The first two addresses that cannot both be listened on.
fn overlapping(addresses: &[SocketAddr]) -> Option<(SocketAddr, SocketAddr)> {
    addresses.iter().enumerate().find_map(|(at, &one)| {
        let other = addresses.iter().skip(at + 1).find(|&&other| overlap(one, other))?;
        Some((one, *other))
    })
}

/// Whether two addresses cannot both be listened on. For port 0 the kernel chooses a free one.
#[must_use]
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.is_ipv4() == other.is_ipv4() && same_ip && one.port() == other.port() && one.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Addresses {
        Addresses(texts.iter().map(|address| address.parse().unwrap()).collect())
    }

    /// Keys of the problems of a section `[network]` beside a metrics endpoint, if there is one.
    fn keys_with(metrics: Option<&str>, change: impl FnOnce(&mut NetworkConfig)) -> Vec<String> {
        let mut network = NetworkConfig::default();
        change(&mut network);
        let address = metrics.unwrap_or("127.0.0.1:9000").parse().unwrap();
        let metrics = MetricsConfig { enable: metrics.is_some(), address };
        let mut problems = Vec::new();
        network.check(Transports { udp: false, tcp: true }, &metrics, &mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    fn keys(change: impl FnOnce(&mut NetworkConfig)) -> Vec<String> {
        keys_with(None, change)
    }

    fn enable_tls(network: &mut NetworkConfig) {
        network.enable_tls = true;
        network.tls_certificate_path = "cert.pem".into();
        network.tls_private_key_path = "key.pem".into();
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(keys(|_| ()), [""; 0]);
        assert_eq!(NetworkConfig::default().addresses().count(), 2);
    }

    #[test]
    fn conflicting_addresses_are_a_problem() {
        let v4 = |texts: &[&str], metrics: Option<&str>| {
            let addresses = addresses(texts);
            keys_with(metrics, |network| network.address_ipv4 = addresses)
        };
        assert_eq!(v4(&["0.0.0.0:1", "0.0.0.0:2", "127.0.0.1:3", "127.0.0.2:3"], None), [""; 0]);
        assert_eq!(v4(&["0.0.0.0:0", "127.0.0.1:0", "127.0.0.1:0"], None), [""; 0], "the kernel chooses");
        assert_eq!(v4(&["0.0.0.0:1", "127.0.0.1:1"], None), ["network.address_ipv4"]);
        assert_eq!(v4(&["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"], None), ["network.address_ipv4"]);
        assert_eq!(v4(&["[::1]:80"], None), ["network.address_ipv4"]);
        assert_eq!(v4(&[], None), ["network.address_ipv4"]);
        assert_eq!(v4(&["127.0.0.1:9000"], None), [""; 0], "no metrics are served");
        assert_eq!(v4(&["127.0.0.2:9000"], Some("127.0.0.1:9000")), [""; 0]);
        assert_eq!(v4(&["127.0.0.1:9000"], Some("127.0.0.1:9000")), ["metrics.address"]);
        assert_eq!(v4(&["127.0.0.1:9000"], Some("[::1]:6969")), ["metrics.address"]);
    }

    #[test]
    fn clients_cannot_connect_to_groups_of_hosts() {
        let with = |v4: &str, v6: &str| {
            let (v4, v6) = (addresses(&[v4]), addresses(&[v6]));
            keys(|network| (network.address_ipv4, network.address_ipv6) = (v4, v6))
        };
        let both = ["network.address_ipv4", "network.address_ipv6"];
        assert_eq!(with("224.0.0.1:1", "[ff02::1]:1"), both);
        assert_eq!(with("255.255.255.255:1", "[::1]:1"), both[..1]);
        assert_eq!(keys_with(Some("239.1.2.3:9000"), |_| ()), ["metrics.address"]);
    }

    #[test]
    fn something_must_be_listened_on() {
        let off = |network: &mut NetworkConfig| (network.use_ipv4, network.use_ipv6) = (false, false);
        assert_eq!(keys(off), ["network.use_ipv4"]);
        let unix = |network: &mut NetworkConfig| {
            off(network);
            network.unix_socket_path = "/run/tracker.sock".into();
        };
        assert_eq!(keys(unix), [""; 0]);
        let mut network = NetworkConfig::default();
        unix(&mut network);
        let mut problems = Vec::new();
        let both = Transports { udp: true, tcp: true };
        network.check(both, &MetricsConfig::default(), &mut problems);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "network.use_ipv4", "a unix socket does not serve UDP");
    }

    #[test]
    fn interfaces_have_short_names() {
        let xdp = |name: &str, xdp_mode| {
            let network =
                NetworkConfig { xdp_interface: name.to_owned(), xdp_mode, ..NetworkConfig::default() };
            let mut problems = Vec::new();
            let transports = Transports { udp: true, tcp: false };
            network.check(transports, &MetricsConfig::default(), &mut problems);
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(xdp("eth0", XdpMode::Native), [""; 0]);
        assert_eq!(xdp("", XdpMode::Auto), [""; 0]);
        for name in ["sixteen-letters.", "..", "../mem", "eth 0", "eth0:1"] {
            assert_eq!(xdp(name, XdpMode::Auto), ["network.xdp_interface"], "{name}");
        }
        assert_eq!(xdp("", XdpMode::Generic), ["network.xdp_mode"]);
    }

    #[test]
    fn unix_sockets_have_short_paths_and_permissions() {
        assert_eq!(
            keys(|network| network.unix_socket_path = "/x".repeat(54).into()),
            ["network.unix_socket_path"]
        );
        for mode in ["", "66", "0660", "668", "rw-"] {
            assert_eq!(
                keys(|network| network.unix_socket_mode = mode.to_owned()),
                ["network.unix_socket_mode"],
                "{mode}"
            );
        }
    }

    #[test]
    fn a_dual_stack_socket_conflicts_with_an_ipv4_socket() {
        assert_eq!(keys(|network| network.only_ipv6 = false), ["network.only_ipv6"]);
        assert_eq!(keys(|network| (network.only_ipv6, network.use_ipv4) = (false, false)), [""; 0]);
        let elsewhere = |network: &mut NetworkConfig| {
            network.only_ipv6 = false;
            network.address_ipv4 = addresses(&["127.0.0.1:1"]);
        };
        assert_eq!(keys(elsewhere), [""; 0]);
    }

    #[test]
    fn tls_needs_both_files() {
        let files = ["network.tls_certificate_path", "network.tls_private_key_path"];
        assert_eq!(keys(|network| network.enable_tls = true), files);
        let named = |network: &mut NetworkConfig| {
            enable_tls(network);
            network.enable_tls = false;
        };
        assert_eq!(keys(named), files, "a certificate without TLS is a mistake");
        assert_eq!(keys(enable_tls), [""; 0]);
    }

    #[test]
    fn names_for_a_certificate_imply_tls() {
        let named = |network: &mut NetworkConfig| network.acme = vec!["a.org".to_owned()];
        assert_eq!(keys(named), [""; 0]);
        let with_files = |network: &mut NetworkConfig| {
            enable_tls(network);
            named(network);
        };
        assert_eq!(keys(with_files), ["network.tls_certificate_path", "network.tls_private_key_path"]);
        let ports = |change: &dyn Fn(&mut NetworkConfig)| {
            let mut network = NetworkConfig { use_ipv6: false, ..NetworkConfig::default() };
            named(&mut network);
            change(&mut network);
            network.tcp_listeners().iter().map(|(address, kind)| (address.port(), *kind)).collect::<Vec<_>>()
        };
        use ListenerKind::{Plain, Tls};
        assert_eq!(ports(&|_| ()), [(6969, Plain), (443, Tls)]);
        assert_eq!(ports(&|network| network.enable_tls = true), [(6969, Tls)]);
        let elsewhere = |network: &mut NetworkConfig| network.tls_address_ipv4 = addresses(&["0.0.0.0:8443"]);
        assert_eq!(ports(&elsewhere), [(6969, Plain), (8443, Tls)]);
        let taken = |network: &mut NetworkConfig| {
            named(network);
            network.address_ipv4 = addresses(&["0.0.0.0:443"]);
        };
        assert_eq!(keys(taken), ["network.tls_address_ipv4"]);
    }

    #[test]
    fn tls_addresses_need_tls_and_free_ports() {
        assert_eq!(keys(|network| network.accept_plain = true), ["network.accept_plain"]);
        let tls_on = |texts: &[&str]| {
            let addresses = addresses(texts);
            keys(|network| {
                enable_tls(network);
                network.tls_address_ipv4 = addresses;
            })
        };
        assert_eq!(tls_on(&["0.0.0.0:443", "0.0.0.0:8443"]), [""; 0]);
        assert_eq!(tls_on(&["0.0.0.0:6969"]), ["network.tls_address_ipv4"]);
        assert_eq!(tls_on(&["[::]:443"]), ["network.tls_address_ipv4"]);
        assert_eq!(tls_on(&["0.0.0.0:443", "127.0.0.1:443"]), ["network.tls_address_ipv4"]);
        let without = |network: &mut NetworkConfig| network.tls_address_ipv6 = addresses(&["[::]:443"]);
        assert_eq!(keys(without), ["network.tls_address_ipv6"]);
        let other_family = |network: &mut NetworkConfig| {
            enable_tls(network);
            without(network);
            network.use_ipv6 = false;
        };
        assert_eq!(keys(other_family), ["network.enable_tls"]);
        let metrics = |network: &mut NetworkConfig| {
            enable_tls(network);
            network.tls_address_ipv4 = addresses(&["0.0.0.0:443"]);
        };
        assert_eq!(keys_with(Some("127.0.0.1:443"), metrics), ["metrics.address"]);
    }

    #[test]
    fn listeners_know_their_encryption() {
        let listeners = |change: &dyn Fn(&mut NetworkConfig)| {
            let mut network = NetworkConfig { use_ipv6: false, ..NetworkConfig::default() };
            change(&mut network);
            let listeners = network.tcp_listeners().into_iter();
            listeners.map(|(address, tls)| (address.port(), tls)).collect::<Vec<_>>()
        };
        assert_eq!(listeners(&|_| ()), [(6969, ListenerKind::Plain)]);
        assert_eq!(listeners(&enable_tls), [(6969, ListenerKind::Tls)]);
        let both = |network: &mut NetworkConfig| {
            enable_tls(network);
            network.accept_plain = true;
        };
        assert_eq!(listeners(&both), [(6969, ListenerKind::TlsOrPlain)]);
        let apart = |network: &mut NetworkConfig| {
            enable_tls(network);
            network.tls_address_ipv4 = addresses(&["0.0.0.0:443"]);
        };
        assert_eq!(listeners(&apart), [(6969, ListenerKind::Plain), (443, ListenerKind::Tls)]);
        let apart_and_both = |network: &mut NetworkConfig| {
            apart(network);
            network.accept_plain = true;
        };
        assert_eq!(
            listeners(&apart_and_both),
            [(6969, ListenerKind::Plain), (443, ListenerKind::TlsOrPlain)]
        );
    }
}
