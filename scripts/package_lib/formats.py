"""The packages for distributions, and the archive for all others."""

import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from package_lib import image
from package_lib.archive import compress, pack
from package_lib.build import DEBIAN_ARCHITECTURES, REPOSITORY, Release, run
from package_lib.tree import COMPLETIONS, DOCUMENTS, MANUAL, MOVED, PACKAGING, UNITS, link, normalise

REVISION = 1

CHANGELOG = """\
aquatic ({version}) unstable; urgency=medium

  * See CHANGELOG.md for what has changed.

 -- aquatic maintainers <maintainers@aquatic.invalid>  {date}
"""


def only_file(directory: Path, pattern: str) -> bytes:
    (path,) = directory.rglob(pattern)
    return path.read_bytes()


LICENCES = "usr/share/licenses/aquatic"
"""Where Fedora has the licence."""


def from_documents(place: str) -> str:
    """The way from the documents to another file of a package for a distribution."""
    return os.path.relpath(place, DOCUMENTS)


INSTALLED = MOVED | {f"packaging/{source}": from_documents(place) for source, place in UNITS.items()}
"""Places of files where a distribution's package is installed."""


def debian(made: Release, tree: Path) -> tuple[str, bytes]:
    version = f"{made.version}-{REVISION}"
    architecture = DEBIAN_ARCHITECTURES[made.architecture]
    with tempfile.TemporaryDirectory(prefix="aquatic-deb-") as directory:
        sources = Path(directory) / "aquatic"
        shutil.copytree(PACKAGING / "debian", sources / "debian")
        date = format_datetime(datetime.fromtimestamp(made.epoch, UTC))
        (sources / "debian/changelog").write_text(CHANGELOG.format(version=version, date=date))
        shutil.copytree(tree, sources / "tree")
        # Where debhelper puts the list of changes, compressed.
        link(sources / "tree" / DOCUMENTS, INSTALLED | {"CHANGELOG.md": "changelog.gz", "LICENSE": "copyright"})
        # debhelper installs these by itself, each where the release of Debian has it.
        for source, place in UNITS.items():
            kind = {".conf": Path(source).parent.name.removesuffix(".d")}.get(
                Path(source).suffix, Path(source).suffix[1:]
            )
            shutil.move(sources / "tree" / place, sources / f"debian/aquatic.{kind}")
        shutil.rmtree(sources / "tree/usr/lib")
        shutil.move(sources / "tree" / DOCUMENTS / "CHANGELOG.md", sources / "CHANGELOG.md")
        (sources / "tree" / DOCUMENTS / "copyright").unlink()
        environment = {"SOURCE_DATE_EPOCH": str(made.epoch), "DEB_HOST_ARCH": architecture, "TZ": "UTC"}
        run("debian/rules", "binary", cwd=sources, environment=environment)
        return f"aquatic_{version}_{architecture}.deb", only_file(Path(directory), "*.deb")


def rpm(made: Release, tree: Path) -> tuple[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="aquatic-rpm-") as directory:
        copied = Path(directory) / "tree"
        shutil.copytree(tree, copied)
        # Where Fedora has them.
        zsh = copied / COMPLETIONS["zsh"]
        (copied / "usr/share/zsh/site-functions").mkdir()
        shutil.move(zsh, copied / "usr/share/zsh/site-functions/_aquatic")
        zsh.parent.rmdir()
        (copied / DOCUMENTS / "copyright").unlink()
        link(copied / DOCUMENTS, INSTALLED | {"LICENSE": from_documents(f"{LICENCES}/LICENSE")})
        licences = copied / LICENCES
        licences.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "LICENSE", licences / "LICENSE")
        normalise(copied)
        users = (PACKAGING / "sysusers.d/aquatic.conf").read_text().splitlines()
        macros = {
            "_topdir": f"{directory}/build",
            "_buildhost": "localhost",
            "_binary_payload": "w12.zstdio",
            "aquatic_date": datetime.fromtimestamp(made.epoch, UTC).strftime("%a %b %d %Y"),
            "aquatic_user": next(line for line in users if line.startswith("u ")),
            "aquatic_version": made.version,
            "build_mtime_policy": "clamp_to_source_date_epoch",
            "clamp_mtime_to_source_date_epoch": "1",
            "tree": str(copied),
            "use_source_date_epoch_as_buildtime": "1",
        }
        flags = [part for name, value in macros.items() for part in ("--define", f"{name} {value}")]
        environment = {"SOURCE_DATE_EPOCH": str(made.epoch), "TZ": "UTC"}
        specification = PACKAGING / "rpm/aquatic.spec"
        run("rpmbuild", "-bb", "--quiet", "--target", made.architecture, *flags, specification, environment=environment)
        return f"aquatic-{made.version}-{REVISION}.{made.architecture}.rpm", only_file(Path(directory), "*.rpm")


def archive(made: Release, tree: Path) -> tuple[str, bytes]:
    """A directory with everything, to be copied to where it belongs by hand."""
    name = f"aquatic-{made.version}-{made.platform}"
    with tempfile.TemporaryDirectory(prefix="aquatic-tar-") as directory:
        root = Path(directory)
        shutil.copytree(tree / DOCUMENTS, root, dirs_exist_ok=True)
        (root / "copyright").unlink()
        shutil.copyfile(REPOSITORY / "LICENSE", root / "LICENSE")
        shutil.copytree(tree / MANUAL, root / "man1")
        shutil.copyfile(tree / "etc/aquatic/aquatic.toml", root / "aquatic.toml")
        for shell, place in COMPLETIONS.items():
            (root / "completions").mkdir(exist_ok=True)
            shutil.copyfile(tree / place, root / "completions" / {"zsh": "_aquatic"}.get(shell, f"aquatic.{shell}"))
        for source in UNITS:
            (root / source).parent.mkdir(exist_ok=True)
            shutil.copyfile(PACKAGING / source, root / source)
        link(root, MOVED | {f"packaging/{source}": source for source in UNITS})
        normalise(root)
        shutil.copyfile(tree / "usr/bin/aquatic", root / "aquatic")
        (root / "aquatic").chmod(0o755)
        return f"{name}.tar.gz", compress(pack(root, made.epoch, prefix=f"{name}/"))


def oci(made: Release, tree: Path) -> tuple[str, bytes]:
    return f"aquatic-{made.version}-{made.platform}.oci.tar", image.make(made, tree)


KINDS: dict[str, Callable[[Release, Path], tuple[str, bytes]]] = {"deb": debian, "rpm": rpm, "tar": archive, "oci": oci}
