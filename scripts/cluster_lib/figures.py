"""Figures of a cluster: what it costs, and how long things take."""

import json
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cluster_lib.nodes import PORT, Client, Machine, Node, check, run, torrent, until

PAIRS = 9
"""Runs without and with the cluster, in turn."""
SECONDS = 4
"""Duration of such a run."""
CLIENTS = 30_000
"""WebTorrent clients of such a run."""
SAMPLES = 400
"""Announces whose way is timed."""
RESEND = 0.25
"""Seconds after which a client that times announces sends a request again."""
# Nearly every announce is that of a new peer, so that all are published.
NEW_PEERS = ("population.torrents=1000000", "population.peers=20000000", "population.zipf_exponent=0.5")
ANNOUNCES = ("requests.weight_scrape=0", "requests.weight_connect=1", "requests.weight_announce=1000")


def load(node: Node, seconds: int, *settings: str, program: Path | None = None) -> dict[str, Any]:
    """Loads a tracker, and returns the report of the time after the warm-up."""
    with tempfile.NamedTemporaryFile() as report:
        command = [str(program or node.programs.load), "--json", report.name]
        for setting in (f"server_address=127.0.0.1:{PORT}", f"duration={seconds}", *settings):
            command += ["-s", setting]
        run(*node.entering(), *command)
        phases = json.loads(Path(report.name).read_text())["phases"]
    return next(phase for phase in phases if phase["phase"] in {"load", "churn"})


def share(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def processor_time(pid: int) -> dict[str, float]:
    """Processor time of each thread so far, in seconds, by name."""
    times: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile.
        with suppress(FileNotFoundError):
            name = (task / "comm").read_text().strip()
            times[name] = times.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return times


# --- Cost of publishing -----------------------------------------------------------------------------------------------


class Cost:
    """What a node spends on its responses, all of it on one processor."""

    def __init__(self, report: dict[str, Any], used: dict[str, float], published: float) -> None:
        answered = sum(kind["answered"] for kind in report["kinds"]) or 1
        self.rate = float(report["responses_per_second"])
        self.idle = float(report["idle_share"])
        self.time = sum(used.values()) / answered * 1e6
        self.thread = used.get("aquatic-cluster", 0.0) / answered * 1e6
        self.published = published / answered


def cost(node: Node, is_in_cluster: bool, program: Path | None, settings: tuple[str, ...]) -> Cost:
    node.outside = not is_in_cluster
    node.start()
    node.outside = False
    if is_in_cluster:
        until("it is complete", node.is_complete)
    pid = node.tracker.pid if node.tracker else 0
    # The numbers are those of the whole run, the warm-up included; the report is that of its end.
    before, published = processor_time(pid), node.metric("aquatic_cluster_changes_published_total")
    report = load(node, SECONDS, "warm_up=0", *settings, program=program)
    used = {name: time_used - before.get(name, 0.0) for name, time_used in processor_time(pid).items()}
    time.sleep(1)
    changes = (node.metric("aquatic_cluster_changes_published_total") or 0) - (published or 0)
    node.stop()
    return Cost(report, used, changes)


def compared(name: str, node: Node, settings: tuple[str, ...], program: Path | None = None) -> str:
    """What publishing costs, as the median of several pairs of runs, one after the other."""
    pairs = [(cost(node, False, program, settings), cost(node, True, program, settings)) for _ in range(PAIRS)]

    def median(value: Callable[[Cost, Cost], float]) -> float:
        return statistics.median(value(*pair) for pair in pairs)

    ratios = [within.rate / alone.rate for alone, within in pairs]
    times = [within.time / alone.time for alone, within in pairs]
    return (
        f"{name}: {median(lambda alone, _: alone.rate):.0f} responses/s alone, "
        f"{median(lambda _, within: within.rate):.0f} in a cluster: ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}); "
        f"processor time per response {median(lambda alone, _: alone.time):.3f} and "
        f"{median(lambda _, within: within.time):.3f} us, ratio {statistics.median(times):.3f} ({min(times):.3f} to "
        f"{max(times):.3f}), of which {median(lambda _, within: within.thread):.3f} us of the cluster's thread; "
        f"{median(lambda _, within: within.published):.2f} changes per response; "
        f"the load test was idle for {median(lambda _, within: within.idle):.0%}"
    )


def costs(machine: Machine) -> Iterator[str]:
    """One node that publishes to its NATS server, which is on the processor of the load test."""
    node = machine.nodes[0]
    node.processors = (0, 1)
    node.settings = ["workers=1", "limits.max_peers_per_address=1000000"]
    node.start_nats(False)
    yield compared("each announce of a new peer", node, ("closed.window=256", *NEW_PEERS, *ANNOUNCES))
    node.processors = None


def webtorrent(machine: Machine) -> Iterator[str]:
    """The same of WebTorrent clients that come and go, and what it costs another node to know of them."""
    first, second = machine.nodes[:2]
    for node in (first, second):
        node.settings = ["workers=1", "connections.max_connections_per_address=0"]
    first.processors = (0, 1)
    first.start_nats(False)
    program = first.programs.load.with_name("aquatic_ws_load_test")
    clients = ("connections.count=500", "population.torrents=1000", "churn.leave=close", "requests.offers=0")
    churn = (*clients, f"churn.connections={CLIENTS}")
    yield compared("WebTorrent clients that come, announce and leave", first, churn, program)
    for node in (first, second):
        node.start()
    for node in (first, second):
        until("it hears the other", partial(node.hears, 2))
        until("it is complete", node.is_complete)
    pid = second.tracker.pid if second.tracker else 0
    before, applied = processor_time(pid), second.metric("aquatic_cluster_changes_applied_total", "webtorrent") or 0
    begin = time.monotonic()
    load(first, SECONDS, "warm_up=0", *churn, program=program)
    time.sleep(1)
    took = time.monotonic() - begin
    used = processor_time(pid)
    idle_begin = time.monotonic()
    time.sleep(3)
    idle = sum(processor_time(pid).values()) - sum(used.values())
    idle *= took / (time.monotonic() - idle_begin)
    changes = (second.metric("aquatic_cluster_changes_applied_total", "webtorrent") or 0) - applied
    time_used = sum(used.values()) - sum(before.values()) - idle
    thread = used.get("aquatic-cluster", 0.0) - before.get("aquatic-cluster", 0.0)
    yield (
        f"another node applies {changes:.0f} changes in {time_used:.2f} s of its threads ({thread:.2f} s of the "
        f"cluster's), idle time deducted: {time_used / max(changes, 1) * 1e6:.2f} us per change"
    )
    first.processors = None


# --- Time until another node knows ------------------------------------------------------------------------------------


class Probe(Client):
    """A client that sends a request again soon, and notes that it did."""

    def __init__(self, node: Node, seed: int) -> None:
        self.resent = 0
        super().__init__(node.namespace, ("127.0.0.1", PORT), seed)
        self.socket.settimeout(RESEND)


def latency(machine: Machine, nodes: int, rate: int) -> str:
    """Time from an announce at one node to being handed out by another, while many more are announced."""
    a, b = machine.nodes[0], machine.nodes[nodes - 1]

    def counts() -> list[float]:
        sent = a.metric("aquatic_cluster_traffic_bytes_total", "sent") or 0
        applied = sum(node.metric("aquatic_cluster_changes_applied_total") or 0 for node in machine.nodes[1:nodes])
        gaps = sum(node.metric("aquatic_cluster_gaps_total") or 0 for node in machine.nodes[1:nodes])
        return [a.metric("aquatic_cluster_changes_published_total") or 0, sent, applied, gaps]

    settings = ("mode=open", f"open.rate={rate}", "warm_up=1", "requests.peers_wanted=0", *NEW_PEERS, *ANNOUNCES)
    seed = f"population.seed={rate}"
    before, begun = counts(), time.monotonic()
    report: list[dict[str, Any]] = []
    loading = threading.Thread(target=lambda: report.append(load(a, 25, *settings, seed)))
    loading.start()
    time.sleep(4)
    at_a, at_b = Probe(a, 1), Probe(b, 2)
    times: list[float] = []
    chance = random.Random(rate)
    while loading.is_alive() and len(times) < SAMPLES:
        wanted = torrent(rate * 1000 + len(times))
        begin = time.monotonic()
        at_a.announce(wanted)
        while at_b.scrape(wanted)[2] == 0:
            time.sleep(0.0005)
        times.append((time.monotonic() - begin) * 1000)
        # Not in step with what is published.
        time.sleep(chance.uniform(0, 0.05))
    loading.join()
    took = time.monotonic() - begun
    time.sleep(3)
    published, sent, applied, gaps = (after - first for after, first in zip(counts(), before, strict=True))
    check(bool(times), "no announce was timed")
    return (
        f"{nodes} nodes, {rate} announces/s wanted, {report[0]['responses_per_second']:.0f} answered, "
        f"{published / took:.0f} published: p50 {statistics.median(times):.1f} ms, p99 {share(times, 0.99):.1f} ms, "
        f"longest {max(times):.1f} ms of {len(times)}; {sent / max(published, 1):.1f} bytes per change; {gaps:.0f} "
        f"gaps; {applied / max(published * (nodes - 1), 1):.3f} of the changes applied"
    )


def latencies(machine: Machine, nodes: int, rates: list[int]) -> Iterator[str]:
    """All nodes have one core, and a NATS server each if there are three."""
    for node in machine.nodes[:nodes]:
        node.settings = ["workers=1", "limits.max_peers_per_address=1000000"]
        if nodes > 2 or node is machine.nodes[0]:
            node.start_nats(nodes > 2)
    for node in machine.nodes[:nodes]:
        node.start()
    for node in machine.nodes[:nodes]:
        until("it hears the others", partial(node.hears, nodes))
        until("it is complete", node.is_complete)
    for rate in rates:
        yield latency(machine, nodes, rate)


# --- Joining ----------------------------------------------------------------------------------------------------------


def join(machine: Machine, peers: int) -> Iterator[str]:
    """Time until a node that starts has what another one knows."""
    first, second = machine.nodes[:2]
    for node in (first, second):
        node.settings = ["workers=1", "limits.max_peers_per_address=1000000"]
    first.start_nats(False)
    first.start()
    until("it is complete", first.is_complete)
    population = (f"population.torrents={peers * 2 // 5}", f"population.peers={peers}")
    load(first, 1, *population, "prefill.enable=true", "warm_up=1", "mode=open", "open.rate=100")
    known = first.metric("aquatic_peers") or 0
    begin = time.monotonic()
    second.start()
    served = time.monotonic() - begin
    until("it is complete", second.is_complete, 180)
    took = time.monotonic() - begin
    yield (
        f"{second.metric('aquatic_peers'):.0f} of {known:.0f} peers {took:.1f} s after the start of the node, which "
        f"served after {served:.1f} s"
    )


# --- Restarts ---------------------------------------------------------------------------------------------------------


class Mover:
    """A client that announces a torrent after the other, and goes on at another node after a second."""

    def __init__(self, machine: Machine) -> None:
        self.clients = machine.clients()
        self.asked = self.moved = self.unanswered = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        for client in self.clients:
            client.socket.settimeout(1.0)

    def run(self) -> None:
        at = 0
        while not self.stop.is_set():
            self.asked += 1
            for _ in self.clients:
                try:
                    self.clients[at].once(torrent(self.asked))
                    break
                except OSError:
                    self.moved += 1
                    at = (at + 1) % len(self.clients)
            else:
                self.unanswered += 1
            time.sleep(0.002)


@contextmanager
def loaded(node: Node, rate: int, peers: int) -> Iterator[None]:
    """Loads a node meanwhile, whether it serves or not."""
    settings = (f"server_address=127.0.0.1:{PORT}", "duration=3600", "mode=open", f"open.rate={rate}")
    population = (f"population.peers={peers}", f"population.torrents={peers * 2 // 5}")
    command = [str(node.programs.load)]
    for setting in (*settings, *population, *ANNOUNCES):
        command += ["-s", setting]
    process = node.spawn(command, node.directory / f"load-{node.name}.log")
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def restarts(machine: Machine, number: int, rate: int, peers: int = 50_000) -> str:
    """Nodes are restarted in turn while clients announce, some of which move to another node when theirs is away."""
    first = machine.nodes[0]
    population = (f"population.torrents={peers * 2 // 5}", f"population.peers={peers}")
    load(first, 1, *population, "prefill.enable=true", "warm_up=1", "mode=open", "open.rate=100")
    machine.wait_for_peers(peers)
    mover = Mover(machine)
    with loaded(first, rate, peers):
        mover.thread.start()
        try:
            for index in range(number):
                node = machine.nodes[index % len(machine.nodes)]
                node.stop()
                node.start()
                machine.wait_until_complete()
        finally:
            mover.stop.set()
            mover.thread.join()
        time.sleep(3)
        known = [node.metric("aquatic_peers") or 0 for node in machine.nodes]
    wanted = peers + mover.asked
    worst = max(abs(value - wanted) / wanted for value in known)
    check(mover.unanswered == 0, f"{mover.unanswered} requests were answered by no node")
    check(worst <= 0.01, f"the nodes know {known} peers, and should know {wanted}")
    return (
        f"{number} restarts under {rate} announces/s: {mover.asked} requests, {mover.moved} of them asked again at "
        f"another node, none unanswered; the nodes know {[int(value) for value in known]} of {wanted} peers: off by "
        f"{worst:.2%} at most"
    )


# --- Slow consumer ----------------------------------------------------------------------------------------------------


def resident(process: subprocess.Popen[bytes] | None) -> float:
    """Resident memory of a process in MB."""
    text = Path(f"/proc/{process.pid if process else 'self'}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def slow(machine: Machine, rate: int = 50_000, stopped: int = 30) -> Iterator[str]:
    """A node stands still for half a minute while another one publishes, so that NATS ends its connection."""
    a, b = machine.nodes[:2]
    for node in (a, b):
        node.settings = ["workers=1", "limits.max_peers_per_address=1000000"]
    a.start_nats(False)
    for node in (a, b):
        node.start()
    for node in (a, b):
        until("it hears the other", partial(node.hears, 2))
        until("it is complete", node.is_complete)
    settings = ("mode=open", f"open.rate={rate}", "requests.peers_wanted=0", *NEW_PEERS, *ANNOUNCES)
    loading = threading.Thread(target=lambda: load(a, stopped + 10, *settings))
    loading.start()
    time.sleep(4)
    before = resident(a.nats)
    assert b.tracker is not None
    b.tracker.send_signal(signal.SIGSTOP)
    most = 0.0
    begin = time.monotonic()
    while time.monotonic() - begin < stopped:
        most = max(most, resident(a.nats))
        time.sleep(0.5)
    b.tracker.send_signal(signal.SIGCONT)
    loading.join()
    ended = time.monotonic()
    time.sleep(1)
    known = a.metric("aquatic_peers") or 0

    def agree() -> bool:
        return abs((b.metric("aquatic_peers") or 0) - known) <= known / 1000 and b.is_complete()

    until("both know the same peers", agree, 120)
    slow_consumers = (a.directory / f"nats-{a.name}.log").read_text().count("Slow Consumer")
    yield (
        f"{stopped} s without a reader at {rate} announces/s: told {slow_consumers} times by NATS, whose memory grew "
        f"from {before:.0f} to {most:.0f} MB at most; {b.metric('aquatic_cluster_gaps_total') or 0:.0f} gaps; "
        f"{b.metric('aquatic_peers'):.0f} of {known:.0f} peers {time.monotonic() - ended:.1f} s after the load; "
        f"resident memory of the nodes {resident(a.tracker):.0f} and {resident(b.tracker):.0f} MB"
    )
