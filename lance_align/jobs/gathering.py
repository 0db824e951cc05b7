"""What workers make is gathered on the driver, and every so often it becomes a version of the table."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lance_align.errors import LanceAlignError
from lance_align.jobs.stopping import uninterrupted

LOOK_EVERY_S = 1.0  # whether a round's time is over


class Gathering(ABC):
    """Rounds of commits that end in time, with or without another arrival.

    A signal never interrupts a commit: see `lance_align.jobs.stopping`.

    Args:
        commit_rows: rows after which a round ends.
        commit_seconds: seconds after which it ends.
    """

    def __init__(self, *, commit_rows: int, commit_seconds: float) -> None:
        self._commit_rows = commit_rows
        self._commit_seconds = commit_seconds
        self._turn = threading.Lock()  # of the clock's thread and of the one that adds
        self._failure: Exception | None = None  # of a commit that the clock began
        self.reasons: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.committed = 0
        self.commits = 0
        self.halved = 0
        self.is_committing = False  # read by the thread that shows progress
        self._seen: dict[str, set[str | int]] = {}  # what workers said of their models

    @property
    def choices(self) -> dict[str, Any]:
        """When rounds end, and what workers' models run on as far as they have said, by the names of the job's options.

        Workers need not agree: on a cluster of several kinds of GPU they do not.
        """
        seen = {
            name: next(iter(values)) if len(values) == 1 else " and ".join(sorted(map(str, values)))
            for name, values in self._seen.items()
        }
        return {"commit_rows": self._commit_rows, "commit_seconds": self._commit_seconds} | seen

    def _see(self, choices: Mapping[str, str | int]) -> None:
        """Note what a worker says of its model."""
        for name, value in choices.items():
            self._seen.setdefault(name, set()).add(value)

    @abstractmethod
    def _commit_all(self) -> None:
        """End the round with everything that waits; nothing happens when nothing does."""

    @abstractmethod
    def _time_is_over(self) -> bool:
        """Whether what waits has waited for `commit_seconds`."""

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Watch the clock while something is added inside; at the end commit what is left, also after an error.

        Raises:
            LanceAlignError, OSError: a commit failed.
        """
        try:
            with self._clock():
                yield
        except BaseException:
            with suppress(LanceAlignError, OSError):  # the first error is the one to tell
                self.commit()
            raise
        self.commit()

    def commit(self) -> None:
        """End the round; nothing happens when nothing waits.

        Raises:
            LanceAlignError, OSError: the commit failed; the round is not in the table.
        """
        with uninterrupted(), self._turn:
            self._commit_all()

    @contextmanager
    def _committing(self) -> Iterator[None]:
        self.is_committing = True
        try:
            yield
        finally:
            self.is_committing = False

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Add something inside: alone, uninterrupted, and not after a commit has failed.

        Raises:
            LanceAlignError, OSError: the clock's last commit failed.
        """
        if self._failure is not None:
            raise self._failure
        with uninterrupted(), self._turn:
            yield

    @contextmanager
    def _clock(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(min(LOOK_EVERY_S, self._commit_seconds)):
                with self._turn:
                    if not self._time_is_over():
                        continue
                    try:
                        self._commit_all()
                    except Exception as error:  # noqa: BLE001  raised by the next arrival, in the job's own thread
                        self._failure = error
                        return

        thread = threading.Thread(target=look, name="rounds", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _spend(self, **seconds: float) -> None:
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
