"""Who transfers to whom where the choice does not matter."""

from ..clients import Aria2, Libtorrent, Qbittorrent, Rtorrent, Transmission
from ..clients.base import Client

_ORDER: tuple[type[Client], ...] = (Transmission, Libtorrent, Rtorrent, Qbittorrent, Aria2)
RING = tuple(zip(_ORDER, _ORDER[1:] + _ORDER[:1], strict=True))
"""Each client once as the seeder and once as the leecher of another program."""
