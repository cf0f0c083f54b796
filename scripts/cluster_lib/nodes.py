"""Trackers and NATS servers in network namespaces, and clients of theirs."""

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

NODES = ("a", "b", "c")
PREFIX = f"aqc{os.getpid()}"
"""Of namespaces: several runs may go on at the same time."""
PORT, METRICS_PORT, NATS_PORT, ROUTE_PORT = 6969, 9000, 4222, 6222
PATIENCE = 60.0
"""Longest time until something has changed, in seconds."""
TIMEOUT = 2.0
"""Longest wait for a reply, in seconds."""
ATTEMPTS = 10
"""Requests until a reply must have come: packets are lost."""
DELAY, LOSS = "5ms", 5
"""Delay of packets to a node, and how many of a thousand are lost."""
MAGIC = 0x41727101980
CLONE_NEWNET = 0x40000000


class Broken(Exception):
    """Something that must hold does not."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Broken(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


def until(what: str, holds: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Waits until something holds, and returns how long that took."""
    begin = time.monotonic()
    while not holds():
        check(time.monotonic() - begin < patience, f"not within {patience:.0f} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begin


@contextlib.contextmanager
def within(namespace: str) -> Iterator[None]:
    """Sockets that are made meanwhile are in the namespace."""
    with Path("/proc/self/ns/net").open() as own, Path(f"/run/netns/{namespace}").open() as other:
        setns(other.fileno())
        try:
            yield
        finally:
            setns(own.fileno())


def setns(descriptor: int) -> None:
    # os.setns comes with Python 3.12 only.
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """A namespace for each node, and links between them."""

    def __init__(self) -> None:
        self.hub = f"{PREFIX}-hub"
        self.has_netem = True
        self.close()
        run("ip", "netns", "add", self.hub)
        self.in_hub("ip", "link", "add", "bridge", "type", "bridge")
        self.in_hub("ip", "link", "set", "bridge", "up")
        for number, node in enumerate(NODES, 1):
            namespace = f"{PREFIX}-{node}"
            run("ip", "netns", "add", namespace)
            run(
                "ip",
                "-n",
                namespace,
                "link",
                "add",
                "uplink",
                "type",
                "veth",
                "peer",
                "name",
                f"to-{node}",
                "netns",
                self.hub,
            )
            run("ip", "-n", namespace, "address", "add", f"10.79.0.{number}/24", "dev", "uplink")
            for device in ("lo", "uplink"):
                run("ip", "-n", namespace, "link", "set", device, "up")
            self.in_hub("ip", "link", "set", "dev", f"to-{node}", "master", "bridge", "up")
        self.disturb()

    def disturb(self) -> None:
        """Delays and loses packets to each node; only loses some where the kernel has no netem."""
        for node in NODES:
            netem = (
                "tc",
                "qdisc",
                "add",
                "dev",
                f"to-{node}",
                "root",
                "netem",
                "delay",
                DELAY,
                "loss",
                f"{LOSS / 10}%",
            )
            try:
                self.in_hub(*netem)
            except Broken:
                rule = f'iifname "uplink" numgen random mod 1000 < {LOSS} drop'
                table = f"table inet loss {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}"
                run("ip", "netns", "exec", f"{PREFIX}-{node}", "nft", table)
                self.has_netem = False
        print(
            "packets are lost" + (f" and delayed by {DELAY}" if self.has_netem else "; this kernel cannot delay them")
        )

    def in_hub(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.hub, *command)

    def cut(self, node: str, is_cut: bool) -> None:
        self.in_hub("ip", "link", "set", "dev", f"to-{node}", "down" if is_cut else "up")

    def clear(self, node: str) -> None:
        """Neither delays nor loses anything on the way to a node."""
        if self.has_netem:
            self.in_hub("tc", "qdisc", "del", "dev", f"to-{node}", "root")
        else:
            run("ip", "netns", "exec", f"{PREFIX}-{node}", "nft", "flush", "ruleset")

    def close(self) -> None:
        for name in (*(f"{PREFIX}-{node}" for node in NODES), self.hub):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


class Node:
    """A tracker and a NATS server in one namespace."""

    def __init__(self, name: str, programs: "Programs", directory: Path) -> None:
        self.name = name
        self.namespace = f"{PREFIX}-{name}"
        self.address = f"10.79.0.{NODES.index(name) + 1}"
        self.programs = programs
        self.directory = directory
        self.log = directory / f"{name}.log"
        self.tracker: subprocess.Popen[bytes] | None = None
        self.nats: subprocess.Popen[bytes] | None = None
        self.settings: list[str] = []
        self.outside = False
        """Starts without the cluster."""
        self.processors: tuple[int, int] | None = None
        """The one of the tracker, and that of everything else. All of the machine, if there are none."""

    def entering(self, processor: int = 1) -> list[str]:
        """The command that runs another one in the namespace: on the tracker's processor (0), or on the other."""
        pinned = ["taskset", "-c", str(self.processors[processor])] if self.processors else []
        return ["ip", "netns", "exec", self.namespace, *pinned]

    def spawn(self, command: list[str], log: Path, processor: int = 1) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            entering = [*self.entering(processor), *command]
            return subprocess.Popen(entering, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def start_nats(self, is_clustered: bool = True) -> None:
        """Starts the NATS server: as one of three, or alone."""
        routes = ",".join(f"nats://10.79.0.{number}:{ROUTE_PORT}" for number in range(1, len(NODES) + 1))
        arguments = ["-a", "0.0.0.0", "-p", str(NATS_PORT), "-cluster", f"nats://0.0.0.0:{ROUTE_PORT}"]
        naming = ["-cluster_name", "trackers", "-routes", routes, "-n", f"nats-{self.name}"]
        command = [str(self.programs.nats), *(arguments + naming if is_clustered else arguments[:4])]
        self.nats = self.spawn(command, self.directory / f"nats-{self.name}.log")

    def start(self) -> None:
        """Starts the tracker. It uses the NATS server of its own node, or another one."""
        others = [number for number in range(1, len(NODES) + 1) if number != NODES.index(self.name) + 1]
        servers = [self.address, *(f"10.79.0.{number}" for number in others)]
        settings = [
            f"network.address_ipv4=0.0.0.0:{PORT}",
            "network.use_ipv6=false",
            "metrics.enable=true",
            f"metrics.address=127.0.0.1:{METRICS_PORT}",
            f"cluster.servers={json.dumps([f'nats://{server}:{NATS_PORT}' for server in servers])}",
            f"cluster.secret_file={self.directory / 'secret'}",
            f"cluster.node={self.name}",
            *self.settings,
        ]
        command = [str(self.programs.tracker), "all"]
        for setting in settings:
            if not (self.outside and setting.startswith("cluster.")):
                command += ["-s", setting]
        self.tracker = self.spawn(command, self.log, 0)
        serves = "aquatic_responses_total" if self.outside else "aquatic_cluster_nodes"
        until(f"node {self.name} serves", lambda: self.metric(serves) is not None)

    def metrics(self) -> str:
        try:
            with within(self.namespace):
                connection = socket.create_connection(("127.0.0.1", METRICS_PORT), TIMEOUT)
            with connection:
                connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                parts = []
                while part := connection.recv(1 << 16):
                    parts.append(part)
            return b"".join(parts).decode()
        except OSError:
            return ""

    def metric(self, name: str, labels: str = "") -> float | None:
        """Sum of the series of a metric with these labels."""
        pattern = re.compile(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", re.MULTILINE)
        values = [float(value) for found, value in pattern.findall(self.metrics()) if labels in found]
        return sum(values) if values else None

    def hears(self, nodes: int) -> bool:
        """Whether it hears as many nodes, itself included."""
        return self.metric("aquatic_cluster_nodes") == nodes

    def is_complete(self) -> bool:
        """Whether it knows what the others know."""
        return self.metric("aquatic_cluster_complete") == 1

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        end(self.tracker, number)
        self.tracker = None

    def client(self, seed: int = 0) -> "Client":
        return Client(self.namespace, ("127.0.0.1", PORT), seed)


def end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Broken(f"a process did not end after {number.name}") from None


class Programs:
    """Paths of programs."""

    def __init__(self, tracker: Path, nats: Path, load: Path) -> None:
        self.tracker = tracker.resolve()
        self.nats = nats.resolve()
        self.load = load.resolve()


class Client:
    """Client over UDP (BEP 15)."""

    def __init__(self, namespace: str, tracker: tuple[str, int], seed: int) -> None:
        with within(namespace):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(tracker)
        self.random = random.Random(seed)
        self.id = self.connect()

    def exchange(self, action: int, begin: bytes, rest: bytes) -> bytes:
        transaction = self.random.getrandbits(32)
        request = begin + struct.pack(">II", action, transaction) + rest
        for _ in range(ATTEMPTS):
            self.socket.send(request)
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                reply = self.socket.recv(4096)
                if len(reply) >= 8 and struct.unpack_from(">II", reply) == (action, transaction):
                    return reply[8:]
        raise Broken(f"no reply of {self.socket.getpeername()}")

    def connect(self) -> bytes:
        return self.exchange(0, struct.pack(">Q", MAGIC), b"")[:8]

    def announce(self, torrent: bytes, port: int = 1000, left: int = 1, event: int = 0) -> list[tuple[str, int]]:
        peer_id = b"-CL0001-" + struct.pack(">IQ", port, 0)
        rest = struct.pack(">20s20sQQQIIIiH", torrent, peer_id, 0, left, 0, event, 0, 0, -1, port)
        reply = self.exchange(1, self.id, rest)[12:]
        return [
            (socket.inet_ntoa(reply[at : at + 4]), *struct.unpack_from(">H", reply, at + 4))
            for at in range(0, len(reply), 6)
        ]

    def once(self, torrent: bytes) -> None:
        """Announces without trying again."""
        transaction = self.random.getrandbits(32)
        peer_id = b"-CL0001-" + struct.pack(">IQ", 1000, 0)
        rest = struct.pack(">20s20sQQQIIIiH", torrent, peer_id, 0, 1, 0, 0, 0, 0, 0, 1000)
        self.socket.send(self.id + struct.pack(">II", 1, transaction) + rest)
        while struct.unpack_from(">II", self.socket.recv(4096)) != (1, transaction):
            pass

    def counts(self, torrent: bytes, wanted: tuple[int, int, int]) -> bool:
        """Whether a torrent has these numbers of seeders, completed downloads and leechers."""
        return self.scrape(torrent) == wanted

    def scrape(self, torrent: bytes) -> tuple[int, int, int]:
        """Seeders, completed downloads, leechers."""
        seeders, completed, leechers = struct.unpack_from(">III", self.exchange(2, self.id, torrent))
        return (seeders, completed, leechers)


def torrent(number: int) -> bytes:
    return struct.pack(">IQQ", number * 0x9E3779B9 & 0xFFFFFFFF, 7, number)


class Machine:
    """The three nodes."""

    def __init__(self, programs: Programs, directory: Path) -> None:
        self.network = Network()
        secret = directory / "secret"
        secret.write_text("the secret of the three nodes in scripts/cluster\n")
        secret.chmod(0o600)
        self.nodes = [Node(name, programs, directory) for name in NODES]

    def start(self) -> None:
        for node in self.nodes:
            node.start_nats()
        for node in self.nodes:
            node.start()
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        for node in self.nodes:
            until(f"node {node.name} hears all", partial(node.hears, len(NODES)))
            until(f"node {node.name} is complete", node.is_complete)

    def clients(self) -> list[Client]:
        return [node.client() for node in self.nodes]

    def wait_for_peers(self, number: int) -> float:
        def agree() -> bool:
            return all(node.metric("aquatic_peers") == number for node in self.nodes)

        return until(f"all nodes know {number} peers", agree)

    def end_all(self) -> None:
        """Ends all programs."""
        for node in self.nodes:
            end(node.tracker, signal.SIGKILL)
            end(node.nats, signal.SIGKILL)

    def close(self) -> None:
        self.end_all()
        self.network.close()
