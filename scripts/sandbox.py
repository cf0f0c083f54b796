"""Namespaces in which a program has the network and the files of a machine to itself."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

NAME = "tracker.example.org"
"""Host name of the tracker in the documentation."""
LIVE = Path("/etc/letsencrypt/live") / NAME
"""Where the documentation has the certificate."""
INSIDE = "SANDBOX_OF"


class Refused(Exception):
    """A command has failed."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command, and returns what it prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise Refused(f"{' '.join(map(str, command))}:\n{done.stdout}")
    return done.stdout


def enter() -> None:
    """Starts this program again in namespaces of its own, unless it runs in them. Needs root."""
    if os.environ.get(INSIDE) == str(os.getppid()):
        return
    if os.geteuid() != 0:
        raise SystemExit("this needs root, for namespaces in which all ports and files are free")
    environment = os.environ | {INSIDE: str(os.getpid())}
    command = ["unshare", "--net", "--mount", "--", sys.executable, *sys.argv]
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


def make_machine(directory: Path, addresses: Iterable[str]) -> Path:
    """Adds addresses to the loopback interface, and replaces what programs write to by copies in `directory`.

    Returns a directory of programs that come before all others.
    """
    run("ip", "link", "set", "lo", "up")
    for address in addresses:
        run("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    etc, programs = directory / "etc", directory / "bin"
    with contextlib.suppress(shutil.Error):
        shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    (etc / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n::1 localhost {NAME}\n")
    run("mount", "--bind", etc, "/etc")
    for writable in ("/run", "/srv", "/var/lib", "/var/log"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", writable)
    programs.mkdir()
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    return programs


def leave_machine() -> None:
    """Makes the directory removable."""
    run("umount", "/etc")


def make_certificate() -> None:
    """A self-signed certificate where the documentation has that of Let's Encrypt."""
    LIVE.mkdir(parents=True, exist_ok=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", LIVE / "privkey.pem")
    names = ("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}")
    run("openssl", "req", "-x509", *key, *names, "-days", "2", "-out", LIVE / "fullchain.pem")


def add_program(programs: Path, name: str, script: str) -> None:
    """Puts a shell script in the place of a program."""
    (programs / name).write_text(f"#!/bin/bash\n{script}")
    (programs / name).chmod(0o755)
