"""What a run says while it goes on, and where."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lance_align.training.checkpoint import writing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """What a run says of itself.

    Attributes:
        step, progress: steps done, and the share of the run that is done.
        loss: mean since the last line, in nats.
        temperature: what cosines are divided by.
        learning_rate: of the last step, the head's where it has its own.
        pairs_per_s: since the last line.
        skipped: rows since the last line that could not be used.
        elapsed_s: seconds trained, pauses left out.
        recall: on held-out pairs, by ``"text_to_image@1"`` and the like; None where it was not measured.
    """

    step: int
    progress: float
    loss: float
    temperature: float
    learning_rate: float
    pairs_per_s: float
    skipped: int
    elapsed_s: float
    recall: dict[str, float] | None = None


@contextmanager
def logged(directory: Path) -> Iterator[Callable[[LogLine], None]]:
    """Print each line as JSON, and add it to ``train.jsonl`` in a directory, which is made if it is missing.

    Raises:
        JobError: that cannot be written.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / "train.jsonl").open("a", encoding="utf-8")

    def report(line: LogLine) -> None:
        text = json.dumps(dataclasses.asdict(line))
        print(text, flush=True)
        with writing(directory):
            print(text, file=log, flush=True)

    with log:
        yield report
