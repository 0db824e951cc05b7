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
import ray

from lance_align.jobs.columns import Columns
from lance_align.jobs.ids import id_hashes, text_ids
from lance_align.jobs.ledger.actor import RemoteLedger
from lance_align.jobs.ledger.ledger import SPLIT_BITS
from lance_align.jobs.sources import Source, Split
from lance_align.jobs.stages.reading import read_split
from lance_align.jobs.watchdog import beat, watched

TASK_ROWS = 2**18  # a task reads at least this many ids, if there are
TASK_STRETCHES = 64  # or this many parts of files
UNKNOWN_ROWS = 8192  # what a split counts for that only reading tells the rows of
ENROL_ROWS = 2**16  # told to the ledger at once
MAX_RETRIES = 10  # as in `lance_align.jobs.plan`


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


def call_the_roll(
    source: Source, id_column: str, ledger: RemoteLedger, *, at_once: int, stall_seconds: float
) -> list[int]:
    """Enrol every row that has an id.

    Args:
        at_once: tasks in flight.
        stall_seconds: a task that reads nothing for so long ends its process, and is tried again.

    Returns:
        The numbers of the splits that hold rows to be claimed.

    Raises:
        RayError: what a task raised, wrapped.
    """
    enrol = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_enrol)
    small = ray.put(dataclasses.replace(source, splits=()))
    running: list[Any] = []
    for stretches in _tasks(source.splits):
        if len(running) >= at_once:
            running = _wait(running)
        running.append(enrol.remote(small, id_column, ledger, stretches, stall_seconds))
    while running:
        running = _wait(running)
    return [int(number) for number in ledger.end_roll_call()]


def _wait(running: list[Any]) -> list[Any]:
    done, rest = ray.wait(running, num_returns=1)
    ray.get(done)
    return list(rest)


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
    if before.rows is None or split.rows is None or split.files or before.rows >= TASK_ROWS:
        return False
    return (split.path, split.group, split.start) == (before.path, before.group, before.start + before.rows)


def _enrol(
    source: Source, id_column: str, ledger: RemoteLedger, stretches: Sequence[Stretch], stall_seconds: float
) -> None:
    """What a task does: it may be run again, and says the same."""
    ledger.tally()  # answers when it has read the table's ids, which may take minutes and is no stall
    with watched(stall_seconds):  # once: to watch each of many small files took longer than to read them
        for stretch in stretches:
            started = time.perf_counter()
            for position, ids in _by_split(_ids(source, stretch.split, id_column), stretch):
                texts: list[Any] = ids.to_pylist()
                named = np.asarray(ids.is_valid().to_numpy(), dtype=np.bool_)
                hashes = id_hashes([text or "" for text in texts])
                losers = ledger.enrol(position, hashes, named, time.perf_counter() - started)
                notes = {int(losers[row]): texts[row] for row in np.flatnonzero(losers >= 0)}
                if notes:
                    ledger.note("duplicate", notes)
                beat()
                started = time.perf_counter()


def _ids(source: Source, split: Split, id_column: str) -> Iterator[pa.ChunkedArray[Any]]:
    for table in read_split(source, split, columns=[id_column]):
        beat()
        yield text_ids(table.column(id_column), id_column)


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
