"""The reference client of WebTorrent trackers, in Node."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..torrent import PIECE_BYTES
from . import npm
from .base import Client, Torrent


class Reference(Client):
    """Runs `reference.js` of this repository's folder for npm packages; that writes tracker errors to a file.

    It announces with `bittorrent-tracker`, connects by the WebRTC of `@roamhq/wrtc`, and speaks to peers with
    `bittorrent-protocol`.

    Quirk: it connects to a tracker again 10 seconds after it lost it, and by chance up to five minutes later than that;
    the program takes the chance out of it.
    """

    name = "reference"
    package = "nodejs npm"
    programs = ("node", "npm")
    version_command = ("node", "--version")
    conformance = False
    """Whether it first tries out, with torrents of its own, whether the tracker does what this client expects."""

    def start(self, torrents: Sequence[Torrent]) -> None:
        settings = {
            "announce": torrents[0].announce_url,
            "data": str(self.data),
            "messages": str(self._messages),
            "conformance": self.conformance,
            "torrents": [
                {
                    "name": torrent.payload.name,
                    "infoHash": torrent.payload.info_hash.hex(),
                    "length": len(torrent.payload.content),
                    "pieceLength": PIECE_BYTES,
                    "seed": (self.data / torrent.payload.name).exists(),
                }
                for torrent in torrents
            ],
        }
        environment = {"NODE_EXTRA_CA_CERTS": str(self.authority)} if self.authority is not None else {}
        self.run(["node", str(npm.JAVASCRIPT / "reference.js"), json.dumps(settings)], environment)

    def tracker_message(self, torrent: Torrent) -> str | None:
        try:
            return json.loads(self._messages.read_text()).get(torrent.payload.name)
        except FileNotFoundError:
            return None

    @property
    def _messages(self) -> Path:
        return self.host.directory / "tracker-messages.json"

    @classmethod
    def remedy(cls) -> str | None:
        return super().remedy() or npm.missing("bittorrent-tracker")

    @classmethod
    def version(cls) -> str:
        return f"bittorrent-tracker {npm.version('bittorrent-tracker')}, node {super().version()}"


class ReferenceAfterConformance(Reference):
    """The same, after it has found that the tracker does what it expects."""

    name = "reference after conformance test"
    conformance = True
