"""Tar archives of which the same content gives the same bytes."""

import gzip
import io
import tarfile
from pathlib import Path

GZIP_LEVEL = 9


def pack(root: Path, epoch: int, prefix: str = "", owned: dict[str, int] | None = None) -> bytes:
    """An archive of all that is below a directory, in the order of the names, with one time for everything.

    `prefix` is put before each name. Everything belongs to root, except the directories that `owned` gives to a
    user and its group by number.
    """
    owners = owned or {}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            info = archive.gettarinfo(path, arcname=prefix + name)
            info.uid = info.gid = owners.get(name, 0)
            info.uname = info.gname = ""
            info.mtime = epoch
            # Copies with the same content must not become links to each other.
            if info.islnk():
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
            if info.isreg():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    return buffer.getvalue()


def compress(content: bytes) -> bytes:
    return gzip.compress(content, GZIP_LEVEL, mtime=0)
