"""The server of the page that a browser runs: it gives the page its work and takes what the page has to say."""

import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from ..hosts import Host
from .base import Torrent
from .npm import JAVASCRIPT, MODULES

FILES = {
    "/": (JAVASCRIPT / "page.html", "text/html"),
    "/page.js": (JAVASCRIPT / "page.js", "text/javascript"),
    "/webtorrent.min.js": (MODULES / "webtorrent" / "dist" / "webtorrent.min.js", "text/javascript"),
}
BINARY = "application/octet-stream"


class PageServer(ThreadingHTTPServer):
    """Listens on a host's loopback address, in threads of this program.

    It serves the page and its scripts, its work at `/job`, torrent files at `/torrent/NAME` and files to seed at
    `/data/NAME`. The page writes the files it received to `/data/NAME`, and reports the first byte of a file to
    `/begun/NAME`, the tracker's last message about it to `/message/NAME`, the state of its connection to the tracker to
    `/tracker` and whatever goes wrong to `/fault`.
    """

    daemon_threads = True

    def __init__(self, host: Host, port: int, job: object, torrents: Sequence[Torrent], data: Path) -> None:
        super().__init__(("127.0.0.1", port), _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.server_bind()
        self.server_activate()
        self.job = json.dumps(job).encode()
        self.torrents = {torrent.payload.name: torrent for torrent in torrents}
        self.data = data
        self.messages: dict[str, str] = {}
        """What the tracker said last, by the name of the file."""
        self.tracker = "never opened"
        """The state of the page's connection to the tracker."""
        self.faults: list[str] = []
        """What went wrong in the page; one is enough to fail a case."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, _request: object, client_address: object) -> None:
        """A browser that is ended resets its connections; anything else that goes wrong fails the case."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.faults.append(f"{client_address}: {error!r}")

    def close(self) -> None:
        """Ends all threads but those of requests that are being answered."""
        self.shutdown()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answers with a file of the page or of the case."""
        kind, torrent = self._torrent()
        if self.path in FILES:
            path, content_type = FILES[self.path]
            self._answer(path.read_bytes(), content_type)
        elif self.path == "/job":
            self._answer(self.server.job, "application/json")
        elif torrent is not None and kind == "torrent":
            self._answer(torrent.file.read_bytes(), BINARY)
        elif torrent is not None and kind == "data":
            self._answer((self.server.data / torrent.payload.name).read_bytes(), BINARY)
        else:
            self._answer(b"", BINARY, http.client.NOT_FOUND)

    def do_PUT(self) -> None:
        """Takes a file or a report from the page."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind, torrent = self._torrent()
        if self.path == "/tracker":
            self.server.tracker = body.decode()
        elif torrent is None:
            self.server.faults.append(body.decode(errors="replace"))
        elif kind == "data":
            (self.server.data / torrent.payload.name).write_bytes(body)
        elif kind == "begun":
            # The bytes stay in the page until the file is complete; this stands for them.
            (self.server.data / f"{torrent.payload.name}.part").write_text("bytes have arrived")
        elif kind == "message":
            self.server.messages[torrent.payload.name] = body.decode()
        self._answer(b"", BINARY)

    def _torrent(self) -> tuple[str, Torrent | None]:
        """The first part of the path, and the torrent that the second part names."""
        parts = re.fullmatch(r"/(\w+)/(.+)", self.path)
        return (parts[1], self.server.torrents.get(unquote(parts[2]))) if parts else ("", None)

    def _answer(self, body: bytes, content_type: str, status: int = http.client.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  (the name is given)
        """Nothing: the page's own log tells more."""
