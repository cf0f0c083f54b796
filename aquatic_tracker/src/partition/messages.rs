//! Requests for parts that other nodes hold, and their responses, as bytes. Numbers are in network order.
//!
//! ```text
//! item      1  kind
//! announce  1, request, 20 info hash, 1 flags (1 IPv6, 2 seeder, 4 peers of both families, event * 8),
//!              4/16 address, 2 port, 2 numwant, 2 IPv4 peers and 2 IPv6 peers that there is room for
//! announced 2, request, 4 complete, 4 incomplete, 4 downloaded, 2 bytes of IPv4 peers, 2 of IPv6 peers, peers
//! scrape    3, request, 2 position, 1 families (0 IPv4, 1 IPv6, 2 both), 20 info hash
//! scraped   4, request, 2 position, 4 complete, 4 incomplete, 4 downloaded
//! not held  5, request
//! late      6, 1 age in seconds, 20 info hash, flags, address and port as above
//!
//! request   2 core that asks, 8 number that it knows the request by
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{AnnounceEvent, Family, InfoHash, Steering};
use aquatic_swarm::{Announce, Announced, Families, FamilySet, MAX_NUMWANT, SwarmCounts};

use crate::gather::RequestId;
use crate::owners::OwnerResponse;
use crate::snapshot::format::{Malformed, take};

/// A request as the node knows it that asks: its core, and the number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Index of the core that asks.
    pub core: u16,
    /// Its number there.
    pub id: RequestId,
}

/// An item of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// To be applied by the receiver.
    Announce {
        /// What is responded to.
        request: Request,
        /// The announce.
        announce: Announce,
        /// Numbers of IPv4 and IPv6 peers that the reply has room for.
        room: (u16, u16),
    },
    /// An announce has been applied.
    Announced {
        /// What is responded to.
        request: Request,
        /// Counts.
        counts: SwarmCounts,
        /// Compact IPv4 peers.
        v4: &'a [u8],
        /// Compact IPv6 peers.
        v6: &'a [u8],
    },
    /// To be counted by the receiver.
    Scrape {
        /// What is responded to.
        request: Request,
        /// Position of the torrent in the scrape.
        position: u16,
        /// Families whose peers are counted.
        families: FamilySet,
        /// Info hash of the torrent.
        info_hash: InfoHash,
    },
    /// A torrent has been counted.
    Scraped {
        /// What is responded to.
        request: Request,
        /// Position of the torrent in the scrape.
        position: u16,
        /// Its counts.
        counts: SwarmCounts,
    },
    /// The part that was asked for is not held here.
    NotHeld {
        /// What is responded to.
        request: Request,
    },
    /// An announce that has been answered already, to be applied all the same.
    Late {
        /// Seconds since it was received.
        age: u8,
        /// The announce, which wants no peers.
        announce: Announce,
    },
}

const V6: u8 = 1;
const SEEDER: u8 = 2;
const BOTH: u8 = 4;
const EVENT: u32 = 3;

/// In the order of their numbers.
const EVENTS: [AnnounceEvent; 5] = [
    AnnounceEvent::None,
    AnnounceEvent::Started,
    AnnounceEvent::Completed,
    AnnounceEvent::Stopped,
    AnnounceEvent::Paused,
];

fn write_request(kind: u8, request: Request, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&request.core.to_be_bytes());
    out.extend_from_slice(&request.id.to_bytes());
}

fn take_request(bytes: &mut &[u8]) -> Result<Request, Malformed> {
    Ok(Request { core: u16::from_be_bytes(take(bytes)?), id: RequestId::from_bytes(take(bytes)?) })
}

fn write_peer(announce: &Announce, out: &mut Vec<u8>) {
    let family = if announce.address.is_ipv6() { V6 } else { 0 };
    let event = EVENTS.iter().position(|event| *event == announce.event).unwrap_or_default() as u8;
    let both = if announce.families == Families::Both { BOTH } else { 0 };
    out.extend_from_slice(&announce.info_hash.0);
    out.push(family | if announce.seeder { SEEDER } else { 0 } | both | event << EVENT);
    match announce.address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&announce.address.port().to_be_bytes());
}

/// Reads an announce that wants no peers.
fn take_peer(bytes: &mut &[u8]) -> Result<Announce, Malformed> {
    let info_hash = InfoHash(take(bytes)?);
    let [flags] = take(bytes)?;
    let ip = if flags & V6 == 0 {
        Ipv4Addr::from(take::<4>(bytes)?).into()
    } else {
        Ipv6Addr::from(take::<16>(bytes)?).into()
    };
    let address = SocketAddr::new(ip, u16::from_be_bytes(take(bytes)?));
    let event = EVENTS.get(usize::from(flags >> EVENT)).copied().ok_or(Malformed::Content)?;
    let families = if flags & BOTH == 0 { Families::Own } else { Families::Both };
    Ok(Announce { info_hash, address, seeder: flags & SEEDER != 0, event, numwant: 0, families })
}

fn write_counts(counts: SwarmCounts, out: &mut Vec<u8>) {
    for count in [counts.complete, counts.incomplete, counts.downloaded] {
        out.extend_from_slice(&count.to_be_bytes());
    }
}

fn take_counts(bytes: &mut &[u8]) -> Result<SwarmCounts, Malformed> {
    Ok(SwarmCounts {
        complete: u32::from_be_bytes(take(bytes)?),
        incomplete: u32::from_be_bytes(take(bytes)?),
        downloaded: u32::from_be_bytes(take(bytes)?),
    })
}

fn u16_of(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

impl<'a> Item<'a> {
    /// Returns the response to an announce.
    #[must_use]
    pub fn announced(request: Request, response: OwnerResponse<'a>) -> Self {
        let Announced { complete, incomplete, downloaded, .. } = response.announced;
        let counts = SwarmCounts { complete, incomplete, downloaded };
        Self::Announced { request, counts, v4: response.v4, v6: response.v6 }
    }

    /// Appends the item.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Announce { request, ref announce, room } => {
                write_request(1, request, out);
                write_peer(announce, out);
                for number in [announce.numwant.min(MAX_NUMWANT), room.0.into(), room.1.into()] {
                    out.extend_from_slice(&u16_of(number));
                }
            }
            Self::Announced { request, counts, v4, v6 } => {
                write_request(2, request, out);
                write_counts(counts, out);
                out.extend_from_slice(&u16_of(v4.len()));
                out.extend_from_slice(&u16_of(v6.len()));
                out.extend_from_slice(v4);
                out.extend_from_slice(v6);
            }
            Self::Scrape { request, position, families, info_hash } => {
                write_request(3, request, out);
                out.extend_from_slice(&position.to_be_bytes());
                out.push(match families {
                    FamilySet::One(Family::V4) => 0,
                    FamilySet::One(Family::V6) => 1,
                    FamilySet::Both => 2,
                });
                out.extend_from_slice(&info_hash.0);
            }
            Self::Scraped { request, position, counts } => {
                write_request(4, request, out);
                out.extend_from_slice(&position.to_be_bytes());
                write_counts(counts, out);
            }
            Self::NotHeld { request } => write_request(5, request, out),
            Self::Late { age, ref announce } => {
                out.extend_from_slice(&[6, age]);
                write_peer(announce, out);
            }
        }
    }

    /// Reads the first item and removes it from there.
    ///
    /// # Errors
    /// The bytes end early, or are no item.
    pub fn take(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        let [kind] = take(bytes)?;
        Ok(match kind {
            1 => {
                let (request, announce) = (take_request(bytes)?, take_peer(bytes)?);
                let numwant = usize::from(u16::from_be_bytes(take(bytes)?)).min(MAX_NUMWANT);
                let room = (u16::from_be_bytes(take(bytes)?), u16::from_be_bytes(take(bytes)?));
                Self::Announce { request, announce: Announce { numwant, ..announce }, room }
            }
            2 => {
                let (request, counts) = (take_request(bytes)?, take_counts(bytes)?);
                let lengths = (u16::from_be_bytes(take(bytes)?), u16::from_be_bytes(take(bytes)?));
                let (v4, rest) = bytes.split_at_checked(lengths.0.into()).ok_or(Malformed::Content)?;
                let (v6, rest) = rest.split_at_checked(lengths.1.into()).ok_or(Malformed::Content)?;
                if v4.len() % 6 != 0 || v6.len() % 18 != 0 {
                    return Err(Malformed::Content);
                }
                *bytes = rest;
                Self::Announced { request, counts, v4, v6 }
            }
            3 => {
                let (request, position) = (take_request(bytes)?, u16::from_be_bytes(take(bytes)?));
                let families = match take(bytes)? {
                    [0] => FamilySet::One(Family::V4),
                    [1] => FamilySet::One(Family::V6),
                    [2] => FamilySet::Both,
                    _ => return Err(Malformed::Content),
                };
                Self::Scrape { request, position, families, info_hash: InfoHash(take(bytes)?) }
            }
            4 => Self::Scraped {
                request: take_request(bytes)?,
                position: u16::from_be_bytes(take(bytes)?),
                counts: take_counts(bytes)?,
            },
            5 => Self::NotHeld { request: take_request(bytes)? },
            6 => {
                let [age] = take(bytes)?;
                Self::Late { age, announce: take_peer(bytes)? }
            }
            _ => return Err(Malformed::Content),
        })
    }

    /// Index of the core of this node that the item is for.
    #[must_use]
    pub fn core(&self, steering: &Steering) -> usize {
        match self {
            Self::Announce { announce, .. } | Self::Late { announce, .. } => {
                steering.owner(&announce.info_hash)
            }
            Self::Scrape { info_hash, .. } => steering.owner(info_hash),
            Self::Announced { request, .. } | Self::Scraped { request, .. } | Self::NotHeld { request } => {
                request.core.into()
            }
        }
    }
}

/// Divides a message among the cores of this node: calls `give` with the index of a core and items for it.
/// Returns how many items are lost because they cannot be read; what follows those is, too.
pub fn split(body: &[u8], steering: &Steering, give: &mut dyn FnMut(usize, &[u8])) -> usize {
    let mut rest = body;
    while !rest.is_empty() {
        let begin = rest;
        let Ok(item) = Item::take(&mut rest) else { return 1 };
        if let Some(bytes) = begin.get(..begin.len() - rest.len()) {
            give(item.core(steering), bytes);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item<'static>> {
        let request = Request { core: 3, id: RequestId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]) };
        let counts = SwarmCounts { complete: 1, incomplete: 1 << 30, downloaded: 77 };
        let mut items = vec![
            Item::Announced { request, counts, v4: &[7; 12], v6: &[8; 18] },
            Item::Announced { request, counts, v4: &[], v6: &[] },
            Item::Scraped { request, position: 70, counts },
            Item::NotHeld { request },
        ];
        for families in [FamilySet::Both, FamilySet::One(Family::V4), FamilySet::One(Family::V6)] {
            items.push(Item::Scrape { request, position: 9, families, info_hash: InfoHash([6; 20]) });
        }
        for event in EVENTS {
            for address in ["192.0.2.1:6881", "[2001:db8::1]:1"] {
                let (info_hash, address) = (InfoHash([4; 20]), address.parse().unwrap());
                let families = if event == AnnounceEvent::Paused { Families::Both } else { Families::Own };
                let seeder = event == AnnounceEvent::Completed;
                let announce = Announce { info_hash, address, seeder, event, numwant: 0, families };
                items.push(Item::Late { age: 200, announce });
                let announce = Announce { numwant: 50, ..announce };
                items.push(Item::Announce { request, announce, room: (50, 7) });
            }
        }
        items
    }

    #[test]
    fn items_round_trip_and_cut_ones_are_noticed() {
        let mut all = Vec::new();
        for item in items() {
            let mut bytes = Vec::new();
            item.write(&mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!((Item::take(&mut rest), rest.len()), (Ok(item), 0));
            for len in 0..bytes.len() {
                assert!(Item::take(&mut &bytes[..len]).is_err(), "{item:?} cut to {len}");
            }
            all.extend(bytes);
        }
        let steering = Steering::new(4, [1; 8]);
        let mut given = Vec::new();
        assert_eq!(split(&all, &steering, &mut |core, bytes| given.push((core, bytes.to_vec()))), 0);
        assert_eq!(given.len(), items().len());
        for ((core, bytes), item) in given.iter().zip(items()) {
            assert_eq!((Item::take(&mut bytes.as_slice()), *core), (Ok(item), item.core(&steering)));
        }
        all.push(9);
        assert_eq!(split(&all, &steering, &mut |_, _| ()), 1);
    }
}
