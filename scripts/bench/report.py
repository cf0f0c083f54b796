"""The report of all benchmarks: tables in Markdown, and plots as SVG."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

Json = Any
Rows = dict[str, list[str]]

NAMES = {"ours": "aquatic"}
"""Names of trackers in the report, where they differ from those of the benchmarks."""

IDLE_TITLES = {"idle": "Idle connections", "idle-tls": "Idle connections over TLS"}
"""Titles of scenarios in the report, where they differ from those of the benchmarks."""

RUN_COLUMNS = ("responses/s", "user µs/response", "system µs/response", "memory MB", "core busy %")
LATENCY_COLUMNS = ("p50_us", "p90_us", "p99_us", "p999_us")

INTRODUCTION = """# Benchmarks

Made by `scripts/bench/all`, from runs on one machine: each tracker has one core, the load test the other. Runs
alternate between the trackers, each with a fresh process, and the figures are medians. Compare figures of one table
with each other, not with those of other machines; on a virtual machine with two processors, differences of a few
percent are noise. What each benchmark does, and what makes it fair, is at the head of its script.

Earlier figures of a faster machine are in [Benchmarks on a Xeon](benchmarks-xeon.md).
"""


def write(measured: dict[str, Json], output: Path) -> list[Path]:
    """Writes the report of parts that were measured. Returns the files written."""
    pictures = output / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    document = Document(pictures)
    document.text(INTRODUCTION)
    machines = [part["machine"] for part in measured.values()]
    document.table(("", ""), {key: [", ".join(dict.fromkeys(m[key] for m in machines))] for key in machines[0]})
    sections: Iterable[tuple[str, str, Callable[[Document, Json], None]]] = (
        ("udp", "UDP: closed loop and half load", udp),
        ("udp_rates", "UDP: cost and latency by rate", lambda d, r: by_rate(d, "udp", r["rates"])),
        ("udp_memory", "UDP: memory by peers", udp_memory),
        ("http", "HTTP", lambda d, r: runs_by_kind(d, HTTP_KINDS, r)),
        ("http_tls", "HTTPS", lambda d, r: runs_by_kind(d, HTTP_KINDS, r)),
        (
            "http_rates",
            "HTTP: cost and latency by rate, connections kept",
            lambda d, r: by_rate(d, "http", r["at_rates"]),
        ),
        ("http_memory", "HTTP: memory by peers", http_memory),
        (
            "https_rates",
            "HTTPS: cost and latency by rate, connections kept",
            lambda d, r: by_rate(d, "https", r["at_rates"]),
        ),
        ("tls", "TLS handshakes: full and resumed, by key", handshakes),
        ("http_idle", "HTTP and HTTPS: memory by connections", lambda d, r: idle(d, "http", r["idle"])),
        ("ws", "WebTorrent over WebSocket", lambda d, r: runs_by_kind(d, WS_KINDS, r)),
        ("ws_tls", "WebTorrent over WebSocket with TLS", lambda d, r: runs_by_kind(d, WS_KINDS, r)),
        ("ws_rates", "WebTorrent: cost and latency by rate", lambda d, r: by_rate(d, "ws", r["at_rates"])),
        ("wss_rates", "WebTorrent with TLS: cost and latency by rate", lambda d, r: by_rate(d, "wss", r["at_rates"])),
        ("ws_idle", "WebTorrent: memory by connections", lambda d, r: idle(d, "ws", r["idle"])),
    )
    for name, title, section in sections:
        if name in measured:
            part = measured[name]
            document.text(f"\n## {title}\n\n`{part['command']}`")
            section(document, part["results"])
    document.text("\n" + (Path(__file__).resolve().parent / "report.md").read_text())
    path = output / "benchmarks.md"
    path.write_text(document.markdown())
    return [path, *document.written]


class Document:
    """A page that grows, and its plots."""

    def __init__(self, pictures: Path) -> None:
        self.pictures = pictures
        self.lines: list[str] = []
        self.written: list[Path] = []

    def text(self, text: str) -> None:
        self.lines.append(text.rstrip("\n"))

    def table(self, header: Iterable[str], rows: Rows) -> None:
        header = list(header)
        lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
        lines += [" | ".join([name, *cells]) for name, cells in rows.items()]
        self.lines.append("\n" + "\n".join(f"| {line} |" for line in lines))

    def markdown(self) -> str:
        return "\n".join(self.lines) + "\n"

    def picture(self, name: str, title: str, draw: Callable[[Any], None]) -> None:
        """Draws a plot into a file, and shows it."""
        import matplotlib as mpl  # noqa: PLC0415 - measuring works without it

        mpl.use("svg")
        from matplotlib import pyplot  # noqa: PLC0415

        # Text stays text, and the same figures give the same file.
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aquatic", "font.size": 9})
        figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
        draw(axes)
        axes.set_title(title)
        axes.grid(visible=True, linewidth=0.3)
        path = self.pictures / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        self.written.append(path)
        self.lines.append(f"\n![{title}](benchmarks/{path.name})")


def name_of(tracker: str) -> str:
    return NAMES.get(tracker, tracker)


def median_of(runs: list[Json], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def runs_table(document: Document, tester: str, by_name: dict[str, list[Json]], *, shared: bool = False) -> None:
    """A row for each tracker. Where trackers share their core (shared), they get unlike parts of it, and the ratio is
    that of the processor time per response."""
    # The benchmark of WebTorrent counts messages, most of which are relayed.
    unit = "messages" if "messages" in next(iter(by_name.values()))[0] else "responses"
    rows, most = {}, median_of(next(iter(by_name.values())), unit)
    least = time_per_response(next(iter(by_name.values())))
    for name, runs in by_name.items():
        responses = median_of(runs, unit)
        ratio = time_per_response(runs) / least if shared else most / max(responses, 1e-9)
        rows[name_of(name)] = [
            f"{responses:,.0f}",
            f"{median_of(runs, 'user'):.2f}",
            f"{median_of(runs, 'system'):.2f}",
            f"{median_of(runs, 'rss') / 1e6:.1f}",
            f"{100 * median_of(runs, 'busy'):.0f}",
            f"{ratio:.2f}" if responses else "",
        ]
    document.text(f"\nAsked by {tester}:")
    first = name_of(next(iter(by_name)))
    columns = [column.replace("response", unit.removesuffix("s")) for column in RUN_COLUMNS]
    ratio_column = f"time per response, this / {first}" if shared else f"{first} / this"
    document.table(("tracker", *columns, ratio_column), rows)


def time_per_response(runs: list[Json]) -> float:
    return median_of(runs, "user") + median_of(runs, "system")


def udp(document: Document, results: Json) -> None:
    for tester, by_name in results["rounds"].items():
        runs_table(document, tester, by_name)
    half(document, results["half_load"])


def half(document: Document, results: Json) -> None:
    if not results:
        return
    rate = results["rate"]
    rows = {}
    for name, taken in results["latency"].items():
        of_this = rate[name] if isinstance(rate, dict) else rate
        # The benchmark of WebTorrent has latencies by kind of message.
        kinds = [""] if "p50_us" in taken[0] else list(taken[0])
        for kind in kinds:
            latencies = [latency[kind] if kind else latency for latency in taken]
            figures = (f"{median_of(latencies, column):,.0f}" for column in LATENCY_COLUMNS)
            rows[f"{name_of(name)}, {kind}" if kind else name_of(name)] = [f"{of_this:,}", *figures]
    document.text("\nLatency at half load in open loop, in microseconds from when a request should have been sent:")
    document.table(("tracker", "requests/s", "p50", "p90", "p99", "p99.9"), rows)


HTTP_KINDS = {
    "keep-alive": "Connections kept",
    "connection": "A connection for each request",
    "tls": "A connection with a full TLS handshake for each request",
}
SHARED_KIND = "connection"
SHARED_TEXT = """
Each tracker shares its core with two programs that never wait. aquatic_http 0.9.0 has two threads that work, so that
it can get up to half of the core where the others get a third: its responses/s are of more processor time, see the
column core busy. The last column compares processor time per response."""
WS_KINDS = {"tls": "Connections kept, TLS"}


def runs_by_kind(document: Document, kinds: dict[str, str], results: Json) -> None:
    for kind, by_tester in results["rates"].items():
        for tester, by_name in by_tester.items():
            if kind in kinds:
                document.text(f"\n**{kinds[kind]}.**")
            if kind == SHARED_KIND:
                document.text(SHARED_TEXT)
            runs_table(document, tester, by_name, shared=kind == SHARED_KIND)
    half(document, results["half"])


def or_dash(figure: float) -> str:
    return f"{figure:,.0f}" if figure else "-"


def series(results: Json, key: str) -> Iterator[tuple[str, list[float], list[float]]]:
    """For each tracker, rates and medians of a figure."""
    for name in next(iter(results.values())):
        points = [(int(rate), median_of(by_name[name], key)) for rate, by_name in results.items()]
        points = [(rate, figure) for rate, figure in points if figure > 0]
        yield name_of(name), [rate for rate, _ in points], [figure for _, figure in points]


def by_rate(document: Document, name: str, results: Json) -> None:
    if name in ("ws", "wss"):
        document.text("\nRates are those of announces; offers and answers that are relayed count as responses, too.")
    rows = {}
    for rate, by_name in results.items():
        for tracker, runs in by_name.items():
            rows[f"{int(rate):,}, {name_of(tracker)}"] = [
                f"{median_of(runs, 'answered'):,.0f}",
                f"{median_of(runs, 'busy'):.1f}",
                f"{median_of(runs, 'per_response'):.1f}",
                # A tracker that answered nothing in the measured time has no latency.
                *(or_dash(median_of(runs, key)) for key in ("p50", "p99", "p999")),
            ]
    header = ("requests/s", "answered/s", "core busy %", "µs of processor/response", "p50 µs", "p99 µs", "p99.9 µs")
    document.table(header, rows)

    def lines(axes: Any, key: str, label: str) -> None:
        for tracker, rates, figures in series(results, key):
            axes.plot(rates, figures, marker="o", markersize=3, label=tracker)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("requests/s")
        axes.set_ylabel(label)
        axes.legend()

    for key, label, title in (
        ("busy", "% of a core", "Processor time by rate"),
        ("p50", "µs", "Median latency by rate"),
        ("p99", "µs", "99th percentile of latency by rate"),
    ):
        document.picture(f"{name}-{key}", f"{name.upper()}: {title}", partial(lines, key=key, label=label))


def handshakes(document: Document, results: Json) -> None:
    document.text(
        "\nProcessor time of the server in µs for a connection with one request, and how much more that is than for a"
        "\nplain one, with the share of sessions that were resumed."
    )
    plain = results["plain"]

    def cell(title: str, name: str, took: float, share: float) -> str:
        resumed = f", {share:.0%}" if title.endswith("resumed") else ""
        return f"{took:,.0f} (+{took - plain[name][0]:,.0f}{resumed})"

    rows = {
        title: [cell(title, name, took, share) for name, (took, share) in by_name.items()]
        for title, by_name in results.items()
    }
    document.table(("connection", *map(name_of, plain)), rows)


def udp_memory(document: Document, results: Json) -> None:
    rows = {}
    for name, by_size in results["prefill"].items():
        phases = {size: {phase["phase"]: phase for phase in by_size[size]["report"]["phases"]} for size in by_size}
        filling, load = phases["large"]["prefill"], phases["large"]["load"]
        peers = next(entry["count"] for entry in filling["notes"] if entry["name"] == "peers announced")
        rss = by_size["large"]["rss"]
        rows[name_of(name)] = [
            f"{peers:,}",
            f"{rss / 1e6:,.0f}",
            f"{rss / max(peers, 1):.1f}",
            f"{filling['responses_per_second']:,.0f}",
            f"{load['responses_per_second']:,.0f}",
        ]
    header = ("tracker", "peers", "memory MB", "bytes/peer", "announces/s while filling", "responses/s when full")
    document.table(header, rows)
    figures = {name: float(cells[2]) for name, cells in rows.items()}
    bars(document, "udp-memory", "Memory by peers", "bytes per peer", figures)


def http_memory(document: Document, results: Json) -> None:
    rows = {
        name_of(tracker): [f"{row[column]:,.{1 if column == 'bytes/peer' else 0}f}" for column in row]
        for tracker, row in results["memory"].items()
    }
    document.table(("tracker", *next(iter(results["memory"].values()))), rows)
    figures = {name_of(tracker): row["bytes/peer"] for tracker, row in results["memory"].items()}
    bars(document, "http-memory", "Memory by peers", "bytes per peer", figures)


def idle(document: Document, name: str, results: Json) -> None:
    for title, by_name in results.items():
        header = list(next(iter(by_name.values())))
        rows = {
            name_of(tracker): [f"{row[column]:,.{0 if column == 'connections' else 1}f}" for column in header]
            for tracker, row in by_name.items()
        }
        document.text(f"\n**{IDLE_TITLES.get(title, title)}**")
        document.table(("tracker", *header), rows)
        figures = {name_of(tracker): float(row["KiB/connection"]) for tracker, row in by_name.items()}
        kind = "tls" if "tls" in title.lower() else "plain"
        bars(document, f"{name}-idle-{kind}", f"Memory by connections, {kind}", "KiB per connection", figures)


def bars(document: Document, name: str, title: str, unit: str, figures: dict[str, float]) -> None:
    def draw(axes: Any) -> None:
        drawn = axes.barh(list(figures), list(figures.values()))
        axes.bar_label(drawn, fmt="%.1f")
        axes.invert_yaxis()
        axes.set_xlabel(unit)

    document.picture(name, title, draw)
