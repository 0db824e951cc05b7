"""Progress of a training run: a bar in a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lance_align.jobs.training_report import WAYS, duration

if TYPE_CHECKING:
    from lance_align.training.log import LogLine

LINE_EVERY_S = 5.0


class TrainingView(Protocol):
    """One way to show a run."""

    def say(self, text: str) -> None:
        """What is done now."""

    def show(self, line: LogLine) -> None:
        """What the run says of itself."""


class Quiet:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def show(self, line: LogLine) -> None:
        """Nothing."""


class Lines:
    """Lines that begin with the time: one in five seconds, and each that has recall or is the last.

    Args:
        steps: of the whole run; None where minutes end it.
        file: where lines go.
    """

    def __init__(self, steps: int | None, file: TextIO) -> None:
        self._steps, self._file, self._shown_s = steps, file, -LINE_EVERY_S

    def say(self, text: str) -> None:
        """One line, with the time."""
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}", file=self._file, flush=True)

    def show(self, line: LogLine) -> None:
        """One line, if it is time for one."""
        now = time.monotonic()
        if line.recall is not None or line.progress >= 1 or now - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now
            said = [f"step {line.step:,}{'' if self._steps is None else f' of {self._steps:,}'} ({line.progress:.0%})"]
            if line.loss is not None:
                said.append(f"loss {line.loss:.3f}, {line.pairs_per_s:,.0f} pairs/s")
            if line.recall:
                said.append(
                    "recall@1 " + ", ".join(f"{words} {line.recall[f'{way}@1']:.3f}" for way, words in WAYS.items())
                )
            if line.skipped:
                said.append(f"{line.skipped:,} rows skipped")
            self.say(", ".join([*said, *_left(line)]))


class Bar:
    """One line that redraws itself in a terminal.

    Args:
        steps: see `Lines`.
        file: the terminal.
    """

    def __init__(self, steps: int | None, file: TextIO) -> None:
        self._of = "" if steps is None else f"/{steps:,}"
        self._recall: list[str] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),  # a terminal of 80 columns has room for all of this
            TextColumn("{task.fields[note]}"),
            console=Console(file=file),
        )
        self._task = self._progress.add_task("training", total=1.0, note="")
        self._progress.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def show(self, line: LogLine) -> None:
        """Redraw, with the recall that was measured last."""
        if line.recall:
            self._recall = ["recall@1 " + "/".join(f"{line.recall[f'{way}@1']:.3f}" for way in WAYS)]
        loss = [] if line.loss is None else [f"loss {line.loss:.3f}"]
        self._progress.update(
            self._task,
            completed=line.progress,
            description=f"step {line.step:,}{self._of}",
            note=", ".join([*loss, *self._recall, *_left(line)]),
            refresh=True,
        )

    def end(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()


@contextlib.contextmanager
def training_progress(steps: int | None, *, show: bool = True) -> Iterator[TrainingView]:
    """Show a run on standard error, in the way that suits it.

    Args:
        steps: of the whole run; None where minutes end it.
        show: False shows nothing.
    """
    if not show:
        yield Quiet()
    elif sys.stderr.isatty():
        bar = Bar(steps, sys.stderr)
        try:
            yield bar
        finally:
            bar.end()
    else:
        yield Lines(steps, sys.stderr)


def _left(line: LogLine) -> list[str]:
    """How long it takes from here, where that can be told."""
    if not 0 < line.progress < 1:
        return []
    return [f"{duration(line.elapsed_s / line.progress * (1 - line.progress))} left"]
