"""Runs one row."""

import contextlib
import http.client
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .clients.base import Client, Torrent
from .hosts import LEECHER, SEEDER, TRACKER, Failure, create_hosts
from .protocols import Probe
from .rows import Row
from .torrent import Payload, sha256_of
from .tracker import AccessList, AccessMode, Tracker

ROW_SECONDS = 60.0
"""After this long a row has failed; most need a few seconds."""
POLL_SECONDS = 0.1
REFUSED_SECONDS = 2.0
"""How long a refused torrent is watched for bytes after both clients have shown the refusal."""
LOG_LINES = 15

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Outcome:
    """How a row ended."""

    row: Row
    seconds: float
    failure: str | None
    """None if the row passed."""
    directory: Path
    logs: str = ""
    """The ends of all logs if the row failed."""
    earlier: str | None = None
    """Why a first attempt failed."""


@dataclass(frozen=True)
class Plan:
    """The torrents of a row and what is expected of them."""

    admitted: list[Payload]
    refused: list[Payload]
    access_list: AccessList | None

    @classmethod
    def of(cls, row: Row) -> "Plan":
        """Makes the payloads a row needs."""
        if row.access is None:
            return cls([Payload.random("file")], [], None)
        listed, unlisted = Payload.random("listed"), Payload.random("unlisted")
        access_list = AccessList(row.access, (listed.info_hash,))
        if row.access is AccessMode.ALLOW:
            return cls([listed], [unlisted], access_list)
        return cls([unlisted], [listed], access_list)


class Runner:
    """What all rows of a run have in common."""

    def __init__(self, binary: Path, directory: Path, keep: bool, stopping: threading.Event) -> None:
        self._binary = binary
        self._directory = directory
        self._keep = keep
        self._stopping = stopping

    def run(self, row: Row, attempt: int = 1) -> Outcome:
        """Runs a row to its end; nothing it started is left when this returns."""
        name = "".join(c if c.isalnum() else "-" for c in row.name)
        directory = self._directory / f"{name}-{attempt}"
        directory.mkdir()
        started = time.monotonic()
        failure = None
        logs = ""
        try:
            _Experiment(row, self._binary, directory, started + ROW_SECONDS, self._stopping).run()
        except Failure as error:
            failure, logs = str(error), _ends_of_logs(directory)
        except Exception as error:  # A fault of this program must not cost the results of the other rows.
            failure, logs = repr(error), traceback.format_exc() + _ends_of_logs(directory)
        seconds = time.monotonic() - started
        if failure is None and not self._keep:
            shutil.rmtree(directory)
        return Outcome(row, seconds, failure, directory, logs)


class _Experiment:
    """One run of one row."""

    def __init__(self, row: Row, binary: Path, directory: Path, deadline: float, stopping: threading.Event) -> None:
        self._row = row
        self._binary = binary
        self._directory = directory
        self._deadline = deadline
        self._stopping = stopping
        self._plan = Plan.of(row)
        self._tracker: Tracker | None = None
        self._clients: list[Client] = []

    def run(self) -> None:
        """Returns if the row passed, raises `Failure` if not."""
        for client in (self._row.seeder, self._row.leecher):
            if (package := client.missing_package()) is not None:
                raise Failure(f"{client.name} is not installed (apt-get install {package})")
        with contextlib.ExitStack() as stack:
            hosts = create_hosts(stack, self._directory, self._row.family)
            protocol = self._row.protocol
            tracker = Tracker(self._binary, protocol, hosts[TRACKER], self._row.family, self._plan.access_list)
            stack.callback(tracker.process.stop)
            self._tracker = tracker
            url = self._wait("the tracker to log its announce URL", tracker.announce_url)
            probe = protocol.probe(hosts[TRACKER], url)
            torrents = self._write_torrents(protocol.prepare(stack, hosts[TRACKER], url))

            seeder = self._row.seeder(hosts[SEEDER], self._row.family)
            for torrent in torrents:
                (seeder.data / torrent.payload.name).write_bytes(torrent.payload.content)
            self._start(stack, seeder, torrents)
            self._wait_for_seeder(probe)
            leecher = self._row.leecher(hosts[LEECHER], self._row.family)
            self._start(stack, leecher, torrents)
            self._wait_for_files(leecher)
            self._check_refused(probe, seeder, leecher, torrents)
            tracker.stop()

    def _write_torrents(self, announce_url: str) -> list[Torrent]:
        torrents = []
        for payload in self._plan.admitted + self._plan.refused:
            file = self._directory / f"{payload.name}.torrent"
            payload.write_torrent(file, announce_url)
            torrents.append(Torrent(payload, file))
        return torrents

    def _start(self, stack: contextlib.ExitStack, client: Client, torrents: list[Torrent]) -> None:
        stack.callback(client.stop)
        client.start(torrents)
        self._clients.append(client)

    def _wait_for_seeder(self, probe: Probe) -> None:
        for payload in self._plan.admitted:
            what = f"the seeder's announce of '{payload.name}' to show in the tracker's counts"
            self._wait(what, lambda: probe.seeders(payload.info_hash) or None)

    def _wait_for_files(self, leecher: Client) -> None:
        for payload in self._plan.admitted:
            path = leecher.data / payload.name
            self._wait(f"the leecher to receive '{payload.name}'", lambda: sha256_of(path) == payload.sha256 or None)

    def _check_refused(self, probe: Probe, seeder: Client, leecher: Client, torrents: list[Torrent]) -> None:
        """Both clients must show exactly the text that the tracker refuses the torrent with, and nothing may arrive."""
        refused = [torrent for torrent in torrents if torrent.payload in self._plan.refused]
        for torrent in refused:
            text = probe.refusal(torrent.payload.info_hash)
            for client in (seeder, leecher):
                self._wait_for_message(client, torrent, client.refusal_as_shown(text, self._row.protocol))
        if refused:
            time.sleep(REFUSED_SECONDS)
        for torrent in refused:
            if _has_content(leecher.data / torrent.payload.name):
                raise Failure(f"'{torrent.payload.name}' is refused by the tracker, yet the leecher received data")

    def _wait_for_message(self, client: Client, torrent: Torrent, text: str) -> None:
        seen: set[str] = set()

        def shows_text() -> bool | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if message := client.tracker_message(torrent):
                    seen.add(message)
            return any(text in message for message in seen) or None

        who = f"the {client.host.name} ({client.name})"
        what = f"{who} to show '{text}' as the tracker's answer for '{torrent.payload.name}'"
        try:
            self._wait(what, shows_text)
        except Failure as failure:
            raise Failure(f"{failure}; it showed {sorted(seen) or 'none'}") from None

    def _wait(self, what: str, question: Callable[[], Answer | None]) -> Answer:
        """Asks until there is an answer, for as long as the row may take and its processes run."""
        while (answer := question()) is None:
            if self._stopping.wait(POLL_SECONDS):
                raise Failure("interrupted")
            if time.monotonic() > self._deadline:
                raise Failure(f"waited in vain for {what}")
            if self._tracker is not None:
                self._tracker.check_alive()
            for client in self._clients:
                client.check_alive()
        return answer


def _has_content(path: Path) -> bool:
    """Whether anything but zeros, which clients may reserve space with, was written to a file or a partial one.

    Other files beside it, such as a client's own notes about a download, do not count.
    """
    candidates = (path, path.with_name(f"{path.name}.part"))
    return any(any(candidate.read_bytes()) for candidate in candidates if candidate.is_file())


def _ends_of_logs(directory: Path) -> str:
    parts = []
    for log in sorted(directory.glob("*/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        parts += [f"--- {log.relative_to(directory)}", *(line[:300] for line in lines)]
    return "\n".join(parts)
