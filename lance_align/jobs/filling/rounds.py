"""Rounds of commits of a filling job: values are gathered by fragment, and written into rows that are there."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_align import faults
from lance_align.jobs.attempts import attempts
from lance_align.jobs.filling.making import HALVED, SECONDS_COLUMNS, choices_of
from lance_align.jobs.gathering import Gathering
from lance_align.tables.filling import ADDRESS, Filled, Filler, Survey

MIN_COMMIT_SECONDS = 1.0
MAX_WAITING_BYTES = 512 * 2**20  # of values on the driver, whose fragments are not complete


class FillRounds(Gathering):
    """Gathers values and makes a version of the table every so many rows or seconds.

    A round writes the column of every fragment it touches anew. So `commit_rows` counts rows of fragments that
    are complete; one that is not waits until its first value has waited for `commit_seconds`, or memory wants it.

    Args:
        filler: of the table.
        commit_rows: rows of complete fragments after which these are committed.
        commit_seconds: seconds that a value waits at most; then all are committed.
    """

    def __init__(self, filler: Filler, *, commit_rows: int, commit_seconds: float) -> None:
        super().__init__(commit_rows=commit_rows, commit_seconds=commit_seconds)
        self._filler = filler
        self._expected: dict[int, int] = {}  # rows still to come, by fragment
        self._waiting: dict[int, list[pa.Table]] = {}
        self._since: float | None = None  # when the first of those that wait arrived
        self.arrived = 0

    @property
    def version(self) -> int:
        """The table's version after the last round."""
        return self._filler.version

    def expect(self, survey: Survey) -> None:
        """Say which rows are to come."""
        self._expected = {gap.fragment: gap.empty for gap in survey.gaps}

    def add(self, table: pa.Table) -> None:
        """Take what a worker made, and end the round if it is time.

        Raises:
            LanceAlignError, OSError: a commit failed; the round's rows are still empty.
        """
        with self._adding():
            self._take(table)
            size = sum(part.nbytes for parts in self._waiting.values() for part in parts)
            complete = [key for key in self._waiting if self._rows(key) >= self._expected.get(key, 0)]
            if size > MAX_WAITING_BYTES or self._time_is_over():
                self._commit_all()
            elif sum(map(self._rows, complete)) >= self._commit_rows:
                self._commit(complete)

    def _commit_all(self) -> None:
        self._commit(list(self._waiting))

    def _take(self, table: pa.Table) -> None:
        self.arrived += table.num_rows
        self.halved += int(pc.sum(table.column(HALVED)).as_py() or 0)
        for stage, column in SECONDS_COLUMNS.items():
            self._spend(**{stage: float(pc.sum(table.column(column)).as_py() or 0.0)})
        self._see(choices_of(table))
        rows = table.drop_columns([*SECONDS_COLUMNS.values(), HALVED]).replace_schema_metadata(None)
        fragments: Any = np.asarray(rows.column(ADDRESS).to_numpy()) >> np.uint64(32)
        for key in np.unique(fragments).tolist():
            # A copy: what Ray hands over lies in its object store, and stays there as long as anybody refers to it.
            self._waiting.setdefault(key, []).append(rows.filter(pa.array(fragments == key)))
            self._since = self._since or time.monotonic()

    def _commit(self, keys: list[int]) -> None:
        if keys:
            started = time.perf_counter()
            with self._committing():
                filled = attempts(lambda: self._fill(keys))
            faults.reach("after_commit", rows=filled.rows)
            for key in keys:
                self._expected[key] = self._expected.get(key, 0) - self._rows(key)
                del self._waiting[key]
            self.reasons.update(filled.reasons)
            self.committed += filled.rows
            self.arrived -= filled.left
            if filled.left:  # others rewrite the table meanwhile: smaller rounds lose less to the next time
                self._commit_seconds = min(self._commit_seconds, max(MIN_COMMIT_SECONDS, self._commit_seconds / 2))
            self.commits += filled.rows > 0
            self._spend(commit=time.perf_counter() - started)
        if not self._waiting:
            self._since = None

    def _fill(self, keys: list[int]) -> Filled:
        """One commit; rows that have landed already are not empty any more, and do not land again."""
        rows = {key: pa.concat_tables(self._waiting[key]) for key in keys}
        faults.reach("before_commit", rows=sum(table.num_rows for table in rows.values()))
        return self._filler.fill(rows)

    def _time_is_over(self) -> bool:
        return self._since is not None and time.monotonic() - self._since >= self._commit_seconds

    def _rows(self, key: int) -> int:
        return sum(table.num_rows for table in self._waiting[key])
