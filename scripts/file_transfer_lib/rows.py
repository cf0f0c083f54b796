"""The table: which transfers are tried."""

from dataclasses import dataclass, field

from .clients.aria2 import Aria2
from .clients.base import Client
from .clients.libtorrent import Libtorrent
from .clients.qbittorrent import Qbittorrent
from .clients.rtorrent import Rtorrent
from .clients.transmission import Transmission
from .hosts import Family
from .protocols import UDP, Protocol
from .tracker import AccessMode

CLIENTS: tuple[type[Client], ...] = (Transmission, Aria2, Libtorrent, Qbittorrent, Rtorrent)
IPV6_PAIRS: tuple[tuple[type[Client], type[Client]], ...] = (
    (Libtorrent, Libtorrent),
    (Qbittorrent, Qbittorrent),
    (Transmission, Libtorrent),
    (Rtorrent, Qbittorrent),
)
"""Over UDP on IPv6 aria2 does not work at all, Transmission and rTorrent work as seeders only; see their classes."""


@dataclass(frozen=True)
class Row:
    """One experiment.

    Without an access mode a row has one torrent, which must be transferred. With one it has two, of which the first is
    on the access list: the mode decides which of the two must be transferred and which refused.
    """

    seeder: type[Client]
    leecher: type[Client]
    protocol: Protocol = field(default=UDP)
    family: Family = Family.IPV4
    access: AccessMode | None = None

    @property
    def name(self) -> str:
        """What `--row` looks for substrings in."""
        clients = self.seeder.name if self.seeder is self.leecher else f"{self.seeder.name} to {self.leecher.name}"
        access = f", access list {self.access.value}" if self.access else ""
        return f"{clients}, {self.protocol.name} {self.family.value}{access}"


def all_rows() -> list[Row]:
    """Every client with itself, a ring of different clients, IPv6 where clients can do it, and the access list."""
    rows = [Row(client, client) for client in CLIENTS]
    rows += [Row(seeder, leecher) for seeder, leecher in mixed_pairs()]
    rows += [Row(seeder, leecher, family=Family.IPV6) for seeder, leecher in IPV6_PAIRS]
    rows += [Row(client, client, access=mode) for mode in AccessMode for client in CLIENTS]
    return rows


def mixed_pairs() -> list[tuple[type[Client], type[Client]]]:
    """Each client once as the seeder and once as the leecher of another program."""
    ring = (Transmission, Libtorrent, Rtorrent, Qbittorrent, Aria2)
    return list(zip(ring, ring[1:] + ring[:1]))
