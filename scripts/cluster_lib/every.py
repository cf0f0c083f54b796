"""All figures of a cluster, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lib.division import forwarding, moving
from cluster_lib.figures import costs, join, latencies, slow, webtorrent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_lib.nodes import Machine

FIGURES = ("cost", "webtorrent", "join", "latency2", "latency3", "slow", "forwarding", "moving")
"""What can be measured. Of `latency`, the number is that of the nodes."""


def figures(machine: Machine, names: list[str], peers: int, rates: list[int]) -> None:
    """Prints figures. Packets are neither lost nor delayed."""
    for node in machine.nodes:
        machine.network.clear(node.name)
    measure: dict[str, Callable[[], Iterator[str]]] = {
        "cost": lambda: costs(machine),
        "webtorrent": lambda: webtorrent(machine),
        "join": lambda: join(machine, peers),
        "latency2": lambda: latencies(machine, 2, rates),
        "latency3": lambda: latencies(machine, 3, rates),
        "slow": lambda: slow(machine),
        "forwarding": lambda: forwarding(machine, rates),
        "moving": lambda: moving(machine, min(peers, 1_000_000)),
    }
    for name in names or FIGURES:
        for line in measure[name]():
            print(f"{name}: {line}", flush=True)
        machine.end_all()
