"""What a row asks of every client program."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..hosts import Failure, Family, Host, Process
from ..protocols import Protocol
from ..torrent import Payload

PEER_PORT = 6881
"""Every client has a host of its own, so all of them can listen on the same port."""
CONTROL_PORT = 9091
"""For clients that are controlled over HTTP on their host's loopback address."""
STOP_SECONDS = 1.0
"""Some clients take long to say goodbye to the tracker; their rows are over by then."""


@dataclass(frozen=True)
class Torrent:
    """A torrent as it is handed to a client."""

    payload: Payload
    file: Path


class Client(ABC):
    """A client program on one host; subclasses know its command line and how to read its state.

    A subclass switches off every source of peers but the tracker (DHT, peer exchange, local discovery), port mapping,
    and transports the row does not need, and keeps all files below the host's directory.
    """

    name: str
    package: str
    """The Debian package to install."""
    programs: tuple[str, ...]
    """What must be in the path."""
    version_command: tuple[str, ...]

    def __init__(self, host: Host, family: Family) -> None:
        self.host = host
        self.family = family
        self.address = host.addresses[family]
        self.data = host.directory / "data"
        self.data.mkdir()
        self.process: Process | None = None

    @abstractmethod
    def start(self, torrents: Sequence[Torrent]) -> None:
        """Starts the program with these torrents; what is in `data` already is seeded, the rest is downloaded."""

    @abstractmethod
    def tracker_message(self, torrent: Torrent) -> str | None:
        """The tracker's last error text for a torrent as this client reports it; None without one."""

    def refusal_as_shown(self, text: str, _protocol: Protocol) -> str:
        """What this client makes of the tracker's error text; only a client that loses the text overrides this."""
        return text

    def stop(self) -> None:
        """Ends the program; a client that was never started is fine."""
        if self.process is not None:
            self.process.stop(STOP_SECONDS)

    def check_alive(self) -> None:
        """A client that ended by itself cannot finish the row."""
        if self.process is not None and (code := self.process.exit_code()) is not None:
            raise Failure(f"the {self.host.name} ({self.name}) ended by itself with exit code {code}")

    def run(self, command: Sequence[str]) -> None:
        """Starts the client program itself."""
        self.process = self.host.start(self.name, command)

    @classmethod
    def missing_package(cls) -> str | None:
        """The package to install if a program of this client is not there."""
        missing = any(shutil.which(program) is None for program in cls.programs)
        return cls.package if missing else None

    @classmethod
    def version(cls) -> str:
        """The first line the program says about its version that has a digit in it."""
        try:
            result = subprocess.run(cls.version_command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"unknown ({error})"
        lines = (result.stdout + result.stderr).splitlines()
        return next((line.strip() for line in lines if any(map(str.isdigit, line))), "unknown")
