"""Bencode, random payloads and the torrent files that describe them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE_BYTES = 64 * 1024
PAYLOAD_BYTES = 3 * 1024 * 1024 + 12_345
"""A few megabytes, and not a multiple of the piece size, so that the last piece is a short one."""

Bencodable = int | str | bytes | list["Bencodable"] | dict[str, "Bencodable"]


def bencode(value: Bencodable) -> bytes:
    """Encodes `value`; text becomes UTF-8 and dictionary keys, which are text, are put in byte order."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l%se" % b"".join(map(bencode, value))
    pairs = sorted((key.encode(), item) for key, item in value.items())
    return b"d%se" % b"".join(bencode(key) + bencode(item) for key, item in pairs)


def bdecode(data: bytes) -> Any:
    """Decodes all of `data`, which must be exactly as the specification has it; else it is a `ValueError`.

    Text and the keys of dictionaries stay bytes.
    """
    try:
        value, end = _bdecode(data, 0)
    except IndexError:
        raise ValueError(f"bencode ends early: {data!r}") from None
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes behind the end of bencode: {data!r}")
    return value


def _bdecode(data: bytes, start: int) -> tuple[Any, int]:
    """The value that begins there, and where it ends."""
    if data[start] in b"0123456789":
        length, start = _bdecode_number(data, start, b":")
        if start + length > len(data):
            raise IndexError
        return data[start : start + length], start + length
    kind, start = data[start : start + 1], start + 1
    if kind == b"i":
        return _bdecode_number(data, start, b"e")
    items = []
    while data[start] != ord("e"):
        item, start = _bdecode(data, start)
        items.append(item)
    if kind == b"l":
        return items, start + 1
    keys, values = items[::2], items[1::2]
    if kind != b"d" or len(keys) != len(values):
        raise ValueError(f"no bencode at {start - 1}: {data!r}")
    if any(not isinstance(key, bytes) for key in keys) or keys != sorted(set(keys)):
        raise ValueError(f"keys are not in order: {keys}")
    return dict(zip(keys, values, strict=True)), start + 1


def _bdecode_number(data: bytes, start: int, end: bytes) -> tuple[int, int]:
    text = data[start : data.index(end, start)]
    number = int(text)
    if b"%d" % number != text:
        raise ValueError(f"no number: {text!r}")
    return number, start + len(text) + 1


@dataclass(frozen=True)
class Payload:
    """A random file and the torrent it makes, independent of any tracker."""

    name: str
    content: bytes
    info: dict[str, Bencodable]

    @classmethod
    def random(cls, name: str) -> "Payload":
        """Makes a payload that no earlier run can have left behind anywhere."""
        content = os.urandom(PAYLOAD_BYTES)
        pieces = b"".join(
            hashlib.sha1(content[start : start + PIECE_BYTES]).digest() for start in range(0, len(content), PIECE_BYTES)
        )
        info: dict[str, Bencodable] = {
            "length": len(content),
            "name": name,
            "piece length": PIECE_BYTES,
            "pieces": pieces,
            # BEP 27: clients must take peers from the tracker only. Each client is told to switch its other sources off
            # as well; the flag covers what a new version of a client may bring along.
            "private": 1,
        }
        return cls(name, content, info)

    @property
    def sha256(self) -> str:
        """The digest the received file must have."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def info_hash(self) -> bytes:
        """The 20 bytes by which tracker and clients know the torrent."""
        return hashlib.sha1(bencode(self.info)).digest()

    def write_torrent(self, path: Path, announce_url: str) -> None:
        """Writes the torrent file with a single tracker."""
        path.write_bytes(bencode({"announce": announce_url, "info": self.info}))


def sha256_of(path: Path) -> str | None:
    """The digest of a file, or None while there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
