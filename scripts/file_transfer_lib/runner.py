"""Runs one row."""

import shutil
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from .hosts import Failure
from .row import Row
from .stage import Stage

ROW_SECONDS = 60.0
"""After this long a row has failed; most need a few seconds."""
LOG_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """How a row ended."""

    row: Row
    seconds: float
    failure: str | None
    """None if the row passed."""
    directory: Path
    logs: str = ""
    """The ends of all logs if the row failed."""
    earlier: str | None = None
    """Why a first attempt failed."""


class Runner:
    """What all rows of a run have in common."""

    def __init__(self, binary: Path, directory: Path, keep: bool, stopping: threading.Event) -> None:
        self._binary = binary
        self._directory = directory
        self._keep = keep
        self._stopping = stopping

    def run(self, row: Row, attempt: int = 1) -> Outcome:
        """Runs a row to its end; nothing it started is left when this returns."""
        name = "".join(c if c.isalnum() else "-" for c in row.name)
        directory = self._directory / f"{name}-{attempt}"
        directory.mkdir()
        started = time.monotonic()
        failure = None
        logs = ""
        try:
            self._perform(row, directory)
        except Failure as error:
            failure, logs = str(error), _ends_of_logs(directory)
        except Exception as error:  # A fault of this program must not cost the results of the other rows.
            failure, logs = repr(error), traceback.format_exc() + _ends_of_logs(directory)
        seconds = time.monotonic() - started
        if failure is None and not self._keep:
            shutil.rmtree(directory)
        return Outcome(row, seconds, failure, directory, logs)

    def _perform(self, row: Row, directory: Path) -> None:
        for program in row.all_programs():
            if (remedy := program.remedy()) is not None:
                raise Failure(f"{program.name} is not installed ({remedy})")
        stage = Stage(self._binary, directory, ROW_SECONDS, self._stopping)
        with stage.stack:
            row.run(stage)
            stage.close()


def _ends_of_logs(directory: Path) -> str:
    parts = []
    for log in sorted(directory.glob("*/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        parts += [f"--- {log.relative_to(directory)}", *(line[:300] for line in lines)]
    return "\n".join(parts)
