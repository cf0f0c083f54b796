"""BEP 15."""

import contextlib
import os
import socket
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

from ..hosts import BRIDGE, Failure, Family, Host
from ..programs import Program
from ..proxies import LOOPBACK
from ..sites import Configuration, Setting, Site
from . import Probe, Protocol, compact_peers, listen


class Udp(Protocol):
    """BEP 15."""

    name = "UDP"
    subcommand = "udp"
    scheme = "udp"

    def configuration(self, site: Site) -> Configuration:
        return {"network": listen(site)}

    def probe(self, site: Site, announce_url: str) -> Probe:
        port = urlsplit(announce_url).port
        assert port is not None
        return UdpProbe(site.host, site.family, (site.address, port))


UDP = Udp()


class Kernel(Program):
    """Linux that lets this program load others into it."""

    name = "Linux"
    package = ""
    version_command = ("uname", "--kernel-release")
    programs = version_command[:1]
    ALL_USERS = 0xFFFF_FFFF
    """Size of the map of user ids where there is no user namespace but the first."""

    @classmethod
    def remedy(cls) -> str | None:
        users = Path("/proc/self/uid_map").read_text().split()
        return None if int(users[2]) == cls.ALL_USERS else "needs root; run this with sudo"


class UdpOverXdp(Udp):
    """BEP 15 by AF_XDP, on the bridge that the clients' hosts are joined by."""

    name = "UDP, AF_XDP"
    METRICS_PORT = 9000

    def programs(self) -> tuple[type[Program], ...]:
        return (Kernel,)

    def configuration(self, site: Site) -> Configuration:
        # A bridge takes programs in generic mode only.
        xdp: dict[str, Setting] = {"xdp_interface": BRIDGE, "xdp_mode": "generic"}
        metrics: dict[str, Setting] = {"enable": True, "address": f"{LOOPBACK}:{self.METRICS_PORT}"}
        return {"network": listen(site) | xdp, "metrics": metrics}

    def responses(self, site: Site) -> int:
        """How many responses the tracker has sent by AF_XDP."""
        connection = site.host.http(self.METRICS_PORT)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("aquatic_xdp_responses_total"))


UDP_OVER_XDP = UdpOverXdp()


class UdpProbe(Probe):
    """Connects, scrapes and announces over UDP, once per question."""

    PROTOCOL_ID = 0x0417_2710_1980
    CONNECT, ANNOUNCE, SCRAPE, ERROR = range(4)
    NONE, STOPPED = 0, 3
    HEAD_BYTES = 12
    """Interval, leechers and seeders, which the peers of a reply follow."""
    PORT = 9
    """What the probe claims to listen on; it is gone again before anyone could try."""
    ATTEMPTS = 20
    ATTEMPT_SECONDS = 0.5

    def __init__(self, host: Host, family: Family, address: tuple[str, int]) -> None:
        self._host = host
        self._family = family
        self._address = address

    def seeders(self, info_hash: bytes) -> int:
        action, body = self._ask(self.SCRAPE, info_hash)
        if action != self.SCRAPE or len(body) != 12:
            raise Failure(f"the tracker answered a scrape with action {action}: {body!r}")
        return struct.unpack(">I", body[:4])[0]

    def refusal(self, info_hash: bytes) -> str:
        # A stopping peer: even if the tracker accepts it, it does not become part of the swarm.
        action, body = self._announce(info_hash, self.STOPPED)
        if action != self.ERROR:
            raise Failure(f"the tracker answered the announce of a refused torrent with action {action}: {body!r}")
        return body.decode(errors="replace")

    def peers(self, info_hash: bytes) -> set[tuple[str, int]] | None:
        action, body = self._announce(info_hash, self.NONE)
        self._announce(info_hash, self.STOPPED)
        if action != self.ANNOUNCE:
            raise Failure(f"the tracker answered an announce with action {action}: {body!r}")
        return set(compact_peers(body[self.HEAD_BYTES :], self._family))

    def _announce(self, info_hash: bytes, event: int) -> tuple[int, bytes]:
        """Announces a peer that has nothing yet."""
        peer_id = b"-FT0000-" + bytes(12)
        numbers = struct.pack(">QQQIIIiH", 0, 1, 0, event, 0, 0, -1, self.PORT)
        return self._ask(self.ANNOUNCE, info_hash + peer_id + numbers)

    def _ask(self, action: int, fields: bytes) -> tuple[int, bytes]:
        family = socket.AF_INET6 if self._family is Family.IPV6 else socket.AF_INET
        with self._host.socket(family, socket.SOCK_DGRAM) as client:
            client.connect(self._address)
            _, connection_id = self._exchange(client, self.PROTOCOL_ID.to_bytes(8, "big"), self.CONNECT, b"")
            return self._exchange(client, connection_id, action, fields)

    def _exchange(self, client: socket.socket, prefix: bytes, action: int, fields: bytes) -> tuple[int, bytes]:
        # One id for all attempts, so that a late reply to any of them will do.
        transaction_id = os.urandom(4)
        for _ in range(self.ATTEMPTS):
            ends = time.monotonic() + self.ATTEMPT_SECONDS
            # The system reports a port nobody listens on with the next call on the socket.
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                client.send(prefix + struct.pack(">I", action) + transaction_id + fields)
                while (left := ends - time.monotonic()) > 0:
                    client.settimeout(left)
                    reply = client.recv(2048)
                    if reply[4:8] == transaction_id:
                        return int.from_bytes(reply[:4], "big"), reply[8:]
            time.sleep(max(0.0, ends - time.monotonic()))
        raise Failure("the tracker does not answer")
