"""The table: what is tried. A module per protocol, each with its lines in order."""

from ..case import Case
from . import cluster, everything, http, udp, webtorrent


def all_cases() -> list[Case]:
    """All lines of the table; a line's number is its place."""
    return [*udp.cases(), *http.cases(), *webtorrent.cases(), *everything.cases(), *cluster.cases()]
