//! Setting up listeners: what can go wrong, in plain words and with a remedy; where they can be reached; the
//! size of receive buffers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquatic_common::config::{NetworkConfig, PrivilegesConfig};
use aquatic_common::{ConfigurationError, Family};
use libc::c_int;
use socket2::Socket;

use crate::sys;

/// Why an address could not be bound, and what to do about it.
#[derive(Debug)]
pub struct BindError {
    protocol: &'static str,
    address: SocketAddr,
    reason: BindReason,
}

/// What the kernel objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindReason {
    /// Another socket has the port.
    InUse,
    /// No interface has the address.
    NoSuchAddress,
    /// The kernel has no IPv6, or it is switched off.
    NoIpv6,
    /// The port needs a privilege, or a security module forbids it.
    Forbidden,
    /// The process has too many files open.
    TooManyFiles,
    /// Anything else, in the kernel's words.
    Other(String),
}

impl BindReason {
    fn of(address: SocketAddr, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse,
            Some(libc::EADDRNOTAVAIL) if address.is_ipv6() && !ipv6_is_on() => Self::NoIpv6,
            Some(libc::EADDRNOTAVAIL) => Self::NoSuchAddress,
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) if address.is_ipv6() => Self::NoIpv6,
            Some(libc::EACCES | libc::EPERM) => Self::Forbidden,
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// With `net.ipv6.conf.all.disable_ipv6 = 1` sockets can be made, but no address exists.
fn ipv6_is_on() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
        .is_ok_and(|text| text.trim_ascii() == "0")
}

impl BindError {
    /// Explains an error of `socket`, `setsockopt`, `bind` or `listen`. `protocol` is "UDP" or "TCP".
    #[must_use]
    pub fn new(protocol: &'static str, address: SocketAddr, error: &io::Error) -> Self {
        Self { protocol, address, reason: BindReason::of(address, error) }
    }

    /// Whether it is the machine that lacks the family of the address, so that the other family may still
    /// serve.
    #[must_use]
    pub fn family_unavailable(&self) -> bool {
        self.reason == BindReason::NoIpv6
    }

    /// Returns the error for the end of a start. What the system forbids is a
    /// [`ConfigurationError`]: another start does not help. A port may become free, and an interface get the
    /// address.
    #[must_use]
    pub fn classified(self) -> anyhow::Error {
        match self.reason {
            BindReason::Forbidden => ConfigurationError::new(self).into(),
            BindReason::InUse
            | BindReason::NoSuchAddress
            | BindReason::NoIpv6
            | BindReason::TooManyFiles
            | BindReason::Other(_) => self.into(),
        }
    }

    /// What the kernel objects to.
    #[must_use]
    pub fn reason(&self) -> &BindReason {
        &self.reason
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, reason } = self;
        let port = address.port();
        write!(f, "cannot listen on {protocol} {address}: ")?;
        match reason {
            BindReason::InUse => {
                let kind = if *protocol == "UDP" { 'u' } else { 't' };
                write!(
                    f,
                    "another program, or another instance of this one, has this port. \"ss -{kind}apn sport = \
                     :{port}\" shows which; stop it or choose another port"
                )
            }
            BindReason::NoSuchAddress => write!(
                f,
                "no network interface of this machine has the address {}. \"ip address\" lists those there are; \
                 {} listens on all of them",
                address.ip(),
                if address.is_ipv6() { "[::]" } else { "0.0.0.0" }
            ),
            BindReason::NoIpv6 => write!(
                f,
                "IPv6 is switched off on this machine. Set {} = false, or switch it on (sysctl \
                 net.ipv6.conf.all.disable_ipv6=0; in containers, enable IPv6 for the network)",
                NetworkConfig::use_ipv6
            ),
            BindReason::Forbidden if port < 1024 => write!(
                f,
                "ports below 1024 need a privilege. Start as root and set {} = true, give the program the capability \
                 (AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit), or choose a port from 1024 up",
                PrivilegesConfig::drop_privileges
            ),
            BindReason::Forbidden => f.write_str(
                "the system forbids it. Look for a rule of a security module (SELinux, AppArmor) or a sandbox \
                 about this port",
            ),
            BindReason::TooManyFiles => f.write_str(
                "too many files are open. Raise the limit (LimitNOFILE= in a systemd unit, ulimit -n) or use fewer \
                 workers or addresses",
            ),
            BindReason::Other(text) => write!(f, "{text}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Logs where a listener can be reached, and warns if nobody can: sockets on `[::]` may be made although IPv6
/// is switched off.
pub fn announce(name: &str, scheme: &str, address: SocketAddr) {
    log::info!("{}", announce_line(name, scheme, address));
    if address.is_ipv6() && address.ip().is_unspecified() && !ipv6_has_addresses() {
        // Several services share addresses.
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            log::warn!(
                "no network interface has an IPv6 address, so nobody reaches {address} for now. If IPv6 is to stay off, \
                 set {} = false (and leave {} = true); to switch it on: sysctl net.ipv6.conf.all.disable_ipv6=0 (in \
                 containers, enable IPv6 for the network)",
                NetworkConfig::use_ipv6,
                NetworkConfig::use_ipv4
            );
        });
    }
}

/// Whether any interface has an IPv6 address; the list in `/proc` has a line for each.
fn ipv6_has_addresses() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|list| !list.trim_ascii().is_empty())
}

/// Says where a listener can be reached. A socket bound to all addresses is shown with one that works on this
/// machine.
fn announce_line(name: &str, scheme: &str, address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return format!("{name} tracker listening, announce URL: {scheme}://{address}/announce");
    }
    let local: IpAddr = match Family::of(address.ip()) {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let shown = SocketAddr::new(local, address.port());
    format!(
        "{name} tracker listening on all {} addresses, announce URL: {scheme}://{shown}/announce (from other \
         machines, put this machine's name or address in place of {local})",
        Family::of(address.ip()).name()
    )
}

/// What was asked for when the last warning about receive buffers was logged: all sockets of a process ask
/// for the same, and one warning is enough.
static WARNED_ABOUT: AtomicUsize = AtomicUsize::new(0);

/// Asks the kernel for a receive buffer of this many bytes, past the limit for ordinary processes if that is
/// allowed, and logs a warning with the remedy when the kernel gives less.
///
/// # Errors
/// Those of `setsockopt` and `getsockopt`. A smaller buffer is no error.
pub fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let forced = c_int::try_from(bytes).is_ok_and(|bytes| sys::force_receive_buffer(socket, bytes).is_ok());
    if !forced {
        socket.set_recv_buffer_size(bytes)?;
    }
    // The kernel doubles what it is asked for, for its own bookkeeping, and shows the doubled value.
    let got = socket.recv_buffer_size()? / 2;
    if let Some(warning) = judge_receive_buffer(bytes, got)
        && WARNED_ABOUT.swap(bytes, Ordering::Relaxed) != bytes
    {
        log::warn!("{warning}");
    }
    Ok(())
}

fn judge_receive_buffer(asked: usize, got: usize) -> Option<String> {
    (got < asked).then(|| {
        format!(
            "the kernel limits receive buffers: {asked} bytes asked for, {got} bytes given. Packets are dropped when \
             it is full; to allow the size: sysctl -w net.core.rmem_max={asked}"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn explain(address: &str, errno: i32) -> String {
        BindError::new("UDP", address.parse().unwrap(), &io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn each_error_has_its_remedy() {
        let in_use = explain("0.0.0.0:6969", libc::EADDRINUSE);
        assert!(in_use.contains("UDP 0.0.0.0:6969") && in_use.contains("ss -uapn sport = :6969"), "{in_use}");
        assert!(explain("192.0.2.1:6969", libc::EADDRNOTAVAIL).contains("ip address"));
        assert!(explain("[::]:6969", libc::EAFNOSUPPORT).contains("use_ipv6 = false"));
        assert!(explain("0.0.0.0:80", libc::EACCES).contains("below 1024"));
        assert!(!explain("0.0.0.0:6969", libc::EACCES).contains("below 1024"));
        assert!(explain("0.0.0.0:6969", libc::EMFILE).contains("LimitNOFILE"));
        assert!(explain("0.0.0.0:6969", libc::EIO).contains("nput/output"));
    }

    #[test]
    fn the_kernel_s_own_errors_are_recognized() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        let error = UdpSocket::bind(address).unwrap_err();
        assert_eq!(BindError::new("UDP", address, &error).reason(), &BindReason::InUse);

        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let error = TcpListener::bind(elsewhere).unwrap_err();
        let error = BindError::new("TCP", elsewhere, &error);
        assert_eq!(error.reason(), &BindReason::NoSuchAddress);
    }

    #[test]
    fn a_smaller_buffer_is_told_with_both_sizes() {
        let warning = judge_receive_buffer(8_000_000, 212_992).unwrap();
        assert!(
            warning.contains("8000000") && warning.contains("212992") && warning.contains("rmem_max=8000000")
        );
        assert_eq!(judge_receive_buffer(100, 100), None);
    }

    #[test]
    fn a_buffer_is_set() {
        let socket: Socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        set_receive_buffer(&socket, 100_000).unwrap();
        assert!(socket.recv_buffer_size().unwrap() >= 100_000);
    }
}
