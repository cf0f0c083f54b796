"""WebTorrent's published browser bundle, in a page of headless Chromium."""

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..hosts import ADDRESSES, TRACKER, Failure, Family, Host
from ..programs import PATH
from ..torrent import PIECE_BYTES
from ..websocket import WebSocket
from . import npm
from .base import CONTROL_PORT, Client, Torrent
from .page_server import PageServer

DEBUGGING_PORT = 9222
SWITCHES = (
    "--headless",
    # The sandbox refuses to run for root, and in namespaces like those of the hosts.
    "--no-sandbox",
    # Shared memory is small in containers.
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    # Nothing but the page: there is no network for the rest, and waiting for it takes time.
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    # The peers see the host's addresses as they are, and not as names that only multicast resolves.
    "--disable-features=WebRtcHideLocalIpsWithMdns,Translate,OptimizationHints,MediaRouter",
    # A page that nobody looks at has slow timers otherwise.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--enable-logging=stderr",
    "--window-size=1000,700",
    f"--remote-debugging-port={DEBUGGING_PORT}",
)


# Root's browser would raise its own priority, and delay trackers and clients for seconds where cases share cores.
NO_PRIORITY = ("setpriv", "--bounding-set=-sys_nice", "--")
BROWSERS = ("chromium", "google-chrome", "chromium-browser")


class Chromium(Client):
    """A browser of its own per host, with one page, which is served and listened to by this program.

    Quirks:
    - WebTorrent connects to a tracker again 10 seconds after it lost it, and by chance up to five minutes later than
      that; the page takes the chance out of it.
    - WebTorrent asks servers on the internet for its own address unless it is given an empty list of them.
    - The browser trusts authorities that are in a database in the user's home. It reads neither the system's list nor
      the environment.
    """

    name = "chromium"
    is_heavy = True
    package = "chromium libnss3-tools"
    browser = next(filter(lambda program: shutil.which(program, path=PATH), BROWSERS), BROWSERS[0])
    programs = (browser, "certutil")
    version_command = (browser, "--version")

    def __init__(self, host: Host, family: Family, authority: Path | None) -> None:
        super().__init__(host, family, authority)
        self._page: PageServer | None = None

    def start(self, torrents: Sequence[Torrent]) -> None:
        self._page = PageServer(self.host, CONTROL_PORT, self._job(torrents), torrents, self.data)
        if self.authority is not None:
            self._trust(self.authority)
        profile = self.host.directory / "profile"
        switches = [*SWITCHES, f"--user-data-dir={profile}"]
        self.run([*NO_PRIORITY, self.browser, *switches, f"http://localhost:{CONTROL_PORT}/"])

    def tracker_message(self, torrent: Torrent) -> str | None:
        return self._page.messages.get(torrent.payload.name) if self._page else None

    def check_alive(self) -> None:
        super().check_alive()
        if self._page and self._page.faults:
            raise Failure(f"the page of the {self.host.name} failed: {self._page.faults[0]}")

    def conclude(self) -> None:
        """Keeps a picture of the page; its connection to the tracker must have stayed open."""
        self._keep_picture()
        if self._page and self._page.tracker != "open":
            raise Failure(f"the connection of the {self.host.name}'s page to the tracker is {self._page.tracker}")

    def stop(self) -> None:
        if self.process is not None and self.process.exit_code() is None and not self._picture.exists():
            self._keep_picture()
        super().stop()
        if self._page is not None:
            self._page.close()

    def _job(self, torrents: Sequence[Torrent]) -> dict[str, object]:
        return {
            "title": f"{self.host.name}, {self.address}",
            "torrents": [
                {
                    "name": torrent.payload.name,
                    "seed": (self.data / torrent.payload.name).exists(),
                    "announce": torrent.announce_url,
                    "infoHash": torrent.payload.info_hash.hex(),
                    "pieceLength": PIECE_BYTES,
                    "sha256": torrent.payload.sha256,
                }
                for torrent in torrents
            ],
        }

    def _trust(self, authority: Path) -> None:
        database = self.host.directory / ".pki" / "nssdb"
        database.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{database}"]
        # Trusted to sign for servers, and for nothing else.
        trust = ["-A", "-n", "authority", "-t", "C,,", "-i", str(authority)]
        for arguments in (["-N", "--empty-password"], trust):
            result = subprocess.run([*certutil, *arguments], check=False, capture_output=True, text=True)
            if result.returncode != 0:
                raise Failure(f"certutil cannot make the browser trust the authority: {result.stderr.strip()}")

    @property
    def _picture(self) -> Path:
        return self.host.directory / "page.png"

    def _keep_picture(self) -> None:
        """Beside the logs, for whoever wants to know what a user would have seen; no case depends on it."""
        try:
            self._picture.write_bytes(self._ask_for_picture())
        except (OSError, http.client.HTTPException, LookupError, StopIteration, ValueError, Failure) as error:
            (self.host.directory / "page.log").write_text(f"no picture of the page: {error!r}\n")

    def _ask_for_picture(self) -> bytes:
        """Asks over the browser's debugging interface."""
        with contextlib.closing(self.host.http(DEBUGGING_PORT)) as connection:
            connection.request("GET", "/json/list")
            pages = json.loads(connection.getresponse().read())
        target = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        socket = self.host.http(DEBUGGING_PORT).sock
        with WebSocket(socket, f"127.0.0.1:{DEBUGGING_PORT}", urlsplit(target).path) as control:
            control.send(json.dumps({"id": 1, "method": "Page.captureScreenshot"}))
            while (answer := json.loads(control.receive())).get("id") != 1:
                pass
        return base64.b64decode(answer["result"]["data"])

    @classmethod
    def remedy(cls) -> str | None:
        return super().remedy() or npm.missing("webtorrent")

    @classmethod
    def version(cls) -> str:
        return f"{super().version()}, webtorrent {npm.version('webtorrent')}"


class ChromiumOverIpv6(Chromium):
    """The same, with a tracker that it reaches over IPv6 whatever the others do."""

    name = "chromium over IPv6"

    def __init__(self, host: Host, _family: Family, authority: Path | None) -> None:
        super().__init__(host, Family.IPV6, authority)

    def start(self, torrents: Sequence[Torrent]) -> None:
        super().start([self._moved(torrent) for torrent in torrents])

    def _moved(self, torrent: Torrent) -> Torrent:
        """The torrent with the tracker's IPv6 address instead of its name, which may be known for IPv4 only."""
        url = urlsplit(torrent.announce_url)
        address = Family.IPV6.authority(ADDRESSES[TRACKER][Family.IPV6])
        moved = url._replace(netloc=f"{address}:{url.port}").geturl()
        file = self.host.directory / torrent.file.name
        torrent.payload.write_torrent(file, moved)
        return Torrent(torrent.payload, file, moved)
