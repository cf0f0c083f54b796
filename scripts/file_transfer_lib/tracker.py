"""The tracker under test."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .hosts import Failure
from .protocols import Protocol
from .sites import Configuration, Setting, Site


class AccessMode(Enum):
    """What being on the access list means; the values are those of the configuration file."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class AccessList:
    """An access list and the torrents on it."""

    mode: AccessMode
    info_hashes: tuple[bytes, ...]


class Tracker:
    """A running tracker process with a configuration file that says no more than the case needs."""

    def __init__(
        self, binary: Path, protocol: Protocol, site: Site, access_list: AccessList | None, name: str = "tracker"
    ) -> None:
        """`name` is that of its files."""
        configuration = protocol.configuration(site)
        if access_list is not None:
            configuration["access_list"] = _write_access_list(access_list, site.host.directory)
        path = site.host.directory / f"{name}.toml"
        path.write_text(_toml(configuration))
        self._protocol = protocol
        self.process = site.host.start(name, [str(binary), protocol.subcommand, "-c", str(path)])

    def announce_url(self) -> str | None:
        """The announce URL from the start-up log, or None while the tracker is not listening yet."""
        return self._protocol.announced_in(self.process.log.read_text(errors="replace"))

    def check_alive(self) -> None:
        """A tracker that ended by itself fails the case, whatever the clients achieved."""
        code = self.process.exit_code()
        if code is not None:
            raise Failure(f"the tracker ended by itself with exit code {code}")

    def stop(self) -> None:
        """Asks the tracker to stop, which it must do in time and with exit code 0."""
        self.check_alive()
        code = self.process.stop()
        if code != 0:
            raise Failure(f"the tracker did not stop cleanly on SIGTERM: exit code {code}")


def _write_access_list(access_list: AccessList, directory: Path) -> dict[str, Setting]:
    path = directory / "access-list.txt"
    path.write_text(_lines(info_hash.hex() for info_hash in access_list.info_hashes))
    return {"mode": access_list.mode.value, "path": str(path)}


def _toml(configuration: Configuration) -> str:
    # JSON strings, numbers, booleans and lists of them are written the same way in TOML.
    sections = (
        _lines([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())])
        for name, section in configuration.items()
    )
    return "\n".join(sections)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
