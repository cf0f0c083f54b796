//! Parsing of what the kernel writes about itself. Pure; what is not understood is left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::machine::Span;

/// Soft and hard value of a limit, from the text of /proc/PID/limits.
pub(crate) fn limit(limits: &str, name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = rest.split_whitespace().map(|word| word.parse::<u64>().ok());
    Some((values.next()?, values.next()?))
}

/// Value of a field of /proc/PID/status, /proc/meminfo and others with lines of `NAME: VALUE`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Bytes of a field in kB.
pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// Number of a column in tables such as /proc/net/snmp: a line of names and one of values, both with the
/// same first word.
pub(crate) fn column(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table)?.strip_prefix(':'));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|column| column == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Value behind a name in a line of /proc/net/sockstat, such as `tw` in that of `TCP`.
pub(crate) fn socket_statistic(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let words: Vec<&str> = field(text, protocol)?.split_whitespace().collect();
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1)?.parse().ok()
}

/// Numbers and ranges such as "0-3,8".
pub(crate) fn spans(text: &str) -> Vec<Span> {
    let span = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(Span { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
    };
    text.trim().split(',').filter_map(span).collect()
}

/// Sum of a column of hexadecimal numbers, a line per processor. `skip` lines of heading are left out.
pub(crate) fn hex_sum(text: &str, column: usize, skip: usize) -> u64 {
    let values = text.lines().skip(skip).filter_map(|line| line.split_whitespace().nth(column));
    values.filter_map(|value| u64::from_str_radix(value, 16).ok()).fold(0, u64::saturating_add)
}

/// Column of /proc/net/stat/nf_conntrack by its name in the heading.
pub(crate) fn conntrack_statistic(text: &str, name: &str) -> u64 {
    let heading = text.lines().next().unwrap_or_default();
    match heading.split_whitespace().position(|column| column == name) {
        Some(at) => hex_sum(text, at, 1),
        None => 0,
    }
}

/// Addresses of /proc/net/if_inet6 that other hosts could know: neither loopback nor link-local.
pub(crate) fn ipv6_addresses(if_inet6: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    let addresses = if_inet6.lines().filter_map(address).map(Ipv6Addr::from_bits);
    addresses.filter(|ip| !ip.is_loopback() && !ip.is_unicast_link_local()).collect()
}

/// Whether /proc/net/ipv6_route has a default route that is not one of unreachability.
pub(crate) fn has_ipv6_default(routes: &str) -> bool {
    /// Flag of routes that reject (route(8)).
    const REJECT: u32 = 0x0200;
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [target, length, .., flags, device] = fields.as_slice() else { return false };
        let is_default = *length == "00" && target.bytes().all(|digit| digit == b'0');
        let rejects = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT != 0);
        is_default && !rejects && *device != "lo"
    })
}

/// Whether /proc/net/route has a default route.
pub(crate) fn has_ipv4_default(routes: &str) -> bool {
    routes.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, "00000000", _, _, _, _, _, "00000000", ..])
    })
}

/// Addresses of this machine in /proc/net/fib_trie, without loopback.
pub(crate) fn ipv4_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(ip) = last.filter(|ip| !ip.is_loopback() && !addresses.contains(ip))
        {
            addresses.push(ip);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n\
                    Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(limit(text, "Max open files"), Some((Some(1024), Some(524_288))));
        assert_eq!(limit(text, "Max locked memory"), Some((None, None)));
        assert_eq!(limit(text, "Max nothing"), None);
    }

    #[test]
    fn tables_are_read() {
        let snmp = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 5 4 3 2 1\n";
        assert_eq!(column(snmp, "Udp", "RcvbufErrors"), Some(1));
        assert_eq!(column(snmp, "Tcp", "RcvbufErrors"), None);
        let sockstat = "sockets: used 9\nTCP: inuse 2 orphan 0 tw 77 alloc 3 mem 0\n";
        assert_eq!(socket_statistic(sockstat, "TCP", "tw"), Some(77));
        assert_eq!(hex_sum("00000010 00000002\n00000010 0000000a\n", 1, 0), 12);
        assert_eq!(conntrack_statistic("entries drop\n00000001 00000003\n00000001 00000004\n", "drop"), 7);
        assert_eq!(
            spans("6969,8000-8002\n"),
            [Span { first: 6969, last: 6969 }, Span { first: 8000, last: 8002 }]
        );
        assert_eq!(spans("\n"), []);
    }

    #[test]
    fn routes_and_addresses_are_read() {
        let if_inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
                        20010db8000000000000000000000001 02 40 00 80     eth0\n\
                        fe80000000000000000000fffe000001 02 40 20 80     eth0\n";
        assert_eq!(ipv6_addresses(if_inet6), ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
        let zero = "0".repeat(32);
        let route = |flags: &str, device: &str| {
            format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags}     {device}\n")
        };
        assert!(has_ipv6_default(&route("00000003", "eth0")));
        assert!(!has_ipv6_default(&route("00200200", "lo")));
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let v4 = format!("{head}eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
        assert!(has_ipv4_default(&v4) && !has_ipv4_default(head));
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.2\n        \
                    /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(ipv4_addresses(trie), [Ipv4Addr::new(192, 0, 2, 2)]);
    }
}
