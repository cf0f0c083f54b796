//! Who listens where, from the tables of sockets in /proc/net.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::asked::{Listener, Transport};
use crate::machine::TRACKER;

/// State of a TCP socket that listens, in hexadecimal.
const LISTENS: &str = "0A";

/// Processes that are searched for the holder of a port, at most.
const MAX_PROCESSES: usize = 65_536;

/// A bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) listener: Listener,
    inode: u64,
}

/// A process that listens on an address that the tracker asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What the tracker asks for.
    pub asked: Listener,
    /// What is listened on.
    pub held: Listener,
    /// Whether the two cannot both be bound. If false, it depends on whether a socket on `[::]` accepts IPv4,
    /// which the tables do not tell.
    pub is_certain: bool,
    /// Number and name of the process, if it could be found out.
    pub process: Option<(u32, String)>,
}

/// Sockets of the tables `tcp`, `tcp6`, `udp` and `udp6` in a directory.
pub(crate) fn read(directory: &Path) -> Vec<Socket> {
    let tables = [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ];
    let texts = tables
        .into_iter()
        .filter_map(|(name, transport)| Some((transport, fs::read_to_string(directory.join(name)).ok()?)));
    texts.flat_map(|(transport, text)| parse(&text, transport)).collect()
}

fn parse(table: &str, transport: Transport) -> Vec<Socket> {
    table.lines().skip(1).filter_map(|line| socket(line, transport)).collect()
}

fn socket(line: &str, transport: Transport) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    if transport == Transport::Tcp && *state != LISTENS {
        return None;
    }
    let address = address(local)?;
    Some(Socket { listener: Listener { transport, address }, inode: inode.parse().ok()? })
}

/// Address in words of 32 bits, each in the byte order of the machine, and port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Whether two sockets cannot both be bound.
fn clash(one: Listener, other: Listener) -> bool {
    let (a, b) = (one.address, other.address);
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    one.transport == other.transport
        && a.is_ipv4() == b.is_ipv4()
        && overlap
        && a.port() == b.port()
        && a.port() != 0
}

/// Whether a socket on `[::]` takes an IPv4 address that is asked for, unless it is limited to IPv6.
fn may_clash(asked: Listener, held: Listener) -> bool {
    let (a, b) = (asked.address, held.address);
    let is_dual = a.is_ipv4() && b.is_ipv6() && b.ip().is_unspecified();
    is_dual && asked.transport == held.transport && a.port() == b.port() && a.port() != 0
}

/// The sockets that keep the tracker from listening, one per address that is asked for, with their
/// processes.
pub(crate) fn holders(sockets: &[Socket], asked: &[Listener], proc: &Path) -> Vec<Holder> {
    let mut found: Vec<(Listener, Socket, bool)> = Vec::new();
    for (clashes, is_certain) in [(clash as fn(Listener, Listener) -> bool, true), (may_clash, false)] {
        for &wanted in asked {
            // A socket that is told with certainty need not be told again.
            let is_told = |socket: &Socket| found.iter().any(|(of, told, _)| *of == wanted || told == socket);
            let mut taken = sockets.iter().filter(|socket| clashes(wanted, socket.listener));
            let taken = taken.find(|socket| is_certain || !is_told(socket));
            found.extend(taken.map(|socket| (wanted, *socket, is_certain)));
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let inodes: Vec<u64> = found.iter().map(|(_, socket, _)| socket.inode).collect();
    let processes = processes(&inodes, proc);
    // A service manager that passes sockets, or keeps them, has them open as well.
    let process = |inode| {
        let of_socket = processes.iter().filter(|(of, ..)| *of == inode);
        of_socket.min_by_key(|(_, pid, name)| (name != TRACKER, *pid))
    };
    let holder = |(asked, socket, is_certain): (Listener, Socket, bool)| Holder {
        asked,
        held: socket.listener,
        is_certain,
        process: process(socket.inode).map(|(_, pid, name)| (*pid, name.clone())),
    };
    found.into_iter().map(holder).collect()
}

/// The processes that have sockets with these inodes open, as far as they may be looked at.
fn processes(inodes: &[u64], proc: &Path) -> Vec<(u64, u32, String)> {
    let mut found = Vec::new();
    let own = fs::read_link(proc.join("self/exe")).ok();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MAX_PROCESSES) {
        let directory = proc.join(pid.to_string());
        for descriptor in fs::read_dir(directory.join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(descriptor.path()).ok();
            let inode = target
                .as_deref()
                .and_then(Path::to_str)
                .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                // This program may have been given another name.
                let is_own = own.is_some() && fs::read_link(directory.join("exe")).ok() == own;
                let name = match is_own {
                    true => TRACKER.to_owned(),
                    false => fs::read_to_string(directory.join("comm")).unwrap_or_default(),
                };
                found.push((inode, pid, name.trim().to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(transport: Transport, address: &str) -> Listener {
        Listener { transport, address: address.parse().unwrap() }
    }

    #[test]
    fn tables_are_read() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                   0: 0100007F:1B39 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   \
                   1: 0100007F:1B3A 0100007F:0001 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n";
        let sockets = parse(tcp, Transport::Tcp);
        assert_eq!(sockets, [Socket { listener: listener(Transport::Tcp, "127.0.0.1:6969"), inode: 4711 }]);
        let udp6 = "heading\n 0: 000000000000000000000000010000FF:1B39 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000     0        0 5 2\n";
        assert_eq!(parse(udp6, Transport::Udp)[0].listener.address.port(), 6969);
        assert_eq!(parse("heading\nnonsense\n 0: 01:zz\n", Transport::Udp), []);
    }

    #[test]
    fn sockets_clash_as_the_kernel_sees_it() {
        let any = listener(Transport::Tcp, "0.0.0.0:6969");
        assert!(clash(any, listener(Transport::Tcp, "127.0.0.1:6969")));
        assert!(!clash(any, listener(Transport::Udp, "127.0.0.1:6969")));
        assert!(!clash(any, listener(Transport::Tcp, "[::]:6969")));
        assert!(!clash(any, listener(Transport::Tcp, "127.0.0.1:6970")));
    }
}
