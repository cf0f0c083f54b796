"""Transfers between clients that speak different protocols to one tracker, and WebTorrent beside them."""

from ..case import Case
from ..clients import Aria2, Libtorrent, Qbittorrent, Rtorrent, Transmission
from ..clients.chromium import Chromium
from ..clients.reference import Reference
from ..hosts import Family
from ..protocols.everything import ALL, All, AllUrl, AllWs
from ..proxies import Nginx
from ..transfer import MixedTransfer, Transfer

ALL_NGINX = All("all, nginx", Nginx())
ALL_WS = AllWs("all, WS")

V4, V6 = Family.IPV4, Family.IPV6
UDP, HTTP, NGINX = AllUrl.UDP, AllUrl.HTTP, AllUrl.NGINX


def cases() -> list[Case]:
    """Each client over UDP to another over HTTP and the reverse, with and without a proxy."""
    return [
        MixedTransfer(Aria2, Transmission, ALL, seeder_url=UDP, leecher_url=HTTP),
        MixedTransfer(Transmission, Aria2, ALL, seeder_url=HTTP, leecher_url=UDP),
        MixedTransfer(Transmission, Libtorrent, ALL, seeder_url=UDP, leecher_url=HTTP),
        MixedTransfer(Qbittorrent, Libtorrent, ALL, seeder_url=HTTP, leecher_url=UDP),
        MixedTransfer(Libtorrent, Qbittorrent, ALL, V6, seeder_url=UDP, leecher_url=HTTP),
        MixedTransfer(Aria2, Qbittorrent, ALL, V6, seeder_url=HTTP, leecher_url=UDP),
        MixedTransfer(Rtorrent, Qbittorrent, ALL_NGINX, seeder_url=NGINX, leecher_url=UDP),
        MixedTransfer(Libtorrent, Aria2, ALL_NGINX, seeder_url=UDP, leecher_url=NGINX),
        MixedTransfer(Qbittorrent, Rtorrent, ALL_NGINX, seeder_url=HTTP, leecher_url=NGINX),
        Transfer(Chromium, Reference, ALL_WS),
        Transfer(Reference, Chromium, ALL_WS, V6),
    ]
