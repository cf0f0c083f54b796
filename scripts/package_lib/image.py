"""The OCI image: the program, the libraries it needs and nothing else, as an archive of an image layout.

The archive also has the list of parts that Docker wants.
"""

import hashlib
import json
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from package_lib.archive import compress, pack
from package_lib.build import OCI_ARCHITECTURES, CannotPackage, Release, run

USER = 65532
"""Number of the user and group that the tracker runs as, which needs no name on the machine."""

STATE = "var/lib/aquatic"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX = "application/vnd.oci.image.index.v1+json"


def libraries(program: Path) -> list[Path]:
    """Files that a dynamic program needs, as this machine has them; none for a static one."""
    headers = run("readelf", "--wide", "--program-headers", "--dynamic", program)
    if "INTERP" not in headers:
        return []
    listed = run("ldd", program)
    paths = re.findall(r"(/\S+) \(0x", listed)
    if not paths or "not found" in listed:
        raise CannotPackage(f"the libraries of {program} are not on this machine:\n{listed}")
    return [Path(path) for path in paths]


def file_system(root: Path, tree: Path) -> None:
    """Fills a directory with the image's files, of the tree that packages for distributions contain."""
    for name in ("usr/bin/aquatic", "etc/aquatic/aquatic.toml", "usr/share/doc/aquatic/copyright"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / name, root / name)
    for library in libraries(tree / "usr/bin/aquatic"):
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    (root / "etc/passwd").write_text(
        f"root:x:0:0:root:/:/sbin/nologin\naquatic:x:{USER}:{USER}::/{STATE}:/sbin/nologin\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\naquatic:x:{USER}:\n")
    if CERTIFICATES.exists():
        (root / "etc/ssl/certs").mkdir(parents=True)
        shutil.copy(CERTIFICATES, root / "etc/ssl/certs/")
    (root / STATE).mkdir(parents=True)
    (root / "tmp").mkdir()
    # Whatever the umask.
    for path in root.rglob("*"):
        runs = path.is_dir() or path.parent.name == "bin" or ".so" in path.name
        path.chmod(0o755 if runs else 0o644)
    (root / STATE).chmod(0o700)
    (root / "tmp").chmod(0o1777)


def configuration(made: Release, created: str, layer: bytes) -> dict[str, Any]:
    return {
        "created": created,
        "architecture": OCI_ARCHITECTURES[made.architecture],
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "ExposedPorts": {"6969/tcp": {}, "6969/udp": {}},
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/aquatic"],
            "Cmd": ["all", "-c", "/etc/aquatic/aquatic.toml"],
            "Volumes": {f"/{STATE}": {}},
            "WorkingDir": f"/{STATE}",
            "Labels": {
                "org.opencontainers.image.title": "aquatic",
                "org.opencontainers.image.description": "BitTorrent tracker for UDP, HTTP and WebTorrent",
                "org.opencontainers.image.version": made.version,
                "org.opencontainers.image.revision": made.commit,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
            "StopSignal": "SIGTERM",
            # Not in the OCI's specification. Docker reads it here, Podman does not. Times are in nanoseconds.
            "Healthcheck": {
                "Test": ["CMD", "/usr/bin/aquatic", "ctl", "status"],
                "Interval": 30 * 10**9,
                "Timeout": 5 * 10**9,
                "StartPeriod": 10 * 10**9,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "created_by": "scripts/package", "comment": "aquatic"}],
    }


class Layout:
    """A directory with the parts of an image, each named by its hash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (root / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def add(self, media_type: str, content: bytes) -> dict[str, Any]:
        """Stores a part and returns what refers to it."""
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def path(self, part: dict[str, Any]) -> str:
        """Path of a part in the archive."""
        return f"blobs/{part['digest'].replace(':', '/')}"

    def add_object(self, media_type: str, content: dict[str, Any]) -> dict[str, Any]:
        return self.add(media_type, json.dumps(content, indent=1).encode())


def make(made: Release, tree: Path) -> bytes:
    """The archive."""
    created = datetime.fromtimestamp(made.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with tempfile.TemporaryDirectory(prefix="aquatic-image-") as directory:
        root = Path(directory) / "root"
        root.mkdir()
        file_system(root, tree)
        layer = pack(root, made.epoch, owned={STATE: USER})
        layout = Layout(Path(directory) / "layout")
        config = layout.add_object(CONFIG, configuration(made, created, layer))
        compressed = layout.add(LAYER, compress(layer))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [compressed],
            "annotations": {"org.opencontainers.image.created": created},
        }
        reference = layout.add_object(MANIFEST, manifest)
        # The reference's name is what `docker load` and `podman load` call the image.
        name = f"localhost/aquatic:{made.version}"
        reference["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": made.version,
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [reference]}
        (layout.root / "index.json").write_text(json.dumps(index, indent=1))
        # Docker loads nothing else, unless its images are stored by containerd.
        legacy = {"Config": layout.path(config), "RepoTags": [name], "Layers": [layout.path(compressed)]}
        (layout.root / "manifest.json").write_text(json.dumps([legacy], indent=1))
        for path in layout.root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return pack(layout.root, made.epoch)
