"""The roll call: every row of the input says its id before any row is embedded, so that the first one owns it.

Tasks read the id column alone. It also tells which splits hold nothing new: they are not read again, and a run that
finds everything done has read ids and nothing else. CSV and JSON Lines are parsed, and tar shards read through, even
for one column.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.columns import Columns
from lance_align.jobs.executors.base import Executor
from lance_align.jobs.ids import Flags, id_hashes, text_ids
from lance_align.jobs.ledger.ledger import SPLIT_BITS
from lance_align.jobs.ledger.registry import IdRegistry
from lance_align.jobs.sources import Source, Split
from lance_align.jobs.sources.base import left_out_of
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.reading import read_split
from lance_align.jobs.watchdog import beat

TASK_ROWS = 2**18  # a task reads at least this many ids, if there are
TASK_STRETCHES = 64  # or this many parts of files
UNKNOWN_ROWS = 8192  # what a split counts for that only reading tells the rows of
ENROL_ROWS = 2**16  # told to the ledger at once


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive splits of one part of a file, read in one go: reading a range of a CSV file reads what is before it.

    Attributes:
        first: the number of its first split.
        split: all of them as one.
        rows: how many rows each of them has; a single None where only reading tells.
    """

    first: int
    split: Split
    rows: tuple[int | None, ...]


def is_needed(columns: Columns, source: Source) -> bool:
    """Whether rows anywhere in the input may have one id: not if it is a file's path, a shard's key, or a digest."""
    return columns.id is not None and columns.id != source.id


class TooManyRows(Exception):  # noqa: N818 - never leaves the package: another executor takes them
    """More rows have work to do than this process should."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Enrol:
    """What a task of the roll call does: it may be run again, and says the same.

    Attributes:
        reader: knows the ids of rows; its source's splits are left out.
        registry: told them.
        most: more rows with work to do than this are too many; None for any number.
        missing: rows with work to do so far, in this process.
    """

    reader: Reader
    registry: IdRegistry
    most: int | None = None
    missing: int = 0

    def __call__(self, stretches: Sequence[Stretch]) -> None:
        """Enrol the rows of some stretches.

        Raises:
            TooManyRows: there are.
        """
        self.registry.tally()  # answers when it has read the table's ids
        for stretch in stretches:
            started = time.perf_counter()
            for position, ids in _by_split(self._ids(stretch), stretch):
                self._tell(position, ids, time.perf_counter() - started)
                beat()
                started = time.perf_counter()

    def _tell(self, position: int, ids: pa.ChunkedArray[Any], read_s: float) -> None:
        texts: list[Any] = ids.to_pylist()
        named: Flags = np.asarray(ids.is_valid().to_numpy(), dtype=np.bool_)
        hashes = id_hashes([text or "" for text in texts])
        losers = self.registry.enrol(position, hashes, named, read_s)
        notes = {int(losers[row]): texts[row] for row in np.flatnonzero(losers >= 0)}
        if notes:
            self.registry.note("duplicate", notes)
        if self.most is not None:
            self.missing += self.registry.missing(hashes[named]) + int((~named).sum())
            if self.missing > self.most:
                raise TooManyRows

    def _ids(self, stretch: Stretch) -> Iterator[pa.ChunkedArray[Any]]:
        """The ids that rows bring, null where they bring none; all of them where every row is enrolled.

        What cannot be read to its end is noted, and the other stretches go on.
        """
        name, every = self.reader.columns.id, self.registry.enrols_all
        position = stretch.first << SPLIT_BITS
        try:
            for table in read_split(self.reader.source, stretch.split, columns=None if every else [name or ""]):
                beat()
                left_out = left_out_of(table)
                if left_out:
                    self.registry.leave_out(position, left_out)
                position += table.num_rows
                yield self.reader.ids(table)[0] if every else text_ids(table.column(name or ""), name or "")
        except SourceError as error:
            self.registry.note("unread", {stretch.first << SPLIT_BITS: str(error)})


def call_the_roll(
    enrol: Enrol, splits: Sequence[Split], executor: Executor, *, at_once: int, stall_seconds: float
) -> list[int]:
    """Enrol every row that has an id.

    Args:
        at_once: tasks in flight.
        stall_seconds: a task that reads nothing for so long is given up, and is tried again where possible.

    Returns:
        The numbers of the splits that hold rows to be claimed.

    Raises:
        TooManyRows: see `Enrol`.
        Exception: what a task raised; Ray wraps it.
    """
    executor.each(enrol, _tasks(splits), at_once=at_once, stall_seconds=stall_seconds)
    return [int(number) for number in enrol.registry.end_roll_call()]


def _tasks(splits: Sequence[Split]) -> Iterator[list[Stretch]]:
    held: list[Stretch] = []
    rows = 0
    for stretch in _stretches(splits):
        held.append(stretch)
        rows += sum(UNKNOWN_ROWS if count is None else count for count in stretch.rows)
        if rows >= TASK_ROWS or len(held) >= TASK_STRETCHES:
            yield held
            held, rows = [], 0
    if held:
        yield held


def _stretches(splits: Sequence[Split]) -> Iterator[Stretch]:
    held: Stretch | None = None
    for number, split in enumerate(splits):
        if held is not None and _follows(held, split):
            total = (held.split.rows or 0) + (split.rows or 0)
            held = Stretch(
                first=held.first, split=dataclasses.replace(held.split, rows=total), rows=(*held.rows, split.rows)
            )
            continue
        if held is not None:
            yield held
        held = Stretch(first=number, split=split, rows=(split.rows,))
    if held is not None:
        yield held


def _follows(held: Stretch, split: Split) -> bool:
    before = held.split
    if before.rows is None or split.rows is None or split.files or before.rows >= TASK_ROWS or split.most is not None:
        return False
    return (split.path, split.group, split.start) == (before.path, before.group, before.start + before.rows)


def _by_split(columns: Iterator[pa.ChunkedArray[Any]], stretch: Stretch) -> Iterator[tuple[int, pa.ChunkedArray[Any]]]:
    """The same ids with the position of the first of each array, no array in two splits or above `ENROL_ROWS` rows."""
    number, row = 0, 0
    held: list[Any] = []
    count = 0

    def told() -> tuple[int, pa.ChunkedArray[Any]]:
        position = ((stretch.first + number) << SPLIT_BITS) + row
        return position, pa.chunked_array([chunk for column in held for chunk in column.chunks], pa.string())

    for column in columns:
        while len(column):
            room = ENROL_ROWS - count
            rows = stretch.rows[number]
            if rows is not None:
                room = min(room, rows - row - count)
            if room == 0:
                yield told()
                row, held, count = row + count, [], 0
                if rows is not None and row == rows:
                    number, row = number + 1, 0
                continue
            held.append(column[:room])
            count += len(held[-1])
            column = column[room:]
    if count:
        yield told()
