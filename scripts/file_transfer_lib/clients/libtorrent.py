"""libtorrent (Rasterbar), through its Python binding."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..hosts import Family, Host, Process
from ..protocols import Protocol
from ..protocols.udp import UDP
from .base import PEER_PORT, Client, Torrent

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's binding is for Debian's interpreter, which may not be the one that runs this program."""

UDP_REFUSAL = "tracker sent a failure message"
"""How libtorrent names an error packet; it has other names for timeouts and replies that it cannot read."""


def trust(authority: Path | None) -> dict[str, str]:
    """The environment in which OpenSSL, and with it libtorrent, trusts an authority."""
    return {"SSL_CERT_FILE": str(authority)} if authority is not None else {}


class Libtorrent(Client):
    """Runs `libtorrent_agent.py` beside this file in a process of its own; that writes tracker errors to a file.

    Quirks of 2.0:
    - It announces once per address it listens on, so it is told the one address of the case.
    - It loses the text of a UDP error packet: it hands on an empty message beside its own name for the error. It takes
      the text to start at the packet's first byte, which is a zero.
    - After an error it announces again only after some seconds, more with each error.
    """

    name = "libtorrent"
    package = "python3-libtorrent"
    programs = (SYSTEM_PYTHON,)
    version_command = (SYSTEM_PYTHON, "-I", "-c", "import libtorrent; print(libtorrent.version)")

    def start(self, torrents: Sequence[Torrent]) -> None:
        settings = {
            "listen": f"{self.family.authority(self.address)}:{PEER_PORT}",
            "data": str(self.data),
            "torrents": [str(torrent.file) for torrent in torrents],
            "messages": str(self._messages),
        }
        # Isolated, so that this folder, with a module named like the binding, is not searched for it.
        agent = Path(__file__).with_name("libtorrent_agent.py")
        self.run([SYSTEM_PYTHON, "-I", "-B", str(agent), json.dumps(settings)], trust(self.authority))

    def tracker_message(self, torrent: Torrent) -> str | None:
        try:
            messages = json.loads(self._messages.read_text())
        except FileNotFoundError:
            return None
        return messages.get(torrent.payload.info_hash.hex())

    def refusal_as_shown(self, text: str, protocol: Protocol) -> str:
        return UDP_REFUSAL if protocol is UDP else text

    @property
    def _messages(self) -> Path:
        return self.host.directory / "tracker-messages.json"

    @classmethod
    def missing_package(cls) -> str | None:
        return super().missing_package() or (cls.package if "Error" in cls.version() else None)


def start_scrape(
    host: Host, family: Family, authority: Path | None, announce_url: str, info_hashes: Sequence[bytes], results: Path
) -> Process:
    """Starts a session that asks for the counts of torrents without taking part in them, writes what it would show its
    user for each to `results`, and ends."""
    settings = {
        "listen": f"{family.authority(host.addresses[family])}:{PEER_PORT}",
        "announce_url": announce_url,
        "info_hashes": [info_hash.hex() for info_hash in info_hashes],
        "data": str(host.directory),
        "results": str(results),
    }
    agent = Path(__file__).with_name("libtorrent_scrape.py")
    return host.start("scrape", [SYSTEM_PYTHON, "-I", "-B", str(agent), json.dumps(settings)], trust(authority))
