"""What a tracker costs and how fast it answers at given request rates, in open loop: latency counts from when a
request should have been sent."""

import statistics
import time
from dataclasses import asdict, dataclass, fields
from functools import partial

from common import ended, phase_of, print_table, read_report, say, start_load, temporary_directory

MARGIN = 0.5  # seconds at both ends of the measured ones that are left out


@dataclass
class AtRate:
    """One measurement. The processor time is that of all threads of the tracker, counted by the scheduler."""

    answered: float  # per second
    busy: float  # percent of a core
    per_response: float  # microseconds of processor time
    sleeps: float  # how often a thread has gone to sleep, per second
    p50: float  # microseconds
    p99: float
    p999: float


HEADER = ("answered/s", "busy %", "us/response", "sleeps/s", "p50 us", "p99 us", "p99.9 us")
FORMATS = ("{:,.0f}", "{:.1f}", "{:.2f}", "{:,.0f}", "{:,.0f}", "{:,.0f}", "{:,.0f}")


def measure(server, command, options):
    """Runs a load tester, which writes its report to the path it is given, against a server that has been started."""
    with temporary_directory() as directory:
        path = directory / "report.json"
        with ended(start_load(command(path), options)) as load:
            time.sleep(options.warm_up + MARGIN)
            begin, busy, sleeps = time.monotonic(), server.processor_time(), server.sleeps()
            time.sleep(options.seconds - 2 * MARGIN)
            seconds = time.monotonic() - begin
            busy, sleeps = server.processor_time() - busy, server.sleeps() - sleeps
            output = load.communicate(timeout=options.seconds + 60)[0].decode(errors="replace")
        phase = phase_of(read_report(path, server, output), "load")
    answered, latency = phase["responses_per_second"], phase["latency"]
    cost = 1e6 * busy / seconds / max(answered, 1)
    percentiles = (latency[column] for column in ("p50_us", "p99_us", "p999_us"))
    return AtRate(answered, 100 * busy / seconds, cost, sleeps / seconds, *percentiles)


def by_rate(trackers, command, options):
    """Prints a table per rate. `trackers` maps names to functions that start them, `command` makes the command of the
    load tester for a server, a rate and the path of its report. Returns everything that was measured."""
    taken: dict[int, dict[str, list[AtRate]]] = {rate: {name: [] for name in trackers} for rate in options.rates}
    for number in range(options.rounds):
        for rate in options.rates:
            for name, start in trackers.items():
                say(f"{rate:,} requests/s, round {number + 1} of {options.rounds}: {name}")
                with start() as server:
                    taken[rate][name].append(measure(server, partial(command, server, rate), options))
    for rate, runs_of in taken.items():
        rows = {
            name: [statistics.median(getattr(run, field.name) for run in runs) for field in fields(AtRate)]
            for name, runs in runs_of.items()
        }
        print(f"\nAt {rate:,} requests/s in open loop, medians of {options.rounds} rounds of {options.seconds} s")
        print_table(HEADER, rows, FORMATS)
    return {rate: {name: [asdict(run) for run in runs] for name, runs in by.items()} for rate, by in taken.items()}


def add_rates(parser):
    """The option that asks for this scenario."""
    parser.add_argument(
        "--rates",
        type=lambda text: [int(rate) for rate in text.replace("_", "").split(",")],
        metavar="RATE,...",
        help="measure processor time and latency at these requests, or announces of WebTorrent, per second, and nothing"
        " else",
    )


def add_options(parser):
    """The options of this scenario, which replaces the others when it is asked for."""
    rates = parser.add_argument_group("cost and latency by rate")
    add_rates(rates)
    rates.add_argument("--baseline", metavar="PATH", help="with --rates: compare with another build of this repository")
    rates.add_argument(
        "--workers",
        type=lambda text: [int(number) for number in text.split(",")],
        metavar="N,...",
        help="with --rates: compare one worker of ours with so many, on both cores, instead of with others. They share"
        " one core with the load tester, and the cores with each other, so only processor time is comparable",
    )
