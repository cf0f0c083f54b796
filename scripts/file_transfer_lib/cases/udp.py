"""Transfers over UDP."""

from ..case import Case
from ..clients import ALL, Libtorrent, Qbittorrent, Rtorrent, Transmission
from ..clients.base import Client
from ..hosts import Family
from ..protocols.udp import UDP
from ..tracker import AccessMode
from ..transfer import Transfer, XdpTransfer
from .pairs import RING

IPV6_PAIRS: tuple[tuple[type[Client], type[Client]], ...] = (
    (Libtorrent, Libtorrent),
    (Qbittorrent, Qbittorrent),
    (Transmission, Libtorrent),
    (Rtorrent, Qbittorrent),
)
"""Over UDP on IPv6 aria2 does not work at all, Transmission and rTorrent work as seeders only; see their classes."""


def cases() -> list[Case]:
    """Every client with itself, a ring of different ones, IPv6 where clients can do it, the access list, and AF_XDP."""
    return [
        *(Transfer(client, client, UDP) for client in ALL),
        *(Transfer(seeder, leecher, UDP) for seeder, leecher in RING),
        *(Transfer(seeder, leecher, UDP, Family.IPV6) for seeder, leecher in IPV6_PAIRS),
        *(Transfer(client, client, UDP, access=mode) for mode in AccessMode for client in ALL),
        *(XdpTransfer(seeder, leecher) for seeder, leecher in RING),
        *(XdpTransfer(seeder, leecher, family=Family.IPV6) for seeder, leecher in IPV6_PAIRS),
    ]
