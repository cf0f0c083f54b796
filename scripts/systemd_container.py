"""A container with systemd as its first process, above the file system of this machine.

Needs root and systemd-nspawn (Debian's package systemd-container). What is written in the container goes to an overlay
that is thrown away; its network is its own. Control groups are of version 2, whatever this machine uses.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

BOOT = 30.0
"""Longest time until systemd has started, in seconds."""

STARTED = {"running", "degraded"}
"""States of systemd after its start; in the latter some unit of this machine does not start in a container."""

NOT_RUN = 3
"""Exit code of a program that has found no fault, but cannot check everything on this machine."""

ENTER_GROUP = """
umount -R -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
echo $$ > "/sys/fs/cgroup/$0/cgroup.procs"
exec "$@"
"""
"""Runs a command in a mount namespace where control groups are of version 2, in the group $0."""


class Broken(Exception):
    """Something that must hold does not."""


class Unavailable(Exception):
    """This machine cannot run the container."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


class Container:
    """A running container; commands are run in it as root."""

    def __init__(self, init: int) -> None:
        self.init = init

    def run(self, *command: str, text: str = "") -> str:
        done = subprocess.run(
            ["nsenter", "--target", str(self.init), "--all", *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout + done.stderr

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "aquatic", "--property", name, "--value").strip()

    def status(self, field: str) -> str:
        """A field of the tracker's status in /proc."""
        match = re.search(rf"^{field}:\s+(\S+)", self.run("cat", f"/proc/{self.show('MainPID')}/status"), re.MULTILINE)
        check(match is not None, f"the tracker has no {field}")
        assert match
        return match[1]

    def signal(self, name: str) -> None:
        self.run("kill", f"-{name}", self.show("MainPID"))

    def journal(self) -> str:
        return self.run("journalctl", "--unit", "aquatic", "--no-pager", "--output", "cat")


def wait_for(what: str, holds: Callable[[], bool], seconds: float) -> float:
    begin = time.monotonic()
    while not holds():
        check(time.monotonic() - begin < seconds, f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - begin


@contextlib.contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[None]:
    """A directory where something is mounted meanwhile."""
    path.mkdir()
    if subprocess.run(["mount", *arguments, path], check=False).returncode != 0:
        raise Unavailable(f"this machine does not allow: mount {' '.join(arguments)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def control_group(groups: Path, name: str) -> Iterator[None]:
    """Makes a control group of version 2, and removes it with all below it."""
    group = groups / name
    group.mkdir()
    try:
        yield
    finally:
        with contextlib.suppress(Broken):
            wait_for("the end", lambda: "populated 0" in (group / "cgroup.events").read_text(), BOOT)
        # Deepest first.
        for path in [*sorted(group.rglob("*/"), reverse=True), group]:
            path.rmdir()


@contextlib.contextmanager
def container(read_only: dict[Path, str]) -> Iterator[Container]:
    """Starts a container in which files and directories of this machine are at other places, too."""
    if shutil.which("systemd-nspawn") is None:
        raise Unavailable("systemd-nspawn is missing: apt-get install systemd-container")
    name = f"aquatic-test-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aquatic-container-")))
        root, groups = directory / "root", directory / "groups"
        stack.enter_context(mounted(root, "--bind", "/"))
        stack.enter_context(mounted(groups, "-t", "cgroup2", "none"))
        stack.enter_context(control_group(groups, name))
        command = [
            *("unshare", "--mount", "sh", "-ec", ENTER_GROUP, name),
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--volatile=overlay",
            "--private-network",
            "--console=pipe",
            "--boot",
            f"--uuid={uuid.uuid4()}",
            f"--machine={name}",
            f"--directory={root}",
            *(f"--bind-ro={source}:{place}" for source, place in read_only.items()),
            # Calls that containers do not have by default.
            "--system-call-filter=io_uring_setup io_uring_enter io_uring_register",
            "--",
            "systemd.unit=basic.target",
        ]
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        inside = None
        try:
            inside = until_started(process)
            yield inside
        finally:
            if inside is not None:
                # The first process of the container; with it, all others end.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(inside.init, 9)
            # It has ended already if systemd did not start.
            if process.returncode is None:
                process.terminate()
                process.communicate()


def until_started(process: subprocess.Popen[bytes]) -> Container:
    deadline = time.monotonic() + BOOT
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Container(int(children[0])).run("systemctl", "is-system-running").strip() in STARTED:
            return Container(int(children[0]))
        time.sleep(0.2)
    process.terminate()
    output = process.communicate()[0].decode(errors="replace")
    raise Unavailable(f"systemd does not start in a container: {output[-500:]}")
