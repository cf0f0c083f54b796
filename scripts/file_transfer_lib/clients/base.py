"""What a case asks of every client program."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..hosts import Failure, Family, Host, Process
from ..programs import Program
from ..protocols import Protocol
from ..torrent import Payload

PEER_PORT = 6881
"""Every client has a host of its own, so all of them can listen on the same port."""
CONTROL_PORT = 9091
"""For clients that are controlled over HTTP on their host's loopback address."""
STOP_SECONDS = 1.0
"""Some clients take long to say goodbye to the tracker; their cases are over by then."""


@dataclass(frozen=True)
class Torrent:
    """A torrent as it is handed to a client."""

    payload: Payload
    file: Path
    announce_url: str


class Client(Program, ABC):
    """A client program on one host; subclasses know its command line and how to read its state.

    A subclass switches off every source of peers but the tracker (DHT, peer exchange, local discovery), port mapping,
    and transports the case does not need, and keeps all files below the host's directory.
    """

    def __init__(self, host: Host, family: Family, authority: Path | None) -> None:
        """`authority` is whom to trust with the tracker's certificate, and nobody else, if it has one."""
        self.host = host
        self.family = family
        self.authority = authority
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

    def conclude(self) -> None:
        """Looks once more at a case that has passed, while the tracker still runs; may raise `Failure`."""

    def stop(self) -> None:
        """Ends the program; a client that was never started is fine."""
        if self.process is not None:
            self.process.stop(STOP_SECONDS)

    def check_alive(self) -> None:
        """A client that ended by itself cannot finish the case."""
        if self.process is not None and (code := self.process.exit_code()) is not None:
            raise Failure(f"the {self.host.name} ({self.name}) ended by itself with exit code {code}")

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts the client program itself, with additions to its environment."""
        self.process = self.host.start(self.name, command, environment=environment)
