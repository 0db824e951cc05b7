"""Rounds of commits: receipts are gathered, and every so many rows or seconds they become a version of the table."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from lance_align import faults
from lance_align.errors import LanceAlignError
from lance_align.jobs.attempts import attempts
from lance_align.jobs.ids import Hashes
from lance_align.jobs.receipts import Receipt, unpacked
from lance_align.jobs.stopping import uninterrupted
from lance_align.tables.commits import Committer, Landed, Learn

LOOK_EVERY_S = 1.0  # whether a round's time is over


class Rounds:
    """Gathers receipts and makes a version of the table every so many rows or seconds.

    A signal never interrupts a commit: see `lance_align.jobs.stopping`.

    Args:
        committer: of the table.
        commit_rows: rows after which a round ends.
        commit_seconds: seconds after which it ends, with or without another receipt.
    """

    def __init__(self, committer: Committer, *, commit_rows: int, commit_seconds: float) -> None:
        self._committer = committer
        self._commit_rows = commit_rows
        self._commit_seconds = commit_seconds
        self.learn: Learn | None = None  # see `Committer.commit`
        self.arrive: Callable[[Hashes], None] | None = None  # told the ids of each round that is in
        self._pending: list[Receipt] = []
        self._round_began = time.monotonic()
        self._turn = threading.Lock()  # of the clock's thread and of the one that adds
        self._failure: Exception | None = None  # of a commit that the clock began
        self.reasons: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.rows = 0  # written, committed or not
        self.committed = 0
        self.dropped = 0  # another writer had added their ids meanwhile
        self.commits = 0
        self.halved = 0

    @property
    def version(self) -> int:
        """The table's version after the last round."""
        return self._committer.version

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Watch the clock while receipts are added inside; at the end commit what is left, also after an error.

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

    def add(self, receipt: Receipt) -> None:
        """Take a receipt, and end the round if it is time.

        Raises:
            LanceAlignError, OSError: a commit failed; the round's rows are not in the table.
        """
        if self._failure is not None:
            raise self._failure
        with uninterrupted(), self._turn:
            self._pending.append(receipt)
            self.rows += receipt.rows
            self.halved += receipt.halved
            self.reasons.update(receipt.reasons)
            self._spend(decode=receipt.decode_s, encode=receipt.encode_s, write=receipt.write_s)
            if sum(pending.rows for pending in self._pending) >= self._commit_rows or self._time_is_over():
                self._commit()

    def commit(self) -> None:
        """End the round; nothing happens when no receipts wait.

        Raises:
            LanceAlignError, OSError: the commit failed; the round's rows are not in the table.
        """
        with uninterrupted(), self._turn:
            self._commit()

    @contextmanager
    def _clock(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(min(LOOK_EVERY_S, self._commit_seconds)):
                with self._turn:
                    if not self._time_is_over():
                        continue
                    try:
                        self._commit()
                    except Exception as error:  # noqa: BLE001  raised by the next `add`, in the job's own thread
                        self._failure = error
                        return

        thread = threading.Thread(target=look, name="rounds", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _time_is_over(self) -> bool:
        return time.monotonic() - self._round_began >= self._commit_seconds

    def _commit(self) -> None:
        if self._pending:
            started = time.perf_counter()
            landed = attempts(self._land)
            faults.reach("after_commit", rows=landed.rows)
            if self.arrive is not None:
                self.arrive(np.concatenate([unpacked(receipt.hashes) for receipt in self._pending]))
            self._pending = []
            self._count(landed)
            self._spend(commit=time.perf_counter() - started)
        self._round_began = time.monotonic()

    def _land(self) -> Landed:
        """One commit of all that waits; what has landed already does not land again."""
        fragments = [fragment for receipt in self._pending for fragment in receipt.fragments]
        rows = sum(receipt.rows for receipt in self._pending)
        replacing = [name for receipt in self._pending for name in receipt.replacing]
        faults.reach("before_commit", rows=rows)
        return self._committer.commit(fragments, rows=rows, replacing=replacing, learn=self.learn)

    def _count(self, landed: Landed) -> None:
        self.committed += landed.rows
        self.dropped += landed.dropped.rows
        self.rows -= landed.dropped.rows
        self.reasons.subtract(landed.dropped.reasons)
        self.reasons = +self.reasons
        self.commits += landed.rows > 0

    def _spend(self, **seconds: float) -> None:
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
