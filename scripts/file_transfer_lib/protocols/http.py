"""BEP 3, 7, 23, 24 and 48: HTTP and HTTPS, with or without a proxy in front of the tracker."""

import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..hosts import TRACKER_NAME, Failure, Family, Host
from ..programs import Program
from ..proxies import LOOPBACK, Proxy
from ..sites import Configuration, Setting, Site
from ..torrent import bdecode
from . import Probe, Protocol, compact_peers, listen

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""A proxy has the ports that need not be in a URL; every case has a network of its own, so they are free."""
PROXY_SECONDS = 10.0
"""How long a proxy may take to listen."""
SOCKET = "tracker-socket"
EVERYWHERE_PORT = 6969
METRICS_PORT = 9000

Dictionary = Mapping[bytes, Any]


class Http(Protocol):
    """HTTP as the tracker or a proxy in front of it speaks it."""

    subcommand = "http"
    schemes = ("http", "https")
    """Plain and encrypted."""

    def __init__(
        self,
        name: str,
        proxy: Proxy | None = None,
        encrypted: bool = False,
        proxies: Mapping[str, Setting] | None = None,
        everywhere: bool = False,
    ) -> None:
        """`encrypted` says whether the tracker itself encrypts; `proxies` are keys of that section, and with some of
        them the tracker's metrics can be asked for. With `everywhere` the tracker listens on both families, on one port
        that it has again when it is restarted."""
        self.name = name
        self.proxy = proxy
        self.scheme = self.schemes[encrypted]
        self.encrypted = encrypted or (proxy is not None and proxy.encrypts)
        self._proxies = dict(proxies or {})
        self._everywhere = everywhere
        self._counted = bool(self._proxies)

    def programs(self) -> tuple[type[Program], ...]:
        return (type(self.proxy),) if self.proxy is not None else ()

    def configuration(self, site: Site) -> Configuration:
        network = listen(site)
        if self._everywhere:
            for family in Family:
                network |= listen(site, family=family, port=EVERYWHERE_PORT)
            network |= {"use_ipv4": True, "use_ipv6": True}
        proxies: dict[str, Setting] = dict(self._proxies)
        if self.proxy is not None:
            # The proxy runs beside the tracker, and nobody gets past it.
            network = listen(site, LOOPBACK, Family.IPV4)
            trusted: dict[str, Setting] = {"trusted_proxies": [LOOPBACK]}
            proxies = trusted | {"proxy_protocol": self.proxy.passes_connections} | proxies
            if self.proxy.uses_unix_socket:
                network = {"use_ipv4": False, "use_ipv6": False, "unix_socket_path": str(site.host.directory / SOCKET)}
                proxies = {}
        if self.scheme == self.schemes[True]:
            assert site.certificates is not None
            network["enable_tls"] = True
            network["tls_certificate_path"] = str(site.certificates.certificate)
            network["tls_private_key_path"] = str(site.certificates.key)
        return {
            "network": network,
            "proxies": proxies,
            "metrics": {"enable": self._counted, "address": f"{LOOPBACK}:{METRICS_PORT}"},
        }

    def announced_in(self, log: str) -> str | None:
        """With a unix socket it is the path of that."""
        if self.proxy is not None and self.proxy.uses_unix_socket:
            found = re.search(r"\bunix socket (\S+)", log)
            return found.group(1) if found else None
        return super().announced_in(log)

    def prepare(self, stack: contextlib.ExitStack, site: Site, announce_url: str) -> str:
        if self.proxy is None:
            return super().prepare(stack, site, announce_url)
        is_path = self.proxy.uses_unix_socket
        process = self.proxy.start(site, f"unix:{announce_url}" if is_path else urlsplit(announce_url).netloc)
        stack.callback(process.stop)
        scheme = self.schemes[self.encrypted]
        probe = HttpProbe(site.host, site.family, site.address, PORTS[scheme], None)
        deadline = time.monotonic() + PROXY_SECONDS
        while not probe.is_listened_for():
            if process.exit_code() is not None or time.monotonic() > deadline:
                raise Failure(f"{self.proxy.name} does not listen on port {probe.port}")
            time.sleep(0.05)
        return f"{scheme}://{TRACKER_NAME}/announce"

    def probe(self, site: Site, announce_url: str) -> "HttpProbe":
        url = urlsplit(announce_url)
        authority = site.certificates.authority if site.certificates and url.scheme == "https" else None
        return HttpProbe(site.host, site.family, site.address, url.port or PORTS[url.scheme], authority)


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    body: bytes

    def dictionary(self) -> Dictionary:
        """The body of an answer that clients accept."""
        if self.status != 200:
            raise Failure(f"the tracker answered with status {self.status}: {self.body!r}")
        try:
            value = bdecode(self.body)
        except ValueError as error:
            raise Failure(f"the tracker's answer is no bencode: {error}") from None
        if not isinstance(value, dict):
            raise Failure(f"the tracker's answer is no dictionary: {self.body!r}")
        return value


class Closed(Failure):
    """The connection was closed without an answer."""


@dataclass(frozen=True)
class HttpProbe(Probe):
    """Asks one question per connection."""

    host: Host
    """Where it asks from; another one than the tracker's to be somebody else."""
    family: Family
    address: str
    port: int
    authority: Path | None
    """Who signs the tracker's certificate; None for plain HTTP."""
    headers: tuple[bytes, ...] = ()
    """Further header lines."""
    preface: bytes = b""
    """What is sent before everything else."""

    PEER_PORT = 9
    """What the probe claims to listen on; it is gone again before anyone could try."""
    SECONDS = 20.0
    """How long an answer may take."""
    ATTEMPTS = 20
    ATTEMPT_SECONDS = 0.5

    def seeders(self, info_hash: bytes) -> int:
        return self.scrape([info_hash])[info_hash][b"complete"]

    def refusal(self, info_hash: bytes) -> str:
        # A stopping peer: even if the tracker accepts it, it does not become part of the swarm.
        reply = self.announce(info_hash, event="stopped")
        if b"failure reason" not in reply:
            raise Failure(f"the tracker answered the announce of a refused torrent with {reply}")
        return reply[b"failure reason"].decode(errors="replace")

    def peers(self, info_hash: bytes) -> set[tuple[str, int]] | None:
        reply = self.announce(info_hash)
        self.announce(info_hash, event="stopped")
        return peers_of(reply)

    def announce(self, info_hash: bytes, port: int = PEER_PORT, left: int = 1, event: str = "started") -> Dictionary:
        """Announces a peer on the probe's host."""
        parameters = {
            "info_hash": info_hash,
            "peer_id": b"-FT0000-" + bytes(12),
            "port": port,
            "uploaded": 0,
            "downloaded": 0,
            "left": left,
            "compact": 1,
            "numwant": 200,
            "event": event,
        }
        return self._ask(f"/announce?{urlencode(parameters, quote_via=quote)}")

    def scrape(self, info_hashes: Sequence[bytes]) -> Mapping[bytes, Mapping[bytes, int]]:
        """The counts of any number of torrents."""
        query = "&".join("info_hash=" + quote(info_hash) for info_hash in info_hashes)
        files = self._ask(f"/scrape?{query}").get(b"files")
        if not isinstance(files, dict) or set(files) != set(info_hashes):
            raise Failure(f"the tracker answered a scrape of {len(info_hashes)} torrents with {files}")
        return files

    def _ask(self, target: str) -> Dictionary:
        """The dictionary that a request is answered with, once the tracker finds the time."""
        for _ in range(self.ATTEMPTS):
            reply = self.get(target).dictionary()
            # On a busy machine one of the tracker's cores may stand still, and the others ask clients to come again.
            if b"overloaded" not in reply.get(b"failure reason", b""):
                break
            time.sleep(self.ATTEMPT_SECONDS)
        return reply

    def get(self, target: str) -> Answer:
        """One request; the answer must be complete."""
        host = f"Host: {TRACKER_NAME}".encode()
        lines = [f"GET {target} HTTP/1.1".encode(), host, b"Connection: close", *self.headers]
        try:
            with self._connect() as connection:
                connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
                response = http.client.HTTPResponse(connection, method="GET")
                response.begin()
                return Answer(response.status, response.read())
        except ConnectionError as error:
            raise Closed(f"the tracker closed the connection without an answer: {error}") from None
        except (http.client.HTTPException, OSError) as error:
            raise Failure(f"the tracker gave no answer to GET {target}: {error!r}") from None

    def is_listened_for(self) -> bool:
        """Whether anybody accepts connections there."""
        with contextlib.suppress(OSError), self._open():
            return True
        return False

    def _open(self) -> socket.socket:
        family = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        connection = self.host.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.SECONDS)
            connection.connect((self.address, self.port))
        except OSError:
            connection.close()
            raise
        return connection

    def _connect(self) -> socket.socket:
        connection = self._open()
        try:
            connection.sendall(self.preface)
            if self.authority is not None:
                context = ssl.create_default_context(cafile=str(self.authority))
                return context.wrap_socket(connection, server_hostname=TRACKER_NAME)
        except OSError:
            connection.close()
            raise
        return connection


def peers_of(reply: Dictionary) -> set[tuple[str, int]]:
    """The peers of both families in an announce reply, which always has both lists and the other keys clients need."""
    missing = {b"interval", b"complete", b"incomplete", b"peers", b"peers6"} - set(reply)
    if missing:
        raise Failure(f"an announce reply without {sorted(missing)}: {reply}")
    return {
        *compact_peers(reply[b"peers"], Family.IPV4),
        *compact_peers(reply[b"peers6"], Family.IPV6),
    }
