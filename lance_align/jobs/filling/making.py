"""Decoded rows to values and reasons: what an actor of a filling job does with one block, whatever it makes."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lance_align.jobs.filling.gaps import READ_SECONDS
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.decode import SECONDS
from lance_align.tables.filling import ADDRESS, Filling

ENCODE_SECONDS = "decoded.encode_seconds"  # float32, a row's share of its block
HALVED = "decoded.halved"  # int32: see `Batches`; a block's number stands in its first row
_CHOICES = b"choices"  # JSON in a table's metadata: what the worker's model runs on
SECONDS_COLUMNS = {"read": READ_SECONDS, "decode": SECONDS, "encode": ENCODE_SECONDS}  # by stage of the report


class Maker(ABC):
    """Makes the values of blocks; each call stands alone and may be repeated.

    Args:
        filling: the columns that are made.
        batches: of the model.
    """

    def __init__(self, filling: Filling, batches: Batches) -> None:
        self.filling = filling
        self.batches = batches

    @property
    def choices(self) -> Mapping[str, str | int]:
        """What the model runs on; see `Gathering.choices`."""
        return {}

    @property
    def halved(self) -> int:
        """How often a batch did not fit into memory, in the model or before it."""
        return self.batches.halved

    @abstractmethod
    def make(self, block: pa.Table) -> tuple[pa.Array[Any], list[str | None]]:
        """A value for each row, null where there is none, and the reasons."""

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows as `ReadGaps` gives them to addresses, values, reasons and seconds; no rows give no rows."""
        started = time.perf_counter()
        halved = self.halved
        values, reasons = self.make(block)
        columns: dict[str, Any] = {
            ADDRESS: block.column(ADDRESS),
            self.filling.target: values,
            self.filling.error: pa.array(reasons, pa.string()),
            READ_SECONDS: block.column(READ_SECONDS),
            SECONDS: block.column(SECONDS),
        }
        share_s = (time.perf_counter() - started) / max(1, block.num_rows)
        columns[ENCODE_SECONDS] = pa.array([share_s] * block.num_rows, pa.float32())
        halvings = [self.halved - halved] + [0] * (block.num_rows - 1)
        columns[HALVED] = pa.array(halvings[: block.num_rows], pa.int32())
        return pa.table(columns, metadata={_CHOICES: json.dumps(dict(self.choices))})


def choices_of(table: pa.Table) -> Mapping[str, str | int]:
    """What the worker that made a table said of its model; see `Maker.choices`."""
    found: dict[str, str | int] = json.loads((table.schema.metadata or {}).get(_CHOICES, b"{}"))
    return found
