"""Progress while a job runs: a bar in a terminal, everywhere else a plain line when something has changed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lance_align.errors import ArgumentError
from lance_align.jobs.report import rate

LINE_EVERY_S = 5.0
REDRAW_EVERY_S = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a job is.

    Attributes:
        phase: what is being done.
        decoded: rows whose images are decoded; 0 where nobody counts them.
        rows: rows that are embedded, committed or not.
        failed: those of them with a reason.
        committed: those of them in the table.
        skipped: rows that were there already, or duplicates.
        version: the table's version.
    """

    phase: str = "embedding"
    decoded: int = 0
    rows: int = 0
    failed: int = 0
    committed: int = 0
    skipped: int = 0
    version: int = 0


class View(Protocol):
    """One way to show states."""

    every_s: float

    def say(self, text: str) -> None:
        """Once, before anything else."""

    def show(self, state: State) -> None:
        """While the job runs."""

    def end(self, state: State, *, finished: bool) -> None:
        """Once, when the job has finished or was stopped."""


class Lines:
    """Lines that begin with the time, for log files: no carriage returns, and one at a beat when something has changed.

    Args:
        total: rows of the input, or None where nobody knows.
        file: where lines go.
    """

    def __init__(self, total: int | None, file: TextIO, every_s: float = LINE_EVERY_S) -> None:
        self.every_s = every_s
        self._total = total
        self._file = file
        self._began: float | None = None  # when the first rows were decoded
        self._shown: State | None = None

    def show(self, state: State) -> None:
        """One line, if it says anything new."""
        if state == self._shown:
            return
        if self._began is None and (state.decoded or state.rows):
            self._began = time.monotonic() - self.every_s
        self._shown = state
        done = state.rows + state.skipped
        share = f" of {self._total:,} ({done / self._total:.0%})" if self._total else ""
        decoded = f"{state.decoded:,} decoded, " if state.decoded else ""
        speed = "" if self._began is None else f", {rate(state.rows / (time.monotonic() - self._began))}"
        self.say(
            f"{state.phase}: {done:,} rows{share}, {decoded}{state.skipped:,} skipped, {state.failed:,} failed, "
            f"{state.committed:,} committed (version {state.version}){speed}"
        )

    def end(self, state: State, *, finished: bool) -> None:
        """The last state, and how it ended."""
        self.show(state)
        self.say("finished" if finished else "stopped")

    def say(self, text: str) -> None:
        """One line, with the time."""
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}", file=self._file, flush=True)


class Bar:
    """One line that redraws itself in a terminal.

    Args:
        total: rows of the input, or None where nobody knows.
        file: the terminal.
    """

    every_s = REDRAW_EVERY_S

    def __init__(self, total: int | None, file: TextIO) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[phase]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=file),
        )
        self._task = self._progress.add_task("rows", total=total, phase="starting", note="")
        self._progress.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def show(self, state: State) -> None:
        """Redraw."""
        counts = {"decoded": state.decoded, "committed": state.committed, "failed": state.failed}
        note = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        self._progress.update(self._task, completed=state.rows + state.skipped, phase=state.phase, note=note)

    def end(self, state: State, *, finished: bool) -> None:
        """Leave the last state on the screen."""
        del finished
        self.show(state)
        self._progress.stop()


@contextlib.contextmanager
def beating(view: View, state: Callable[[], State]) -> Iterator[None]:
    """Show a state at every beat of the view, and at the end, from a thread of its own."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(view.every_s):
            view.show(state())

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    finished = False
    try:
        yield
        finished = True
    finally:
        ended.set()
        thread.join()
        view.end(state(), finished=finished)


def _begun(view: View, state: Callable[[], State], line: str) -> contextlib.AbstractContextManager[None]:
    if line:
        view.say(line)
    return beating(view, state)


@contextlib.contextmanager
def reporter(
    total: int | None,
    state: Callable[[], State],
    *,
    show: bool,
    log_file: str | os.PathLike[str] | None = None,
    plan: str = "",
) -> Iterator[None]:
    """Show progress in the way that suits where it is written.

    Args:
        total: rows of the input, or None where nobody knows.
        state: asked at every beat, from another thread.
        show: on standard error: a bar in a terminal, else lines.
        log_file: lines are appended to it; None for no such file.
        plan: a line to begin with; none if it is empty.

    Raises:
        ArgumentError: the log file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_log(log_file))
        if file is not None:
            stack.enter_context(_begun(Lines(total, file), state, plan))
        if show:
            view = Bar(total, sys.stderr) if sys.stderr.isatty() else Lines(total, sys.stderr)
            stack.enter_context(_begun(view, state, plan))
        yield


def announce(phase: str, *, show: bool, log_file: str | os.PathLike[str] | None = None) -> None:
    """Say what is being done before or after the rows are counted; see `reporter` for where.

    Raises:
        ArgumentError: the log file cannot be written.
    """
    with _log(log_file) as file:
        if file is not None:
            Lines(None, file).say(phase)
    if show and sys.stderr.isatty():
        print(f"{phase} …", file=sys.stderr, flush=True)
    elif show:
        Lines(None, sys.stderr).say(phase)


@contextlib.contextmanager
def _log(log_file: str | os.PathLike[str] | None) -> Iterator[TextIO | None]:
    if log_file is None:
        yield None
        return
    try:
        file = Path(log_file).open("a", encoding="utf-8")  # noqa: SIM115  closed below
    except OSError as error:
        raise ArgumentError(f"log file {os.fspath(log_file)} cannot be written: {error.strerror}") from error
    with file:
        yield file
