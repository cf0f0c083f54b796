"""What is known about the tracker of a case before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from .certificates import Certificates
from .hosts import Family, Host

Setting = str | int | bool | list[str]
Configuration = dict[str, dict[str, Setting]]
"""Sections of the tracker's configuration file."""


@dataclass(frozen=True)
class Site:
    """Where the tracker of a case runs, and what may run beside it."""

    host: Host
    """The tracker's own."""
    hosts: Mapping[str, Host]
    """All of the case, by their names."""
    family: Family
    certificates: Certificates | None
    """For the tracker's name and addresses; None unless the protocol is encrypted."""

    @property
    def address(self) -> str:
        """Where clients reach the tracker."""
        return self.host.addresses[self.family]
