"""rTorrent, on rakshasa's libtorrent."""

import socket
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path

from .base import PEER_PORT, Client, Torrent


class Rtorrent(Client):
    """Configured by a file; its state is read by XML-RPC in SCGI frames over a local socket.

    Quirks of 0.9.8:
    - It needs a terminal unless daemon mode is switched on.
    - aria2 gets some hundred kilobytes from it and then nothing more, whatever tracker has introduced them.
    - Over UDP on IPv6 it reads the peers of a reply as IPv4 ones (6 bytes each), so it cannot be an IPv6 leecher.
    """

    name = "rtorrent"
    package = "rtorrent"
    programs = ("rtorrent",)
    version_command = ("rtorrent", "-h")

    def start(self, torrents: Sequence[Torrent]) -> None:
        session = self.host.directory / "session"
        session.mkdir()
        configuration = self.host.directory / "rtorrent.rc"
        configuration.write_text(self._settings(session))
        options = ["-n", "-o", f"import={configuration}"]
        self.run(["rtorrent", *options, *(str(torrent.file) for torrent in torrents)])

    def tracker_message(self, torrent: Torrent) -> str | None:
        message = self._call("d.message", torrent.payload.info_hash.hex().upper())
        return message or None

    def _settings(self, session: Path) -> str:
        trust = ""
        if self.authority is not None:
            trust = f"network.http.cacert.set = {self.authority}\nnetwork.http.ssl_verify_peer.set = 1\n"
        return f"""{trust}system.daemon.set = true
network.scgi.open_local = {self._control}
session.path.set = {session}
directory.default.set = {self.data}
network.port_range.set = {PEER_PORT}-{PEER_PORT}
network.port_random.set = no
trackers.use_udp.set = yes
dht.mode.set = disable
protocol.pex.set = no
log.open_file = "log", {self.host.directory}/rtorrent-detail.log
log.add_output = "info", "log"
log.add_output = "tracker_debug", "log"
"""

    def _call(self, method: str, *arguments: str) -> str:
        """One call; SCGI is a block of headers as a netstring followed by the body."""
        body = xmlrpc.client.dumps(arguments, method).encode()
        headers = b"CONTENT_LENGTH\0%d\0SCGI\x001\0" % len(body)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._control))
            connection.sendall(b"%d:%s,%s" % (len(headers), headers, body))
            with connection.makefile("rb") as reply:
                answer = reply.read().partition(b"\r\n\r\n")[2]
        return str(xmlrpc.client.loads(answer)[0][0])

    @property
    def _control(self) -> Path:
        return self.host.directory / "control"
