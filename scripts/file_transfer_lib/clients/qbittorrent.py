"""qBittorrent without a display."""

import json
from collections.abc import Sequence

from .base import CONTROL_PORT, PEER_PORT, Client, Torrent


class Qbittorrent(Client):
    """Configured by a file in a profile of its own; tracker errors are read from its web API.

    Quirks of 4.5:
    - It asks for consent to its legal notice unless the configuration says it was given.
    - Once torrents are added its engine is libtorrent, so the announces look the same; the difference is in the
      settings, and in that it binds every interface.
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
        self.run(["qbittorrent-nox", f"--profile={profile}", *(str(torrent.file) for torrent in torrents)])

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

    def _settings(self) -> str:
        return f"""[LegalNotice]
Accepted=true

[BitTorrent]
Session\\DefaultSavePath={self.data}
Session\\Port={PEER_PORT}
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
