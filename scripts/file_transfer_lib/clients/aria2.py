"""aria2."""

from collections.abc import Sequence

from ..hosts import Family
from .base import PEER_PORT, Client, Torrent


class Aria2(Client):
    """Everything is on the command line; the log is the only place where a tracker's error text appears.

    Quirks of 1.36:
    - It compares the size of a connect reply with 16 for equality.
    - While seeding it connects to nobody: it waits for leechers that learned of it from the tracker. A seeder must
      therefore be known to the tracker before the leecher announces.
    """

    name = "aria2"
    package = "aria2"
    programs = ("aria2c",)
    version_command = ("aria2c", "--version")

    def start(self, torrents: Sequence[Torrent]) -> None:
        options = {
            "dir": self.data,
            "listen-port": PEER_PORT,
            "enable-dht": "false",
            "enable-dht6": "false",
            "enable-peer-exchange": "false",
            "bt-enable-lpd": "false",
            "disable-ipv6": "false" if self.family is Family.IPV6 else "true",
            "check-integrity": "true",
            "seed-ratio": "0.0",
            "file-allocation": "none",
            "console-log-level": "error",
            "summary-interval": "0",
            "log": self._log,
            "log-level": "info",
        }
        switches = [f"--{name}={value}" for name, value in options.items()]
        self.run(["aria2c", "--no-conf", *switches, *(str(torrent.file) for torrent in torrents)])

    def tracker_message(self, torrent: Torrent) -> str | None:
        info_hash = torrent.payload.info_hash.hex()
        for line in self._log.read_text(errors="replace").splitlines():
            if "error_string=" in line and info_hash in line:
                return line.split("error_string=", 1)[1].split(", infohash=")[0]
        return None

    @property
    def _log(self):
        return self.host.directory / "aria2-detail.log"
