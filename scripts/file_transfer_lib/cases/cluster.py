"""Transfers between clients of different nodes of a cluster."""

from ..case import Case
from ..clients import Aria2, Libtorrent, Qbittorrent, Transmission
from ..clients.chromium import Chromium
from ..clients.reference import Reference
from ..hosts import Family
from ..protocols.cluster import NODES, WEBTORRENT_NODES
from ..protocols.everything import AllUrl
from ..transfer import ClusterTransfer

FIRST, SECOND = NODES
WS_FIRST, WS_SECOND = WEBTORRENT_NODES
V6 = Family.IPV6
UDP, HTTP, WS = AllUrl.UDP, AllUrl.HTTP, AllUrl.WS


def cases() -> list[Case]:
    """Each protocol, and one to another."""
    return [
        ClusterTransfer(Libtorrent, Transmission, FIRST, other=SECOND, seeder_url=UDP, leecher_url=UDP),
        ClusterTransfer(Aria2, Qbittorrent, FIRST, V6, other=SECOND, seeder_url=HTTP, leecher_url=HTTP),
        ClusterTransfer(Qbittorrent, Libtorrent, FIRST, other=SECOND, seeder_url=UDP, leecher_url=HTTP),
        ClusterTransfer(Chromium, Reference, WS_FIRST, other=WS_SECOND, seeder_url=WS, leecher_url=WS),
        ClusterTransfer(Reference, Chromium, WS_FIRST, V6, other=WS_SECOND, seeder_url=WS, leecher_url=WS),
    ]
