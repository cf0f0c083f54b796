"""The table: what is tried. A module per protocol, each with its lines in order."""

from ..row import Row
from . import http, udp, webtorrent


def all_rows() -> list[Row]:
    """All lines of the table; a line's number is its place."""
    return [*udp.rows(), *http.rows(), *webtorrent.rows()]
