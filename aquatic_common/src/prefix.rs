//! Networks: the leading bits of addresses, one by one ([`Prefix`]) and as a set that is searched
//! ([`PrefixSet`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::addr::Family;
use crate::config::NetworkConfig;
use crate::list::ListEntry;

/// Number of leading bits that all IPv4-mapped IPv6 addresses have in common.
const MAPPED_LENGTH: u8 = 96;

/// A network of IPv4 or IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    is_v6: bool,
    /// The leading bits, followed by zeros; those of IPv4 are the lowest 32.
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The network of an address, in canonical form, with this number of leading bits; at most all.
    #[must_use]
    pub fn of(ip: IpAddr, length: u8) -> Self {
        let (is_v6, bits, width) = match ip {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (true, v6.to_bits(), 128),
        };
        let length = length.min(width);
        let host = width - length;
        let bits = bits.checked_shr(u32::from(host)).unwrap_or(0).checked_shl(u32::from(host)).unwrap_or(0);
        Self { is_v6, bits, length }
    }

    /// Family of the addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }

    /// Number of leading bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The network with at most this number of leading bits that contains this one.
    #[must_use]
    pub fn shortened(&self, length: u8) -> Self {
        let (first, _) = self.range();
        Self::of(self.address(first), length.min(self.length))
    }

    /// The network around this one that logs may name: a provider's (/24 or /48) rather than a household's.
    #[must_use]
    pub fn shown(&self) -> Self {
        self.shortened(if self.is_v6 { 48 } else { 24 })
    }

    /// Whether the other network is this one or inside it.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6 && other.length >= self.length && other.shortened(self.length) == *self
    }

    /// First and last address as numbers.
    #[must_use]
    pub fn range(&self) -> (u128, u128) {
        let host = if self.is_v6 { 128 } else { 32 } - u32::from(self.length);
        let mask = 1_u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
        (self.bits, self.bits | mask)
    }

    /// First address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.address(self.bits)
    }

    fn address(&self, bits: u128) -> IpAddr {
        if self.is_v6 {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        }
    }

    /// Whether an address, in canonical form, belongs to the network.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        *self == Self::of(ip, self.length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(self.bits), self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// Reads a network ("192.0.2.0/24", "2001:db8::/32") or an address. One of IPv4-mapped IPv6 addresses is
    /// that of the IPv4 addresses, as which clients are known.
    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let bad = || BadPrefix(text.chars().take(60).collect());
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let length: u8 = match length {
            None => width,
            Some(length) if length.len() <= 3 && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().filter(|&length| length <= width).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        let (ip, length) = canonical_network(ip, length);
        Ok(Self::of(ip, length))
    }
}

/// The network of IPv4 that one in IPv6 form (::ffff:192.0.2.0/120) stands for; any other as it is. Addresses
/// are compared in canonical form, so that it would contain none.
#[must_use]
pub fn canonical_network(ip: IpAddr, length: u8) -> (IpAddr, u8) {
    let mapped = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().zip(length.checked_sub(MAPPED_LENGTH)),
        IpAddr::V4(_) => None,
    };
    mapped.map_or((ip, length), |(v4, length)| (v4.into(), length))
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPrefix(String);

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is neither an address nor a network; write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for BadPrefix {}

/// Why a network cannot be blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBlock {
    /// The text is no network.
    NoNetwork(BadPrefix),
    /// All clients of a family would be blocked.
    Everybody(Prefix),
}

impl fmt::Display for BadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetwork(error) => error.fmt(f),
            Self::Everybody(prefix) => write!(
                f,
                "{prefix} is everybody; to stop serving a family, set {} or {} to false",
                NetworkConfig::use_ipv4,
                NetworkConfig::use_ipv6
            ),
        }
    }
}

impl std::error::Error for BadBlock {}

impl Prefix {
    /// Reads a network that can be blocked: any but that of all addresses.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn parse_blocked(text: &str) -> Result<Self, BadBlock> {
        let prefix: Self = text.parse().map_err(BadBlock::NoNetwork)?;
        if prefix.length == 0 { Err(BadBlock::Everybody(prefix)) } else { Ok(prefix) }
    }
}

impl ListEntry for Prefix {
    type Error = BadBlock;

    const NAMES: (&'static str, &'static str) = ("network to block", "networks to block");
    /// More than the lines of the longest block list.
    const MAX_LEN: usize = 4_000_000;
    const MIN_LINE_BYTES: u64 = 16;

    fn from_word(word: &[u8], len: usize) -> Result<Self, BadBlock> {
        let text = String::from_utf8_lossy(word);
        if word.len() == len {
            Self::parse_blocked(&text)
        } else {
            Err(BadBlock::NoNetwork(BadPrefix(text.into_owned())))
        }
    }
}

/// Networks as sorted ranges of addresses: 8 bytes per IPv4 network, 32 per IPv6 network. A lookup is a
/// binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    /// Reads networks and addresses.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, BadPrefix> {
        texts.iter().map(|text| text.as_ref().trim().parse()).collect()
    }

    /// The set with further networks.
    #[must_use]
    pub fn with(&self, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut more: Self = prefixes.into_iter().collect();
        more.v4.extend_from_slice(&self.v4);
        more.v6.extend_from_slice(&self.v6);
        Self::merged(more.v4, more.v6)
    }

    fn merged(v4: Vec<(u32, u32)>, v6: Vec<(u128, u128)>) -> Self {
        Self {
            v4: merged(v4, |last, first| last.checked_add(1).is_none_or(|next| first <= next)),
            v6: merged(v6, |last, first| last.checked_add(1).is_none_or(|next| first <= next)),
        }
    }

    /// Whether an address, in canonical form, belongs to one of the networks.
    #[inline]
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }

    /// The least number of networks that have the same addresses.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let v4 = self.v4.iter().map(|&(first, last)| (false, u128::from(first), u128::from(last)));
        let v6 = self.v6.iter().map(|&(first, last)| (true, first, last));
        v4.chain(v6).flat_map(|(is_v6, first, last)| {
            let mut rest = Some(first);
            std::iter::from_fn(move || {
                let bits = rest?;
                let prefix = largest_at(is_v6, bits, last);
                rest = prefix.range().1.checked_add(1).filter(|&next| next <= last);
                Some(prefix)
            })
        })
    }

    /// Whether there are no networks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of ranges that the networks form: neighbours and those inside others are merged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            let (first, last) = prefix.range();
            if prefix.is_v6 {
                v6.push((first, last));
            } else {
                v4.push((first as u32, last as u32));
            }
        }
        Self::merged(v4, v6)
    }
}

/// Sorts ranges and joins those for which `touches` holds, given the end of one and the start of a later one.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, touches: impl Fn(T, T) -> bool) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(range) if touches(range.1, first) => range.1 = range.1.max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined.shrink_to_fit();
    joined
}

/// The largest network that begins at an address and does not go beyond another one.
fn largest_at(is_v6: bool, bits: u128, last: u128) -> Prefix {
    let width: u8 = if is_v6 { 128 } else { 32 };
    // 2^128 addresses are one too many for their number.
    let fits = |host: u32| bits | 1_u128.checked_shl(host).map_or(u128::MAX, |size| size - 1) <= last;
    let largest = bits.trailing_zeros().min(u32::from(width));
    let host = (0..=largest).rev().find(|&host| fits(host)).unwrap_or(0);
    Prefix { is_v6, bits, length: width - host as u8 }
}

fn holds<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| address <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.77", "192.0.2.77/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:1:2:3::4/48", "2001:db8:1::/48"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "192.0.2.0/33",
            "192.0.2/24",
            "::/129",
            "192.0.2.1/+4",
            "192.0.2.1/",
            "192.0.2.0/0024",
            "host",
            "/8",
        ] {
            let error = bad.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{bad}\" is neither")), "{error}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        let v4: Prefix = "192.0.2.0/24".parse().unwrap();
        assert!(v4.contains(ip("192.0.2.0")) && v4.contains(ip("192.0.2.255")));
        assert!(!v4.contains(ip("192.0.1.255")) && !v4.contains(ip("192.0.3.0")) && !v4.contains(ip("::")));
        let wider = v4.shortened(20);
        assert_eq!((wider.to_string().as_str(), v4.shortened(32)), ("192.0.0.0/20", v4));
        assert!(wider.includes(&v4) && wider.includes(&wider) && !v4.includes(&wider));
        let all: Prefix = "::/0".parse().unwrap();
        assert!(!all.includes(&v4));
        assert!(all.contains(ip("ffff::")) && !all.contains(ip("0.0.0.1")));
    }

    #[test]
    fn a_set_is_made_of_few_networks() {
        let prefixes = |texts: &[&str]| {
            let set = PrefixSet::parse(texts).unwrap();
            set.prefixes().map(|prefix| prefix.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            prefixes(&["10.0.0.0/9", "10.128.0.0/9", "11.0.0.0/8", "12.0.0.0"]),
            "10.0.0.0/7 12.0.0.0/32"
        );
        assert_eq!(prefixes(&["192.0.2.1", "192.0.2.2/31"]), "192.0.2.1/32 192.0.2.2/31");
        assert_eq!(prefixes(&["0.0.0.0/0", "::/0"]), "0.0.0.0/0 ::/0");
        assert_eq!(
            prefixes(&["255.255.255.255", "ffff::/16", "::1"]),
            "255.255.255.255/32 ::1/128 ffff::/16"
        );
        assert_eq!(prefixes(&[]), "");
        for alone in ["0.0.0.0/32", "0.0.0.0/1", "::/128", "::/8", "::/1", "8000::/1"] {
            assert_eq!(prefixes(&[alone]), alone);
        }
        assert_eq!(prefixes(&["::", "::1", "::2"]), "::/127 ::2/128");
    }

    #[test]
    fn a_set_contains_what_its_networks_contain() {
        let texts = ["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "255.255.255.255", "2001:db8::/32", "::1"];
        let set = PrefixSet::parse(&texts).unwrap();
        assert_eq!(set.len(), 4, "neighbours and inner networks are merged");
        let prefixes: Vec<Prefix> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for text in [
            "9.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "11.255.255.255",
            "12.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "::2",
            "2001:db7:ffff::",
            "2001:db8::",
            "2001:db9::",
        ] {
            let expected = prefixes.iter().any(|prefix| prefix.contains(ip(text)));
            assert_eq!(set.contains(ip(text)), expected, "{text}");
        }
        assert!(PrefixSet::default().is_empty() && !PrefixSet::default().contains(ip("::")));
        let everything = PrefixSet::parse(&["0.0.0.0/0", "::/0"]).unwrap();
        assert!(everything.contains(ip("255.255.255.255")) && everything.contains(ip("ffff::")));
    }

    #[test]
    fn a_set_with_further_networks_is_merged() {
        let set = PrefixSet::parse(&["10.0.0.0/9", "2001:db8::/32"]).unwrap();
        let wider = set.with(["10.128.0.0/9", "::1"].map(|text| text.parse().unwrap()));
        assert_eq!(wider, PrefixSet::parse(&["10.0.0.0/8", "2001:db8::/32", "::1"]).unwrap());
        assert_eq!(set.with([]), set);
    }
}
