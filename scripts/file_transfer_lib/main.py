"""Command line, parallel rows, the printed table."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from .hosts import enter_own_namespaces
from .programs import Program
from .row import Row
from .rows import all_rows
from .runner import Outcome, Runner

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY_SHARE = 4
"""One row in so many that run at the same time may be a heavy one."""
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main() -> int:
    """Runs the selected rows and returns the exit code."""
    options = _parse(sys.argv[1:])
    rows = _select(options.row)
    if not rows:
        print(f"no row matches {options.row}; --list shows all", file=sys.stderr)
        return EXIT_USAGE
    if options.list:
        print("\n".join(row.name for row in rows))
        return 0
    if options.packages:
        print("\n".join(program.package for program in _programs_of(rows)))
        return 0
    binary = options.tracker_binary.resolve()
    if not os.access(binary, os.X_OK):
        print(f"no tracker at {binary} (cargo build --release -p aquatic)", file=sys.stderr)
        return EXIT_USAGE
    if (missing := enter_own_namespaces()) is not None:
        print(f"file_transfer: {missing}", file=sys.stderr)
        return EXIT_USAGE
    if options.skip_missing:
        rows = _with_installed_programs(rows)
        if not rows:
            print("no row is left", file=sys.stderr)
            return EXIT_USAGE
    return _run(rows, binary, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="file_transfer",
        description="Moves files between real BitTorrent clients that know each other only through the tracker.",
    )
    default = REPOSITORY / "target" / "release" / "aquatic"
    parser.add_argument("--tracker-binary", type=Path, default=default, metavar="FILE", help="default: %(default)s")
    row = {"action": "append", "default": [], "metavar": "SUBSTRING"}
    parser.add_argument("--row", **row, help="run only rows whose name contains this (may be given several times)")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and exit")
    jobs = {"type": _positive, "default": 2 * (os.cpu_count() or 1), "metavar": "N"}
    parser.add_argument("--jobs", **jobs, help="rows at the same time; most of them mostly wait (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the files and logs of rows that passed, too")
    parser.add_argument("--packages", action="store_true", help="print the Debian packages the rows need and exit")
    parser.add_argument("--skip-missing", action="store_true", help="leave out rows whose programs are not installed")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _select(substrings: Sequence[str]) -> list[Row]:
    return [row for row in all_rows() if not substrings or any(part in row.name for part in substrings)]


def _with_installed_programs(rows: Sequence[Row]) -> list[Row]:
    missing = {program: remedy for program in _programs_of(rows) if (remedy := program.remedy())}
    for program, remedy in missing.items():
        print(f"skipped: rows with {program.name} ({remedy})")
    return [row for row in rows if missing.keys().isdisjoint(row.all_programs())]


def _programs_of(rows: Sequence[Row]) -> list[type[Program]]:
    return list(dict.fromkeys(program for row in rows for program in row.all_programs()))


def _run(rows: Sequence[Row], binary: Path, options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="file_transfer-"))
    started = time.monotonic()
    outcomes, interrupted = _run_parallel(rows, options.jobs, binary, directory, options.keep)
    outcomes.sort(key=lambda outcome: rows.index(outcome.row))
    for outcome in outcomes:
        if outcome.earlier:
            print(f"\n=== first attempt, {outcome.row.name}: {outcome.earlier}")
        if outcome.failure:
            print(f"\n=== {outcome.row.name}: {outcome.failure}\n{outcome.logs}")
    _print_table(outcomes)
    _print_versions(_programs_of(rows))
    passed = sum(outcome.failure is None for outcome in outcomes)
    print(f"\n{passed} of {len(rows)} rows passed in {time.monotonic() - started:.0f} s")
    failed = any(outcome.failure for outcome in outcomes)
    if options.keep or failed:
        print(f"files and logs: {directory}")
    else:
        shutil.rmtree(directory)
    if interrupted:
        return EXIT_INTERRUPTED
    return 0 if passed == len(rows) else EXIT_FAILED


def _run_parallel(
    rows: Sequence[Row], jobs: int, binary: Path, directory: Path, keep: bool
) -> tuple[list[Outcome], bool]:
    """Runs rows in threads; on Ctrl-C or SIGTERM the running ones are ended in order and the rest is left out.

    Rows with heavy programs have threads of their own, few of them, and do not wait for the other rows.
    """
    stopping = threading.Event()
    runner = Runner(binary, directory, keep, stopping)
    outcomes: list[Outcome] = []
    heavy_jobs = max(1, jobs // HEAVY_SHARE)
    with ThreadPoolExecutor(max(1, jobs - heavy_jobs)) as light, ThreadPoolExecutor(heavy_jobs) as heavy:
        futures = [(heavy if row.is_heavy() else light).submit(runner.run, row) for row in rows]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes.append(outcome)
                _print_progress(outcome, len(outcomes), len(rows))
        except KeyboardInterrupt:
            # A second signal must not cut the cleaning up short; that takes a few seconds at most.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("stopping", flush=True)
            stopping.set()
            for pool in (light, heavy):
                pool.shutdown(wait=False, cancel_futures=True)
    if not stopping.is_set():
        outcomes = [_again(runner, outcome) if outcome.failure else outcome for outcome in outcomes]
    return outcomes, stopping.is_set()


def _again(runner: Runner, failed: Outcome) -> Outcome:
    """Gives a row a second attempt, with nothing beside it: on a busy machine clients now and then fail by themselves.

    The table and the last lines tell, with the reason of the first failure, so that a tracker that fails every other
    time does not go unnoticed.
    """
    print(f"again: {failed.row.name}", flush=True)
    outcome = runner.run(failed.row, attempt=2)
    return replace(outcome, earlier=f"{failed.failure}\n{failed.logs}")


def _print_progress(outcome: Outcome, done: int, total: int) -> None:
    result = f"FAILED: {outcome.failure}" if outcome.failure else "ok"
    print(f"[{done}/{total}] {outcome.row.name} ... {result} ({outcome.seconds:.1f} s)", flush=True)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    heading = ("row", "protocol", "family", "seeder", "leecher", "access list", "time", "result")
    lines = [heading, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    print()
    for index, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        if index == 0:
            print("  ".join("-" * width for width in widths))


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    number = str(all_rows().index(row) + 1)
    result = "FAILED" if outcome.failure else "ok at the second attempt" if outcome.earlier else "ok"
    return (number, row.protocol.name, row.family.value, *row.cells, f"{outcome.seconds:.1f} s", result)


def _print_versions(programs: Sequence[type[Program]]) -> None:
    print()
    for program in programs:
        print(f"{program.name}: {program.version()}")
