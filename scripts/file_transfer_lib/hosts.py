"""The hosts of a case: network namespaces joined by a bridge, and the processes that run in them.

A namespace here has no name: it lives as long as the process that holds it, and with it go its interfaces, routes and
addresses. The kernel kills the holder and every other process started here when the thread that started them ends, so
nothing is left behind even if this program is killed with SIGKILL. The host's own network is not touched.
"""

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .programs import PATH

CLONE_NEWNET = 0x4000_0000
STOP_SECONDS = 5.0
"""How long a program may take to end after SIGTERM before it is killed, unless its starter says otherwise."""


class Family(Enum):
    """The address family a case uses for everything: tracker, clients, transfer."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    def authority(self, address: str) -> str:
        """The address as it is written before a colon and a port."""
        return f"[{address}]" if self is Family.IPV6 else address


class Failure(Exception):
    """Why a case failed, in words for the person who reads the table."""


class Process:
    """A program started by this run, in a process group of its own, with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.name = log.stem
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                # The kernel sends the signal when the starting thread ends; see the module's description.
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the program; the programs that lead up to it replace themselves by it."""
        return self._child.pid

    def exit_code(self) -> int | None:
        """None while the program runs."""
        return self._child.poll()

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """Ends the program and whatever it started, politely first. Returns the exit code."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout)
        self._signal(signal.SIGKILL)
        return self._child.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)


@dataclass(frozen=True)
class Host:
    """One network namespace with one interface and one address per family, and host names of its own."""

    name: str
    holder: int
    """Process id of the process that keeps the namespaces alive."""
    addresses: Mapping[Family, str]
    directory: Path
    """Where programs on this host write their logs and keep their files."""

    def command(self, command: Sequence[str], directory: Path) -> list[str]:
        """The command line that runs `command` on this host, in `directory`."""
        namespaces = [f"--{kind}=/proc/{self.holder}/ns/{file}" for kind, file in (("net", "net"), ("mount", "mnt"))]
        return ["nsenter", *namespaces, f"--wd={directory}", "--", *command]

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """Starts a program on this host; its log is called `name`. It sees neither the user's home nor locale."""
        variables = {"HOME": str(self.directory), "LANG": "C.UTF-8", "PATH": PATH, "TERM": "dumb"}
        variables |= environment or {}
        return Process(self.command(command, self.directory), self.directory / f"{name}.log", variables)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket that belongs to this host, although this program does not run there."""
        with _inside_network_of(self.holder):
            return socket.socket(family, kind)

    def http(self, port: int) -> http.client.HTTPConnection:
        """An HTTP connection to a program that listens on this host's loopback address."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.sock = self.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        connection.sock.connect(("127.0.0.1", port))
        return connection

    def accepted_connections(self) -> int:
        """How many TCP connections the programs on this host have been given so far."""
        lines = Path(f"/proc/{self.holder}/net/snmp").read_text().splitlines()
        names, numbers = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(numbers[names.index("PassiveOpens")])


@contextlib.contextmanager
def _inside_network_of(pid: int) -> Iterator[None]:
    """Moves the calling thread, and no other, into the network namespace of a process for a moment."""
    own_path, other_path = (Path(f"/proc/{task}/ns/net") for task in (threading.get_native_id(), pid))
    with own_path.open("rb") as own, other_path.open("rb") as other:
        _set_network(other.fileno())
        try:
            yield
        finally:
            _set_network(own.fileno())


def _set_network(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


TRACKER, SEEDER, LEECHER = "tracker", "seeder", "leecher"
# Documentation prefixes: clients take them for public addresses, unlike private ones, and nobody else uses them.
ADDRESSES = {
    TRACKER: {Family.IPV4: "198.18.77.1", Family.IPV6: "2001:2:0:77::1"},
    SEEDER: {Family.IPV4: "198.18.77.2", Family.IPV6: "2001:2:0:77::2"},
    LEECHER: {Family.IPV4: "198.18.77.3", Family.IPV6: "2001:2:0:77::3"},
}
TRACKER_NAME = "tracker.test"
# The mounts are private to the holder's mount namespace: the files of this machine stay as they are.
HOLD_SCRIPT = """
for file in hosts resolv.conf; do
    if [ -e /etc/$file ]; then mount --bind ../$file /etc/$file; fi
done
echo held
exec sleep infinity
"""
BRIDGE = "bridge0"
"""The interface of the tracker's host."""
PREFIX_LENGTHS = {Family.IPV4: 24, Family.IPV6: 64}


def create_hosts(stack: contextlib.ExitStack, directory: Path, family: Family) -> dict[str, Host]:
    """Creates the three hosts of a case; they vanish when `stack` closes.

    Hosts have addresses of both families in every case, as some clients need IPv4 for themselves even where all their
    peers are on IPv6. The tracker's name has an address of the case's family only, and so have the peers it tells of.
    """
    names = f"127.0.0.1 localhost\n::1 localhost\n{ADDRESSES[TRACKER][family]} {TRACKER_NAME}\n"
    (directory / "hosts").write_text(names)
    # Nobody answers there, but some clients look up nothing at all, not even in the file of names, without a server.
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    hosts = {}
    for name, addresses in ADDRESSES.items():
        host_directory = directory / name
        host_directory.mkdir()
        holder = _hold_namespaces(stack, host_directory)
        hosts[name] = Host(name, holder, addresses, host_directory)
    tracker = hosts[TRACKER]
    _configure(tracker, [f"link add {BRIDGE} type bridge", *_interface(BRIDGE, tracker)])
    for name in (SEEDER, LEECHER):
        host = hosts[name]
        plug = f"link add to-{name} type veth peer name eth0 netns {host.holder}"
        _configure(tracker, [plug, f"link set to-{name} master {BRIDGE} up"])
        gateways = [f"route add default via {gateway}" for gateway in tracker.addresses.values()]
        # Some clients take a host without a default route to be offline and do not announce.
        _configure(host, [*_interface("eth0", host), *gateways])
    return hosts


def _hold_namespaces(stack: contextlib.ExitStack, directory: Path) -> int:
    """Starts the process that keeps a host's network and mounts alive, and waits until it does."""
    hold = ["unshare", "--net", "--mount", "sh", "-euc", HOLD_SCRIPT]
    command = ["setpriv", "--pdeathsig", "KILL", "--", *hold]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=directory, start_new_session=True)
    stack.callback(holder.wait)
    stack.callback(holder.kill)
    assert holder.stdout is not None
    with holder.stdout as output:
        if output.readline() != b"held\n":
            raise Failure("cannot create a host; see above")
    return holder.pid


def _interface(name: str, host: Host) -> list[str]:
    """The `ip` commands that bring an interface and the loopback up with the host's addresses."""
    commands = ["link set lo up", f"link set {name} up"]
    for family, address in host.addresses.items():
        # Without `nodad` an IPv6 address cannot be used for the first second or two.
        option = " nodad" if family is Family.IPV6 else ""
        commands.append(f"address add {address}/{PREFIX_LENGTHS[family]} dev {name}{option}")
    return commands


def _configure(host: Host, commands: Sequence[str]) -> None:
    result = subprocess.run(
        host.command(["ip", "-batch", "-"], host.directory),
        input="\n".join(commands) + "\n",
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise Failure(f"cannot set up the network of the {host.name}: {result.stderr.strip()}")


def enter_own_namespaces() -> str | None:
    """Makes sure that this process may create hosts, and says what is missing if it may not.

    Root may. Anyone else may inside a user namespace, where the system permits those; the program then starts itself
    again inside one.
    """
    missing = [tool for tool in ("ip", "mount", "nsenter", "setpriv", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"missing programs: {', '.join(missing)} (apt-get install iproute2 mount util-linux)"
    create = ["unshare", "--net", "--mount", "true"]
    attempt = subprocess.run(create, check=False, capture_output=True, text=True)
    if attempt.returncode == 0:
        return None
    if os.geteuid() == 0:
        return f"root may not create network namespaces here, a container needs CAP_SYS_ADMIN: {attempt.stderr.strip()}"
    # With a network of its own, as this program must be allowed to return to where it was; see `_inside_network_of`.
    as_root = ["unshare", "--user", "--map-root-user", "--net", "--"]
    if subprocess.run([*as_root, *create], check=False, capture_output=True).returncode != 0:
        return "network namespaces need root, as this system does not give them to other users; run this with sudo"
    sys.stdout.flush()
    os.execvp("unshare", [*as_root, sys.executable, *sys.argv])
