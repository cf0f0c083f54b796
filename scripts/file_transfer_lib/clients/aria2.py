"""aria2."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..hosts import Family
from .base import PEER_PORT, Client, Torrent


class Aria2(Client):
    """Everything is on the command line; the log is the only place where a tracker's error text appears. Over UDP it is
    named by transaction id only, and the announce with that id names the torrent; over HTTP it follows the request.

    Quirks of 1.36:
    - It compares the size of a connect reply with 16 for equality.
    - It speaks to UDP trackers through its DHT's socket, so with DHT off it refuses their URLs. DHT is on therefore,
      but without an entry point, and the torrent's private flag keeps the torrent out of it.
    - Over IPv6 it has no UDP tracker support: it sends through its IPv4 socket, which the system refuses.
    - Its own resolver does not find names in the hosts file, so it is told to use the system's.
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
            "enable-dht": "true",
            "async-dns": "false",
            "dht-listen-port": PEER_PORT,
            "dht-file-path": self.host.directory / "dht.dat",
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
        if self.authority is not None:
            options |= {"ca-certificate": self.authority, "check-certificate": "true"}
        switches = [f"--{name}={value}" for name, value in options.items()]
        self.run(["aria2c", "--no-conf", *switches, *(str(torrent.file) for torrent in torrents)])

    def tracker_message(self, torrent: Torrent) -> str | None:
        log = self._log.read_text(errors="replace")
        refused = re.findall(r"Tracker request \S*info_hash=([^&]+)&.*\n.*Tracker returned failure reason: (.*)", log)
        for info_hash, error in refused:
            if unquote_to_bytes(info_hash) == torrent.payload.info_hash:
                return error
        announces = rf"sent ANNOUNCE .*transaction_id=(\w+),.*infohash={torrent.payload.info_hash.hex()}"
        for transaction_id in re.findall(announces, log):
            if found := re.search(rf"received ERROR .*transaction_id={transaction_id},.*error_string=(.*)", log):
                return found.group(1)
        return None

    @property
    def _log(self) -> Path:
        return self.host.directory / "aria2-detail.log"
