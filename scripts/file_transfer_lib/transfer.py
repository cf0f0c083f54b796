"""The cases in which a file is transferred."""

import contextlib
import http.client
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from .case import Case
from .clients.base import PEER_PORT, Client, Torrent
from .environment import Environment
from .hosts import LEECHER, SEEDER, Failure, Family
from .programs import Program
from .protocols import Probe, Protocol
from .protocols.cluster import NODES, Node
from .protocols.everything import ALL, AllUrl
from .protocols.udp import UDP, UDP_OVER_XDP, UdpOverXdp
from .torrent import Payload, sha256_of
from .tracker import AccessList, AccessMode

REFUSED_SECONDS = 2.0
"""How long a refused torrent is watched for bytes after both clients have shown the refusal."""


@dataclass(frozen=True)
class Transfer(Case):
    """A seeder and a leecher, each on a host of its own.

    Without an access mode a case has one torrent, which must be transferred. With one it has two, of which the first is
    on the access list: the mode decides which of the two must be transferred and which refused.
    """

    seeder: type[Client]
    leecher: type[Client]
    protocol: Protocol = UDP
    family: Family = Family.IPV4
    access: AccessMode | None = None
    restart: bool = False
    """Whether the tracker is started again before the leecher comes, which the seeder has to notice by itself."""

    @property
    def subject(self) -> str:
        return self.seeder.name if self.seeder is self.leecher else f"{self.seeder.name} to {self.leecher.name}"

    @property
    def name(self) -> str:
        access = f", access list {self.access.value}" if self.access else ""
        return super().name + access + (", tracker restarts" if self.restart else "")

    @property
    def cells(self) -> tuple[str, str, str]:
        return (self.seeder.name, self.leecher.name, self.access.value if self.access else "off")

    def programs(self) -> tuple[type[Program], ...]:
        return (self.seeder, self.leecher)

    def run(self, environment: Environment) -> None:
        plan = _Plan.of(self.access)
        environment.open(self.protocol, self.family, plan.access_list)
        torrents = [environment.torrent(payload) for payload in plan.admitted + plan.refused]
        seeder = environment.client(self.seeder, SEEDER)
        for torrent in torrents:
            (seeder.data / torrent.payload.name).write_bytes(torrent.payload.content)
        environment.start(seeder, torrents)
        admitted = [torrent for torrent in torrents if torrent.payload in plan.admitted]
        _wait_for_seeder(environment, seeder, admitted)
        if self.restart:
            environment.restart_tracker()
            _wait_for_seeder(environment, seeder, admitted)
        leecher = environment.client(self.leecher, LEECHER)
        environment.start(leecher, torrents)
        for torrent in admitted:
            _wait_for_file(environment, leecher, torrent)
            _check_addresses(environment, torrent.payload)
        refused = [torrent for torrent in torrents if torrent.payload in plan.refused]
        self._check_refused(environment, (seeder, leecher), refused)

    def _check_refused(self, environment: Environment, clients: tuple[Client, Client], torrents: list[Torrent]) -> None:
        """Both clients must show exactly the text that the tracker refuses the torrent with, and nothing may arrive."""
        for torrent in torrents:
            text = environment.probe.refusal(torrent.payload.info_hash)
            for client in clients:
                _wait_for_message(environment, client, torrent, client.refusal_as_shown(text, self.protocol))
        if torrents:
            environment.pause(REFUSED_SECONDS)
        for torrent in torrents:
            if _has_content(clients[1].data / torrent.payload.name):
                raise Failure(f"'{torrent.payload.name}' is refused by the tracker, yet the leecher received data")


@dataclass(frozen=True)
class MixedTransfer(Transfer):
    """A seeder and a leecher that reach the same tracker by announce URLs of different kinds."""

    protocol: Protocol = ALL
    seeder_url: AllUrl = AllUrl.UDP
    leecher_url: AllUrl = AllUrl.HTTP

    @property
    def subject(self) -> str:
        kinds = (self.seeder_url.value, self.leecher_url.value)
        return " to ".join(f"{client} over {kind}" for client, kind in zip(self._names(), kinds, strict=True))

    @property
    def cells(self) -> tuple[str, str, str]:
        seeder, leecher = self._names()
        return (f"{seeder}, {self.seeder_url.value}", f"{leecher}, {self.leecher_url.value}", "off")

    def _names(self) -> tuple[str, str]:
        return (self.seeder.name, self.leecher.name)

    def run(self, environment: Environment) -> None:
        environment.open(self.protocol, self.family)
        payload = Payload.random("file")
        of_seeder = environment.torrent(payload, self.seeder_url.of_tracker(), SEEDER)
        of_leecher = environment.torrent(payload, self.leecher_url.of_tracker(), LEECHER)
        seeder = environment.client(self.seeder, SEEDER)
        (seeder.data / payload.name).write_bytes(payload.content)
        environment.start(seeder, [of_seeder])
        _wait_for_seeder(environment, seeder, [of_seeder])
        leecher = environment.client(self.leecher, LEECHER)
        environment.start(leecher, [of_leecher])
        _wait_for_file(environment, leecher, of_leecher)
        _check_addresses(environment, payload)


@dataclass(frozen=True)
class ClusterTransfer(MixedTransfer):
    """A seeder and a leecher that use different nodes of a cluster."""

    protocol: Protocol = NODES[0]
    other: Node = NODES[1]
    """The node of the leecher."""

    def run(self, environment: Environment) -> None:
        environment.open(self.protocol, self.family)
        probe = environment.add_node(self.other)
        payload = Payload.random("file")
        of_seeder = environment.torrent(payload, self.seeder_url.of_tracker(), SEEDER)
        of_leecher = environment.torrent(payload, self.leecher_url.of_tracker(self.other.port), LEECHER)
        seeder = environment.client(self.seeder, SEEDER)
        (seeder.data / payload.name).write_bytes(payload.content)
        environment.start(seeder, [of_seeder])
        _wait_for_seeder(environment, seeder, [of_seeder])
        environment.wait("the other node to know the seeder", lambda: probe.seeders(payload.info_hash) or None)
        leecher = environment.client(self.leecher, LEECHER)
        environment.start(leecher, [of_leecher])
        _wait_for_file(environment, leecher, of_leecher)
        for each in (environment.probe, probe):
            _check_addresses(environment, payload, each)


@dataclass(frozen=True)
class XdpTransfer(Transfer):
    """A seeder and a leecher whose requests have to be answered by AF_XDP."""

    LEAST_RESPONSES: ClassVar = 2
    """A connection id and a reply for the leecher; the seeder may come before the queue of the interface is open."""
    protocol: UdpOverXdp = UDP_OVER_XDP

    def run(self, environment: Environment) -> None:
        super().run(environment)
        # The probe asks from the tracker's host, without the interface: these are responses to clients.
        responses = self.protocol.responses(environment.site)
        if responses < self.LEAST_RESPONSES:
            raise Failure(f"clients got {responses} responses by AF_XDP")


@dataclass(frozen=True)
class _Plan:
    """The torrents of a case and what is expected of them."""

    admitted: list[Payload]
    refused: list[Payload]
    access_list: AccessList | None

    @classmethod
    def of(cls, access: AccessMode | None) -> "_Plan":
        """Makes the payloads a case needs."""
        if access is None:
            return cls([Payload.random("file")], [], None)
        listed, unlisted = Payload.random("listed"), Payload.random("unlisted")
        access_list = AccessList(access, (listed.info_hash,))
        if access is AccessMode.ALLOW:
            return cls([listed], [unlisted], access_list)
        return cls([unlisted], [listed], access_list)


def _seeders(environment: Environment, info_hash: bytes) -> int | None:
    """How many seeders the tracker counts; None for none."""
    return environment.probe.seeders(info_hash) or None


def _wait_for_seeder(environment: Environment, seeder: Client, torrents: list[Torrent]) -> None:
    for torrent in torrents:
        seeders = partial(_seeders, environment, torrent.payload.info_hash)
        what = f"the seeder's announce of '{torrent.payload.name}' to show in the tracker's counts"
        try:
            environment.wait(what, seeders)
        except Failure as failure:
            raise Failure(f"{failure}{_complaint(seeder, torrent)}") from None


def _wait_for_file(environment: Environment, leecher: Client, torrent: Torrent) -> None:
    payload = torrent.payload
    path = leecher.data / payload.name
    try:
        environment.wait(f"the leecher to receive '{payload.name}'", lambda: sha256_of(path) == payload.sha256 or None)
    except Failure as failure:
        raise Failure(f"{failure}{_complaint(leecher, torrent)}") from None


def _complaint(client: Client, torrent: Torrent) -> str:
    """What a client has heard from the tracker, to be added to a failure."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        if message := client.tracker_message(torrent):
            return f"; the tracker told the {client.host.name} ({client.name}): {message}"
    return ""


def _check_addresses(environment: Environment, payload: Payload, probe: Probe | None = None) -> None:
    """The tracker must hand out where the two clients are, and nothing else, such as the address of a proxy."""
    probe = probe or environment.probe
    expected = {(environment.hosts[name].addresses[environment.site.family], PEER_PORT) for name in (SEEDER, LEECHER)}
    seen: set[tuple[str, int]] = set()

    def is_right() -> bool | None:
        nonlocal seen
        peers = probe.peers(payload.info_hash)
        seen = seen if peers is None else peers
        return peers is None or peers == expected or None

    try:
        environment.wait(f"the tracker to hand out {sorted(expected)}", is_right)
    except Failure as failure:
        raise Failure(f"{failure}; it hands out {sorted(seen)}") from None


def _wait_for_message(environment: Environment, client: Client, torrent: Torrent, text: str) -> None:
    seen: set[str] = set()

    def shows_text() -> bool | None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if message := client.tracker_message(torrent):
                seen.add(message)
        return any(text in message for message in seen) or None

    who = f"the {client.host.name} ({client.name})"
    what = f"{who} to show '{text}' as the tracker's answer for '{torrent.payload.name}'"
    try:
        environment.wait(what, shows_text)
    except Failure as failure:
        raise Failure(f"{failure}; it showed {sorted(seen) or 'none'}") from None


def _has_content(path: Path) -> bool:
    """Whether anything but zeros, which clients may reserve space with, was written to a file or a partial one.

    Other files beside it, such as a client's own notes about a download, do not count.
    """
    candidates = (path, path.with_name(f"{path.name}.part"))
    return any(any(candidate.read_bytes()) for candidate in candidates if candidate.is_file())
