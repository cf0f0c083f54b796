"""What is particular to one tracker protocol: configuration, announce URL, and how to ask the tracker directly.

This module says what a protocol has to offer; the modules beside it hold one protocol each.
"""

import contextlib
import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from urllib.parse import urlsplit

from ..certificates import Openssl
from ..hosts import TRACKER_NAME, Failure, Family, Process
from ..programs import Program
from ..sites import Configuration, Setting, Site


class Probe(ABC):
    """A minimal client of the tracker that takes no part in the transfer."""

    @abstractmethod
    def seeders(self, info_hash: bytes) -> int:
        """How many complete peers the tracker knows for a torrent."""

    @abstractmethod
    def refusal(self, info_hash: bytes) -> str:
        """The error text an announce for this torrent is answered with; it is a `Failure` if the tracker accepts it."""

    def peers(self, _info_hash: bytes) -> set[tuple[str, int]] | None:
        """The addresses and ports the tracker hands out for a torrent; None if the protocol has no such thing."""
        return None


class Protocol(ABC):
    """A protocol, or a scheme of one, as cases of the table need it. It is shared by cases, so it keeps no state."""

    name: str
    subcommand: str
    """What the tracker binary is started with."""
    scheme: str
    """Of the announce URL in the tracker's log."""
    encrypted = False
    """Whether clients have to trust a certificate."""

    def programs(self) -> tuple[type[Program], ...]:
        """What the protocol needs beside the tracker and the clients."""
        return ()

    def all_programs(self) -> tuple[type[Program], ...]:
        """Together with what every encrypted protocol needs."""
        return (*self.programs(), Openssl) if self.encrypted else self.programs()

    @abstractmethod
    def configuration(self, site: Site) -> Configuration:
        """The settings that make the tracker listen on the site's address, on a port of the system's choice."""

    @abstractmethod
    def probe(self, site: Site, announce_url: str) -> Probe:
        """A probe that asks from the tracker's host; the URL is that of the clients."""

    def announced_in(self, log: str) -> str | None:
        """The announce URL the tracker logs for its listener once it listens."""
        found = re.search(rf"\b{self.scheme}://[^\s/]+:[1-9]\d*/announce", log)
        return found.group() if found else None

    def start_before(self, _site: Site) -> list[Process]:
        """Starts what the tracker needs."""
        return []

    def prepare(self, _stack: contextlib.ExitStack, _site: Site, announce_url: str) -> str:
        """Starts what has to stand between the clients and the tracker; returns the URL that clients are given.

        As with public trackers that is a name, which `hosts` resolves, and not an address.
        """
        url = urlsplit(announce_url)
        return url._replace(netloc=f"{TRACKER_NAME}:{url.port}").geturl()


def listen(site: Site, address: str | None = None, family: Family | None = None, port: int = 0) -> dict[str, Setting]:
    """The keys, the same for all protocols, that make the tracker listen on one address, by default the site's, and
    nowhere else."""
    family = family or site.family
    address = address or site.host.addresses[family]
    return {
        "use_ipv4": family is Family.IPV4,
        "use_ipv6": family is Family.IPV6,
        f"address_{family.value.lower()}": f"{family.authority(address)}:{port}",
    }


def compact_peers(peers: bytes, family: Family) -> Iterator[tuple[str, int]]:
    """Reads a list of peers in its compact form: addresses and ports, without anything between them."""
    address_bytes = 4 if family is Family.IPV4 else 16
    entry_bytes = address_bytes + 2
    if len(peers) % entry_bytes != 0:
        raise Failure(f"{len(peers)} bytes are no list of {family.value} peers")
    for start in range(0, len(peers), entry_bytes):
        entry = peers[start : start + entry_bytes]
        address = ipaddress.ip_address(entry[:address_bytes])
        yield str(address), int.from_bytes(entry[address_bytes:], "big")
