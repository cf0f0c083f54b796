"""What is particular to one tracker protocol: configuration, announce URL, and how to ask the tracker directly."""

import contextlib
import os
import re
import socket
import struct
from abc import ABC, abstractmethod
from urllib.parse import urlsplit

from .hosts import TRACKER_NAME, Failure, Family, Host

Configuration = dict[str, dict[str, str | int | bool]]
"""Sections of the tracker's configuration file."""


class Probe(ABC):
    """A minimal client of the tracker that takes no part in the transfer."""

    @abstractmethod
    def seeders(self, info_hash: bytes) -> int:
        """How many complete peers the tracker knows for a torrent."""

    @abstractmethod
    def refusal(self, info_hash: bytes) -> str:
        """The error text an announce for this torrent is answered with; it is a `Failure` if the tracker accepts it."""


class Protocol(ABC):
    """A protocol, or a scheme of one, as further rows of the table need it."""

    name: str
    subcommand: str
    """What the tracker binary is started with."""
    scheme: str
    """Of the announce URL in the tracker's log."""

    @abstractmethod
    def configuration(self, family: Family, address: str) -> Configuration:
        """The settings that make the tracker listen on `address`, on a port of the system's choice."""

    @abstractmethod
    def probe(self, host: Host, announce_url: str) -> Probe:
        """A probe that asks from `host`."""

    def announced_in(self, log: str) -> str | None:
        """The announce URL the tracker logs for its listener once it listens."""
        found = re.search(rf"\b{self.scheme}://[^\s/]+:[1-9]\d*/announce", log)
        return found.group() if found else None

    def prepare(self, _stack: contextlib.ExitStack, _host: Host, announce_url: str) -> str:
        """Starts what has to stand between the clients and the tracker; returns the URL that clients are given.

        As with public trackers that is a name, which `hosts` resolves, and not an address.
        """
        url = urlsplit(announce_url)
        return url._replace(netloc=f"{TRACKER_NAME}:{url.port}").geturl()


class Udp(Protocol):
    """BEP 15."""

    name = "UDP"
    subcommand = "udp"
    scheme = "udp"

    def configuration(self, family: Family, address: str) -> Configuration:
        key = "address_ipv4" if family is Family.IPV4 else "address_ipv6"
        network: dict[str, str | int | bool] = {
            "use_ipv4": family is Family.IPV4,
            "use_ipv6": family is Family.IPV6,
            key: f"{family.authority(address)}:0",
        }
        return {"network": network}

    def probe(self, host: Host, announce_url: str) -> Probe:
        return UdpProbe(host, announce_url)


UDP = Udp()


class UdpProbe(Probe):
    """Connects, scrapes and announces over UDP, once per question."""

    PROTOCOL_ID = 0x0417_2710_1980
    CONNECT, ANNOUNCE, SCRAPE, ERROR = range(4)
    STOPPED = 3
    ATTEMPTS = 20
    ATTEMPT_SECONDS = 0.5

    def __init__(self, host: Host, announce_url: str) -> None:
        url = urlsplit(announce_url)
        self._host = host
        self._address = (url.hostname, url.port)
        self._family = socket.AF_INET6 if ":" in (url.hostname or "") else socket.AF_INET

    def seeders(self, info_hash: bytes) -> int:
        action, body = self._ask(self.SCRAPE, info_hash)
        if action != self.SCRAPE or len(body) != 12:
            raise Failure(f"the tracker answered a scrape with action {action}: {body!r}")
        return struct.unpack(">I", body[:4])[0]

    def refusal(self, info_hash: bytes) -> str:
        # A stopping peer: even if the tracker accepts it, it does not become part of the swarm.
        fields = struct.pack(">20s20sQQQIIIiH", info_hash, os.urandom(20), 0, 1, 0, self.STOPPED, 0, 0, -1, 6881)
        action, body = self._ask(self.ANNOUNCE, fields)
        if action != self.ERROR:
            raise Failure(f"the tracker answered the announce of a refused torrent with action {action}: {body!r}")
        return body.decode(errors="replace")

    def _ask(self, action: int, fields: bytes) -> tuple[int, bytes]:
        with self._host.socket(self._family, socket.SOCK_DGRAM) as client:
            client.settimeout(self.ATTEMPT_SECONDS)
            client.connect(self._address)
            _, connection_id = self._exchange(client, self.PROTOCOL_ID.to_bytes(8, "big"), self.CONNECT, b"")
            return self._exchange(client, connection_id, action, fields)

    def _exchange(self, client: socket.socket, prefix: bytes, action: int, fields: bytes) -> tuple[int, bytes]:
        for _ in range(self.ATTEMPTS):
            transaction_id = os.urandom(4)
            # The system reports a port nobody listens on with the next call on the socket.
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                client.send(prefix + struct.pack(">I", action) + transaction_id + fields)
                reply = client.recv(2048)
                if reply[4:8] == transaction_id:
                    return int.from_bytes(reply[:4], "big"), reply[8:]
        raise Failure("the tracker does not answer")
