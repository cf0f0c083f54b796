"""Runs one case."""

import shutil
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from .case import Case
from .environment import Environment
from .hosts import Failure

CASE_TIMEOUT_SECONDS = 60.0
"""After this long a case has failed; most need a few seconds."""
LOG_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    case: Case
    seconds: float
    failure: str | None
    """None if the case passed."""
    directory: Path
    logs: str = ""
    """The ends of all logs if the case failed."""
    earlier: str | None = None
    """Why a first attempt failed."""


class Runner:
    """What all cases of a run have in common."""

    def __init__(self, binary: Path, directory: Path, keep: bool, stopping: threading.Event) -> None:
        self._binary = binary
        self._directory = directory
        self._keep = keep
        self._stopping = stopping

    def run(self, case: Case, attempt: int = 1) -> Outcome:
        """Runs a case to its end; nothing it started is left when this returns."""
        name = "".join(c if c.isalnum() else "-" for c in case.name)
        directory = self._directory / f"{name}-{attempt}"
        directory.mkdir()
        started = time.monotonic()
        failure = None
        logs = ""
        try:
            self._run_case(case, directory)
        except Failure as error:
            failure, logs = str(error), _ends_of_logs(directory)
        except Exception as error:  # A fault of this program must not cost the results of the other cases.
            failure, logs = repr(error), traceback.format_exc() + _ends_of_logs(directory)
        seconds = time.monotonic() - started
        if failure is None and not self._keep:
            shutil.rmtree(directory)
        return Outcome(case, seconds, failure, directory, logs)

    def _run_case(self, case: Case, directory: Path) -> None:
        for program in case.all_programs():
            if (remedy := program.remedy()) is not None:
                raise Failure(f"{program.name} is not installed ({remedy})")
        environment = Environment(self._binary, directory, CASE_TIMEOUT_SECONDS, self._stopping)
        with environment.stack:
            case.run(environment)
            environment.close()


def _ends_of_logs(directory: Path) -> str:
    parts = []
    for log in sorted(directory.glob("*/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        parts += [f"--- {log.relative_to(directory)}", *(line[:300] for line in lines)]
    return "\n".join(parts)
