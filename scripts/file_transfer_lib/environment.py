"""The environment of one test case."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .certificates import Certificates
from .clients.base import Client, Torrent
from .hosts import ADDRESSES, TRACKER, TRACKER_NAME, Failure, Family, Host, create_hosts
from .protocols import Probe, Protocol
from .sites import Site
from .torrent import Payload
from .tracker import AccessList, Tracker

POLL_SECONDS = 0.1

Answer = TypeVar("Answer")


class Environment:
    """The hosts of a case, the tracker and the clients on them, and the deadline of the case."""

    site: Site
    url: str
    """The announce URL that clients are given."""
    probe: Probe
    """Asks the tracker directly."""

    def __init__(self, binary: Path, directory: Path, seconds: float, stopping: threading.Event) -> None:
        self.directory = directory
        self.stack = contextlib.ExitStack()
        """Undoes whatever was done for the case."""
        self._binary = binary
        self._deadline = time.monotonic() + seconds
        self._stopping = stopping
        self._tracker: Tracker | None = None
        self._start_tracker: Callable[[], Tracker]
        self._nodes: list[Tracker] = []
        """Further trackers, of the same cluster."""
        self._clients: list[Client] = []

    def open(self, protocol: Protocol, family: Family, access_list: AccessList | None = None) -> None:
        """Creates the hosts, and starts the tracker and what stands before it."""
        hosts = create_hosts(self.stack, self.directory, family)
        certificates = None
        if protocol.encrypted:
            certificates = Certificates.issue(self.directory, TRACKER_NAME, ADDRESSES[TRACKER].values())
        self.site = Site(hosts[TRACKER], hosts, family, certificates)
        for process in protocol.start_before(self.site):
            self.stack.callback(process.stop)
        self._start_tracker = lambda: Tracker(self._binary, protocol, self.site, access_list)
        own_url = self._run_tracker()
        self.url = protocol.prepare(self.stack, self.site, own_url)
        self.probe = protocol.probe(self.site, self.url)

    def add_node(self, protocol: Protocol) -> Probe:
        """Starts another tracker on the host of the first one, and returns a probe that asks it."""
        node = Tracker(self._binary, protocol, self.site, None, f"node-{len(self._nodes) + 2}")
        self.stack.callback(node.process.stop)
        self._nodes.append(node)
        return protocol.probe(self.site, self.wait("another node to log its announce URL", node.announce_url))

    def restart_tracker(self) -> None:
        """Stops the tracker in order and starts it again; it is where it was if its protocol chose the port."""
        assert self._tracker is not None
        tracker, self._tracker = self._tracker, None
        tracker.stop()
        tracker.process.log.rename(tracker.process.log.with_stem("first-tracker"))
        self._run_tracker()

    def _run_tracker(self) -> str:
        tracker = self._start_tracker()
        self.stack.callback(tracker.process.stop)
        self._tracker = tracker
        return self.wait("the tracker to log its announce URL", tracker.announce_url)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """All hosts, by their names."""
        return self.site.hosts

    def client(self, kind: type[Client], host: str) -> Client:
        """A client on a host, which is not started yet."""
        authority = self.site.certificates.authority if self.site.certificates else None
        return kind(self.hosts[host], self.site.family, authority)

    def start(self, client: Client, torrents: Sequence[Torrent]) -> None:
        """Starts a client, which from then on must not end by itself."""
        self.stack.callback(client.stop)
        client.start(torrents)
        self._clients.append(client)

    def torrent(self, payload: Payload, url: str | None = None, host: str | None = None) -> Torrent:
        """Writes the torrent file of a payload, with the tracker of this case; for one host if it has its own URL."""
        directory = self.directory if host is None else self.hosts[host].directory
        file = directory / f"{payload.name}.torrent"
        announce_url = url or self.url
        payload.write_torrent(file, announce_url)
        return Torrent(payload, file, announce_url)

    def wait(self, what: str, question: Callable[[], Answer | None]) -> Answer:
        """Asks until there is an answer, for as long as the case may take and its processes run."""
        while (answer := question()) is None:
            self.pause(POLL_SECONDS)
            if time.monotonic() > self._deadline:
                raise Failure(f"waited in vain for {what}")
        return answer

    def pause(self, seconds: float) -> None:
        """Lets time pass, unless something ends that must not."""
        if self._stopping.wait(seconds):
            raise Failure("interrupted")
        for tracker in self._trackers():
            tracker.check_alive()
        for client in self._clients:
            client.check_alive()

    def close(self) -> None:
        """Ends the tracker of a case that has passed so far: it must have run up to now and must stop in order."""
        for client in self._clients:
            client.conclude()
        for tracker in self._trackers():
            tracker.stop()

    def _trackers(self) -> list[Tracker]:
        return ([] if self._tracker is None else [self._tracker]) + self._nodes
