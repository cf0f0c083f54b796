"""Figures of nodes that divide the torrents: what forwarding costs, and how long parts take to move."""

import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from cluster_lib.figures import ANNOUNCES, NEW_PEERS, SAMPLES, Probe, load, processor_time, share
from cluster_lib.nodes import Machine, Node, check, torrent, until

PARTS = 256
"""Parts of the info hashes."""
DROPPED_WITHIN = 200.0
"""Seconds within which a node has dropped the parts that it has given up."""
PROBE = 0.002
"""Seconds between two requests whose longest delay is wanted."""


def held(node: Node) -> float:
    return node.metric("aquatic_cluster_parts", 'state="held"') or 0


def has_received(node: Node) -> bool:
    """Whether it has received the torrents of all parts that it holds."""
    return held(node) > 0 and node.metric("aquatic_cluster_parts", 'state="receiving"') == 0


def wait_for_parts(nodes: list[Node], replicas: int) -> None:
    """Waits until each part is held by as many nodes, and all have received what they hold."""
    for node in nodes:
        until("it hears the others", partial(node.hears, len(nodes)))

    def settled() -> bool:
        parts = [held(node) for node in nodes]
        return sum(parts) == PARTS * replicas and (replicas >= len(nodes) or max(parts) < PARTS)

    until("all parts are held", settled)
    for node in nodes:
        until("it has received its parts", partial(has_received, node))


def divide(nodes: list[Node], replicas: int | None) -> None:
    """Sets the mode of nodes that are to start: one core each, and one NATS server."""
    mode = ["cluster.mode=partition", f"cluster.replicas={replicas}"] if replicas else []
    for node in nodes:
        node.settings = ["workers=1", "limits.max_peers_per_address=1000000", *mode]


class Times:
    """Milliseconds that announces to one node took."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[float] = []

    def __str__(self) -> str:
        if not self.values:
            return f"{self.name} none"
        return (
            f"{self.name} p50 {statistics.median(self.values):.2f} ms, p99 {share(self.values, 0.99):.2f} ms, longest "
            f"{max(self.values):.2f} ms of {len(self.values)}"
        )


def sorted_torrents(node: Node) -> tuple[list[bytes], list[bytes]]:
    """Torrents that a node holds itself, and others, as many of each."""
    client = Probe(node, 7)
    here: list[bytes] = []
    elsewhere: list[bytes] = []

    def answered() -> float:
        return node.metric("aquatic_part_requests_total", 'outcome="answered"') or 0

    before = answered()
    for number in range(10_000, 10_000 + SAMPLES):
        client.announce(torrent(number))
        after = answered()
        (here if after == before else elsewhere).append(torrent(number))
        before = after
    return here, elsewhere


def timed(node: Node, torrents: tuple[list[bytes], list[bytes]], rate: int) -> str:
    """Loads a node, and times announces of torrents that it holds and of others meanwhile."""
    client = Probe(node, 11)
    here, elsewhere = Times("answered here"), Times("forwarded")
    settings = ("mode=open", f"open.rate={rate}", "warm_up=1", "requests.peers_wanted=0", *NEW_PEERS, *ANNOUNCES)
    loading = threading.Thread(target=lambda: load(node, 12, *settings))
    if rate:
        loading.start()
        time.sleep(3)
    for _ in range(2):
        for local, forwarded in zip(*torrents, strict=False):
            for times, wanted in ((here, local), (elsewhere, forwarded)):
                begin = time.monotonic()
                client.announce(wanted)
                times.values.append((time.monotonic() - begin) * 1000)
                time.sleep(0.002)
    if rate:
        loading.join()
    return f"{rate} announces/s meanwhile: {here}; {elsewhere}"


def spent(nodes: list[Node], rate: int) -> str:
    """Processor time of all nodes per announce to the first one."""
    pids = [node.tracker.pid if node.tracker else 0 for node in nodes]
    before = [processor_time(pid) for pid in pids]
    settings = ("mode=open", f"open.rate={rate}", "warm_up=0", *NEW_PEERS, *ANNOUNCES)
    report: dict[str, Any] = load(nodes[0], 10, *settings)
    answered = sum(kind["answered"] for kind in report["kinds"]) or 1
    texts = []
    total = 0.0
    for node, pid, old in zip(nodes, pids, before, strict=True):
        used = {name: used - old.get(name, 0.0) for name, used in processor_time(pid).items()}
        thread, whole = used.get("aquatic-cluster", 0.0), sum(used.values())
        total += whole
        texts.append(f"{node.name} {whole / answered * 1e6:.2f} ({thread / answered * 1e6:.2f} of it in the thread)")
    return f"{answered / 10:.0f} announces/s: {total / answered * 1e6:.2f} us per announce; {', '.join(texts)}"


def forwarding(machine: Machine, rates: list[int]) -> Iterator[str]:
    """Two nodes that hold one half of the parts each, and the same without a division."""
    nodes = machine.nodes[:2]
    for replicas in (None, 1):
        divide(nodes, replicas)
        nodes[0].start_nats(False)
        for node in nodes:
            node.start()
        if replicas:
            wait_for_parts(nodes, replicas)
            torrents = sorted_torrents(nodes[0])
            check(all(torrents), "all torrents are held by one node")
            for rate in (0, *rates):
                yield timed(nodes[0], torrents, rate)
        else:
            for node in nodes:
                until("it hears the other", partial(node.hears, 2))
                until("it is complete", node.is_complete)
        yield f"{'divided' if replicas else 'replicated'}, {spent(nodes, rates[-1])}"
        if replicas:
            outcomes = ("answered", "timeout", "no_holder", "overflow", "not_held", "lost", "served")
            totals = {
                outcome: int(nodes[0].metric("aquatic_part_requests_total", f'outcome="{outcome}"') or 0)
                for outcome in outcomes
            }
            yield f"forwarded requests of {nodes[0].name}: {totals}"
        machine.end_all()


class Watch:
    """Sends requests to a node that need nothing of what it stores, and notes how long they take."""

    def __init__(self, node: Node) -> None:
        self.times = Times(f"connect requests to {node.name}:")
        self.client = Probe(node, 13)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.ended.is_set():
            begin = time.monotonic()
            self.client.connect()
            self.times.values.append((time.monotonic() - begin) * 1000)
            time.sleep(PROBE)

    def end(self) -> Times:
        self.ended.set()
        self.thread.join()
        return self.times


def moving(machine: Machine, peers: int) -> Iterator[str]:
    """A third node joins two that hold everything, and leaves again."""
    nodes = machine.nodes
    divide(nodes, 2)
    first, second, third = nodes
    first.start_nats(False)
    for node in (first, second):
        node.start()
    wait_for_parts([first, second], 2)
    population = (f"population.torrents={peers * 2 // 5}", f"population.peers={peers}")
    load(first, 1, *population, "prefill.enable=true", "warm_up=1", "mode=open", "open.rate=100")
    known = first.metric("aquatic_peers") or 0
    until("the other one has them", lambda: second.metric("aquatic_peers") == known)

    watch = Watch(first)
    begin = time.monotonic()
    third.start()
    until("it holds parts", lambda: 0 < held(third) < PARTS)
    pulling = time.monotonic()
    until("it has received them", partial(has_received, third), 120)
    took, pulled = time.monotonic() - begin, time.monotonic() - pulling
    yield (
        f"a node joins two with {known:.0f} peers: {held(third):.0f} parts with {third.metric('aquatic_peers'):.0f} "
        f"peers {took:.1f} s after its start, {pulled:.1f} s after it has become a holder; {watch.end()}"
    )

    def has_dropped(node: Node) -> bool:
        return (node.metric("aquatic_peers") or 0) < known * held(node) / PARTS * 1.05

    for node in (first, second):
        until("it has dropped the other parts", partial(has_dropped, node), DROPPED_WITHIN)
    watch = Watch(first)
    kept = [node.metric("aquatic_peers") or 0 for node in (first, second)]
    begin = time.monotonic()
    third.stop()
    until("both hold all parts", lambda: held(first) == PARTS and held(second) == PARTS)
    for node in (first, second):
        until("it has received them", partial(has_received, node), 120)
    took = time.monotonic() - begin
    after = [node.metric("aquatic_peers") or 0 for node in (first, second)]
    yield (
        f"it stops: {[int(value) for value in kept]} peers become {[int(value) for value in after]} in {took:.1f} s; "
        f"{watch.end()}"
    )
