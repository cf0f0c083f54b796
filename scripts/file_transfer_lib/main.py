"""Command line, parallel cases, the printed table."""

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

from .case import Case
from .cases import all_cases
from .hosts import enter_own_namespaces
from .programs import Program
from .runner import Outcome, Runner

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY_SHARE = 4
"""One case in so many that run at the same time may be a heavy one."""
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main() -> int:
    """Runs the selected cases and returns the exit code."""
    options = _parse(sys.argv[1:])
    cases = _select(options.case)
    if not cases:
        print(f"no case matches {options.case}; --list shows all", file=sys.stderr)
        return EXIT_USAGE
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if options.packages:
        print("\n".join(program.package for program in _programs_of(cases) if program.package))
        return 0
    binary = options.tracker_binary.resolve()
    if not os.access(binary, os.X_OK):
        print(f"no tracker at {binary} (cargo build --release -p aquatic)", file=sys.stderr)
        return EXIT_USAGE
    if (missing := enter_own_namespaces()) is not None:
        print(f"file_transfer: {missing}", file=sys.stderr)
        return EXIT_USAGE
    if options.skip_missing:
        cases = _with_installed_programs(cases)
        if not cases:
            print("no case is left", file=sys.stderr)
            return EXIT_USAGE
    return _run(cases, binary, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="file_transfer",
        description="Moves files between real BitTorrent clients that know each other only through the tracker.",
    )
    default = REPOSITORY / "target" / "release" / "aquatic"
    parser.add_argument("--tracker-binary", type=Path, default=default, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="SUBSTRING",
        help="run only cases whose name contains this (may be given several times)",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and exit")
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=4 * (os.cpu_count() or 1),
        metavar="N",
        help="cases at the same time; most of them mostly wait (default: %(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the files and logs of cases that passed, too")
    parser.add_argument("--packages", action="store_true", help="print the Debian packages the cases need and exit")
    parser.add_argument("--skip-missing", action="store_true", help="leave out cases whose programs are not installed")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _select(substrings: Sequence[str]) -> list[Case]:
    return [case for case in all_cases() if not substrings or any(part in case.name for part in substrings)]


def _with_installed_programs(cases: Sequence[Case]) -> list[Case]:
    missing = {program: remedy for program in _programs_of(cases) if (remedy := program.remedy())}
    for program, remedy in missing.items():
        print(f"skipped: cases with {program.name} ({remedy})")
    return [case for case in cases if missing.keys().isdisjoint(case.all_programs())]


def _programs_of(cases: Sequence[Case]) -> list[type[Program]]:
    return list(dict.fromkeys(program for case in cases for program in case.all_programs()))


def _run(cases: Sequence[Case], binary: Path, options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="file_transfer-"))
    started = time.monotonic()
    outcomes, interrupted = _run_parallel(cases, options.jobs, binary, directory, options.keep)
    outcomes.sort(key=lambda outcome: cases.index(outcome.case))
    for outcome in outcomes:
        if outcome.earlier:
            print(f"\n=== first attempt, {outcome.case.name}: {outcome.earlier}")
        if outcome.failure:
            print(f"\n=== {outcome.case.name}: {outcome.failure}\n{outcome.logs}")
    _print_table(outcomes)
    _print_versions(_programs_of(cases))
    passed = sum(outcome.failure is None for outcome in outcomes)
    print(f"\n{passed} of {len(cases)} cases passed in {time.monotonic() - started:.0f} s")
    failed = any(outcome.failure for outcome in outcomes)
    if options.keep or failed:
        print(f"files and logs: {directory}")
    else:
        shutil.rmtree(directory)
    if interrupted:
        return EXIT_INTERRUPTED
    return 0 if passed == len(cases) else EXIT_FAILED


def _run_parallel(
    cases: Sequence[Case], jobs: int, binary: Path, directory: Path, keep: bool
) -> tuple[list[Outcome], bool]:
    """Runs cases in threads; on Ctrl-C or SIGTERM the running ones are ended in order and the rest is left out.

    Cases with heavy programs have threads of their own, few of them, and do not wait for the other cases.
    """
    stopping = threading.Event()
    runner = Runner(binary, directory, keep, stopping)
    outcomes: list[Outcome] = []
    heavy_jobs = max(1, jobs // HEAVY_SHARE)
    with ThreadPoolExecutor(max(1, jobs - heavy_jobs)) as light, ThreadPoolExecutor(heavy_jobs) as heavy:
        futures = [(heavy if case.is_heavy() else light).submit(runner.run, case) for case in cases]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes.append(outcome)
                _print_progress(outcome, len(outcomes), len(cases))
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
    """Gives a case a second attempt, with nothing beside it: on a busy machine clients now and then fail by themselves.

    The table and the last lines tell, with the reason of the first failure, so that a tracker that fails every other
    time does not go unnoticed.
    """
    print(f"again: {failed.case.name}", flush=True)
    outcome = runner.run(failed.case, attempt=2)
    return replace(outcome, earlier=f"{failed.failure}\n{failed.logs}")


def _print_progress(outcome: Outcome, done: int, total: int) -> None:
    result = f"FAILED: {outcome.failure}" if outcome.failure else "ok"
    print(f"[{done}/{total}] {outcome.case.name} ... {result} ({outcome.seconds:.1f} s)", flush=True)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    heading = ("case", "protocol", "family", "seeder", "leecher", "access list", "time", "result")
    lines = [heading, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for index, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if index == 0:
            print("  ".join("-" * width for width in widths))


def _cells(outcome: Outcome) -> tuple[str, ...]:
    case = outcome.case
    number = str(all_cases().index(case) + 1)
    result = "FAILED" if outcome.failure else "ok at the second attempt" if outcome.earlier else "ok"
    return (number, case.protocol.name, case.family.value, *case.cells, f"{outcome.seconds:.1f} s", result)


def _print_versions(programs: Sequence[type[Program]]) -> None:
    print()
    for program in programs:
        print(f"{program.name}: {program.version()}")
