"""The embed job's plan: which splits a task reads, and what the workers are."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pyarrow as pa

from lance_align.jobs.executors.base import Executor
from lance_align.jobs.ledger.ledger import SPLIT_BITS
from lance_align.jobs.ledger.registry import IdRegistry
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.shape import Shape
from lance_align.jobs.sources import Split
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import BlockWriter, Target
from lance_align.spec import ModelSpec

GROUPS_PER_READER = 4  # so that all of them have work until the end
MAX_GROUP = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadSplits:
    """The first stage: one row that names splits in, their decoded rows out.

    Attributes:
        reader: what is done with each split.
        registry: asked whose rows they are.
    """

    reader: Reader
    registry: IdRegistry

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """Stream the rows of the splits."""
        numbers: list[Any] = row.column("numbers")[0].as_py()
        splits: list[Any] = row.column("splits")[0].as_py()
        for number, split in zip(numbers, splits, strict=True):
            position = number << SPLIT_BITS
            yield from self.reader.rows(Split.from_json(split), first_position=position, claims=self.registry)


@dataclasses.dataclass(frozen=True, slots=True)
class Teller:
    """Tells a registry, wherever it is, how many more rows are embedded."""

    registry: IdRegistry

    def __call__(self, rows: int) -> None:
        self.registry.advance(embedded=rows)


def grouped(splits: Mapping[int, Split], *, rows: int, at_least: int) -> Iterator[dict[int, Split]]:
    """Consecutive splits of few rows together, for one task each: a task costs about 50 ms (Ray 2.60, two cores).

    Args:
        splits: by their numbers, in order.
        rows: a group ends before it holds more; a split of more rows, or of unknown length, is a group of its own.
        at_least: groups end earlier where there would be fewer of them than that.
    """
    total = sum(split.rows or 0 for split in splits.values())
    rows = max(1, min(rows, total // max(1, at_least)))
    held: dict[int, Split] = {}
    count = 0
    for number, split in splits.items():
        if held and (split.rows is None or count + split.rows > rows or len(held) >= MAX_GROUP):
            yield held
            held, count = {}, 0
        held[number] = split
        count += rows + 1 if split.rows is None else split.rows
    if held:
        yield held


def receipts(
    splits: Mapping[int, Split],
    read: ReadSplits,
    spec: ModelSpec,
    target: Target,
    *,
    executor: Executor,
    shape: Shape,
) -> Generator[Receipt, None, None]:
    """Run the plan; receipts arrive as blocks are written, in no particular order.

    Args:
        splits: by their numbers.

    Raises:
        Exception: what a task raised; Ray wraps it.
    """
    groups = grouped(splits, rows=shape.block_rows, at_least=GROUPS_PER_READER * shape.readers)
    rows = [{"numbers": list(group), "splits": [split.to_json() for split in group.values()]} for group in groups]
    arguments = (spec, target, shape, Teller(read.registry))
    stream = executor.stream(
        rows, read.__call__, BlockWriter, arguments, table_rows=read.reader.table_rows, shape=shape
    )
    with contextlib.closing(stream):
        for table in stream:
            texts: list[Any] = table.column("receipt").to_pylist()
            yield from map(Receipt.from_json, texts)
