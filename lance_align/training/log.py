"""What a run says while it goes on, and where."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lance_align.errors import JobError
from lance_align.training.checkpoint import writing

_NAME = "train.jsonl"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """What a run says of itself.

    Attributes:
        step, progress: steps done, and the share of the run that is done.
        loss: mean since the last line, in nats; None before the first step.
        temperature: what cosines are divided by.
        learning_rate: of the last step, the head's where it has its own.
        pairs_per_s: since the last line.
        skipped: rows since the last line that could not be used.
        elapsed_s: seconds trained, pauses left out.
        recall: on held-out pairs, by ``"text_to_image@1"`` and the like; None where it was not measured.
    """

    step: int
    progress: float
    loss: float | None
    temperature: float
    learning_rate: float
    pairs_per_s: float
    skipped: int
    elapsed_s: float
    recall: dict[str, float] | None = None


@contextmanager
def logged(directory: Path, then: Callable[[LogLine], None] = lambda _: None) -> Iterator[Callable[[LogLine], None]]:
    """Add each line as JSON to ``train.jsonl`` in a directory, which is made if it is missing.

    Args:
        directory: of the run.
        then: is given each line that is written.

    Raises:
        JobError: that cannot be written.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / _NAME).open("a", encoding="utf-8")

    def report(line: LogLine) -> None:
        with writing(directory):
            print(json.dumps(dataclasses.asdict(line)), file=log, flush=True)
        then(line)

    with log:
        yield report


def read_log(directory: Path) -> list[LogLine]:
    """The lines of the run in a directory, by rising steps; none where nothing was logged.

    A run that was stopped goes on from its last checkpoint: what it did after that is done again, and counts once. A
    line that a kill has cut is left out.

    Raises:
        JobError: the log cannot be read.
    """
    try:
        text = (directory / _NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JobError(f"{directory / _NAME} cannot be read: {error.strerror}") from error
    lines: list[LogLine] = []
    for line in map(_parsed, text.splitlines()):
        if line is not None:
            while lines and lines[-1].step >= line.step:
                lines.pop()
            lines.append(line)
    return lines


def _parsed(text: str) -> LogLine | None:
    try:
        return LogLine(**json.loads(text))
    except (TypeError, ValueError):  # no JSON, or of other fields
        return None
