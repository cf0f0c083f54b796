"""Files of the packages at the places where distributions want them."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import markdown_links
from package_lib.archive import compress
from package_lib.build import REPOSITORY, CannotPackage, run

PACKAGING = REPOSITORY / "packaging"
STATE = "/var/lib/aquatic"

UNITS = {
    "systemd/aquatic.service": "usr/lib/systemd/system/aquatic.service",
    "systemd/aquatic.socket": "usr/lib/systemd/system/aquatic.socket",
    "sysusers.d/aquatic.conf": "usr/lib/sysusers.d/aquatic.conf",
    "tmpfiles.d/aquatic.conf": "usr/lib/tmpfiles.d/aquatic.conf",
}

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/aquatic",
    "fish": "usr/share/fish/vendor_completions.d/aquatic.fish",
    "zsh": "usr/share/zsh/vendor-completions/_aquatic",
}

DOCUMENTS = "usr/share/doc/aquatic"
MANUAL = "usr/share/man/man1"

EXAMPLES = ("container", "kubernetes", "nftables", "sysctl.d")
"""Directories of packaging/ that no package puts into effect."""

TOP = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "TODO.md")
"""Documents at the top of the repository."""

OF_THE_BOOK = ("architecture.md", "book.toml")
"""Files of docs/ that only make sense to mdbook: its settings, and a page that includes ARCHITECTURE.md."""

MOVED = {
    "docs/architecture.md": "ARCHITECTURE.md",
    **{
        str(path.relative_to(REPOSITORY)): f"examples/{path.name}"
        for directory in EXAMPLES
        for path in (PACKAGING / directory).iterdir()
    },
}
"""Files of the repository that are at other places of all packages, below the documents."""


def configuration(program: Path) -> str:
    """The commented defaults, with a state directory, which only an installed tracker has."""
    text, changes = re.subn(
        r'^state_directory = ""$', f'state_directory = "{STATE}"', run(program, "all", "-p"), flags=re.MULTILINE
    )
    if changes != 1:
        raise CannotPackage("the printed configuration has no empty state_directory")
    return text


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)


def manual(root: Path, program: Path) -> None:
    """Writes the manual pages, compressed."""
    run(program, "man", root)
    for page in sorted(root.iterdir()):
        write(root / f"{page.name}.gz", compress(page.read_bytes()))
        page.unlink()


def documents(root: Path) -> None:
    """Copies what there is to read, with links as they are in the repository."""
    for name in TOP:
        copy(REPOSITORY / name, root / name)
    for path in sorted((REPOSITORY / "docs").rglob("*")):
        if path.is_file() and path.name not in OF_THE_BOOK:
            copy(path, root / path.relative_to(REPOSITORY))
    for directory in EXAMPLES:
        for path in sorted((PACKAGING / directory).iterdir()):
            copy(path, root / "examples" / path.name)


def link(root: Path, moved: Mapping[str, str]) -> None:
    """Changes links of the documents in `root` to where a package has the files. `moved` names places, seen from
    `root`, of files that are elsewhere than in the repository. Links to files that no package has become text."""
    top = Path("/") / DOCUMENTS
    for page in sorted(root.rglob("*.md")):
        directory = page.parent.relative_to(root)

        def place_of(path: str, directory: Path = directory) -> str | None:
            source = os.path.normpath(directory / path)
            if source not in moved and not (root / source).exists():
                return None
            return os.path.relpath(top / moved.get(source, source), top / directory)

        page.write_text(markdown_links.rewrite(page.read_text(), place_of))


def fill(root: Path, program: Path, sbom: bytes) -> None:
    """Writes all files. `program` is stripped, and is run to print configuration, manual pages and completions."""
    copy(program, root / "usr/bin/aquatic")
    for source, place in UNITS.items():
        copy(PACKAGING / source, root / place)
    write(root / "etc/aquatic/aquatic.toml", configuration(program).encode())
    manual(root / MANUAL, program)
    for shell, place in COMPLETIONS.items():
        write(root / place, run(program, "completions", shell).encode())
    documents(root / DOCUMENTS)
    copy(PACKAGING / "debian/copyright", root / DOCUMENTS / "copyright")
    write(root / DOCUMENTS / "sbom.cdx.json", sbom)
    normalise(root)


def normalise(root: Path) -> None:
    """Gives all files the modes that they have in packages, whatever the umask."""
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
