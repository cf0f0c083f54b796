"""One module per client program."""

from .aria2 import Aria2
from .base import Client
from .libtorrent import Libtorrent
from .qbittorrent import Qbittorrent
from .rtorrent import Rtorrent
from .transmission import Transmission

ALL: tuple[type[Client], ...] = (Transmission, Aria2, Libtorrent, Qbittorrent, Rtorrent)
"""Those that speak to trackers over UDP and HTTP."""

__all__ = ["ALL", "Aria2", "Client", "Libtorrent", "Qbittorrent", "Rtorrent", "Transmission"]
