"""The program that packages contain, and the facts that their names and texts are made of."""

import os
import re
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI_ARCHITECTURES = DEBIAN_ARCHITECTURES


class CannotPackage(Exception):
    """Something is missing or wrong; the text says what to do."""


@dataclass(frozen=True)
class Release:
    """What is packaged."""

    version: str
    commit: str
    epoch: int
    """Time of the commit in seconds since 1970, which everything in the packages has."""
    target: str

    @property
    def architecture(self) -> str:
        return self.target.split("-", 1)[0]

    @property
    def platform(self) -> str:
        """The target without its vendor: x86_64-linux-gnu."""
        return self.target.replace("-unknown", "")


def run(*command: str | Path, cwd: Path = REPOSITORY, environment: dict[str, str] | None = None) -> str:
    """Output of a command that must succeed."""
    variables = os.environ | (environment or {})
    try:
        done = subprocess.run(command, cwd=cwd, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError:
        raise CannotPackage(f"{command[0]} is missing; scripts/package --help says what is needed") from None
    if done.returncode != 0:
        raise CannotPackage(f"{' '.join(map(str, command))} ended with code {done.returncode}\n{done.stdout}")
    return done.stdout


def release(target: str | None, version: str | None) -> Release:
    manifest = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
    host = re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.MULTILINE)
    if host is None:
        raise CannotPackage("rustc -vV names no host")
    return Release(
        version=version or manifest["workspace"]["package"]["version"],
        commit=os.environ.get("AQUATIC_COMMIT") or run("git", "rev-parse", "HEAD").strip(),
        epoch=int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct").strip()),
        target=target or host[1],
    )


def by_profile(profile: Path | None) -> list[str]:
    """Flags of the compiler for a build by a profile, if there is one."""
    if profile is None:
        return []
    if not profile.is_file():
        raise CannotPackage(f"{profile} is no profile; make one with scripts/pgo --only-profile")
    return [f"-Cprofile-use={profile.resolve()}"]


def build(made: Release, sources: Path, target_directory: Path, flags: Sequence[str] = ()) -> Path:
    """Builds the program so that neither the place of the sources nor that of the toolchain or the crates is in it."""
    cargo_home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    sysroot = run("rustc", "--print", "sysroot").strip()
    places = {str(sources): "/aquatic", cargo_home: "/cargo", sysroot: "/rust", str(target_directory): "/target"}
    mapping = [f"--remap-path-prefix={place}={name}" for place, name in places.items()]
    for_c = [f"-ffile-prefix-map={place}={name}" for place, name in places.items()]
    environment = {
        "AQUATIC_COMMIT": made.commit,
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join([*mapping, *flags]),
        "CARGO_TARGET_DIR": str(target_directory),
        "CFLAGS": " ".join(for_c),
        "SOURCE_DATE_EPOCH": str(made.epoch),
    }
    command = ["cargo", "build", "--release", "--locked", "--package", "aquatic", "--target", made.target]
    run(*command, cwd=sources, environment=environment)
    return target_directory / made.target / "release/aquatic"


def split(program: Path, into: Path) -> tuple[Path, Path]:
    """The program without, and a file with, its line tables and symbols. Debuggers find the latter by the build id."""
    into.mkdir(parents=True)
    stripped, debug = into / "aquatic", into / "aquatic.debug"
    run("objcopy", "--only-keep-debug", "--compress-debug-sections", program, debug)
    run("objcopy", "--strip-all", "--remove-section=.comment", program, stripped)
    return stripped, debug
