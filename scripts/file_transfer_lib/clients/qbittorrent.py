"""qBittorrent without a display."""

import json
from collections.abc import Sequence

from ..protocols import Protocol
from ..protocols.udp import UDP
from .base import CONTROL_PORT, PEER_PORT, Client, Torrent
from .libtorrent import UDP_REFUSAL, trust


class Qbittorrent(Client):
    """Configured by a file in a profile of its own; tracker errors are read from its web API.

    Quirks of 4.5:
    - It asks for consent to its legal notice unless the configuration says it was given.
    - Unless told one address it listens on every address and announces from each, the loopback ones too. What its API
      shows as the tracker's message may then be about an address that cannot reach the tracker.
    - Its engine is libtorrent, and so loses the text of UDP error packets in the same way.
    - Ending it takes seconds, as it waits for trackers.
    """

    name = "qbittorrent"
    package = "qbittorrent-nox"
    programs = ("qbittorrent-nox",)
    version_command = ("qbittorrent-nox", "--version")

    def start(self, torrents: Sequence[Torrent]) -> None:
        profile = self.host.directory / "profile"
        configuration = profile / "qBittorrent" / "config"
        configuration.mkdir(parents=True)
        (configuration / "qBittorrent.conf").write_text(self._settings())
        files = [str(torrent.file) for torrent in torrents]
        self.run(["qbittorrent-nox", f"--profile={profile}", *files], trust(self.authority))

    def tracker_message(self, torrent: Torrent) -> str | None:
        connection = self.host.http(CONTROL_PORT)
        connection.request("GET", f"/api/v2/torrents/trackers?hash={torrent.payload.info_hash.hex()}")
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status != 200:
            return None
        # The list starts with rows for DHT and the like, which are no URLs.
        trackers = [tracker for tracker in json.loads(text) if "://" in tracker["url"]]
        return next((tracker["msg"] for tracker in trackers if tracker["msg"]), None)

    def refusal_as_shown(self, text: str, protocol: Protocol) -> str:
        return UDP_REFUSAL if protocol is UDP else text

    def _settings(self) -> str:
        return f"""[LegalNotice]
Accepted=true

[BitTorrent]
Session\\DefaultSavePath={self.data}
Session\\Port={PEER_PORT}
Session\\InterfaceAddress={self.address}
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\BTProtocol=TCP
Session\\QueueingSystemEnabled=false

[Network]
PortForwardingEnabled=false

[Preferences]
WebUI\\Enabled=true
WebUI\\Address=127.0.0.1
WebUI\\Port={CONTROL_PORT}
WebUI\\LocalHostAuth=false
WebUI\\UseUPnP=false
"""
