"""Decoded rows to values and reasons: what an actor of a filling job does with one block, whatever it makes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa

from lance_align.jobs.filling.gaps import READ_SECONDS
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.decode import SECONDS
from lance_align.tables.filling import ADDRESS, Filling

ENCODE_SECONDS = "decoded.encode_seconds"  # float32, a row's share of its block
HALVED = "decoded.halved"  # int32: see `Batches`; a block's number stands in its first row
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

    @abstractmethod
    def make(self, block: pa.Table) -> tuple[pa.Array[Any], list[str | None]]:
        """A value for each row, null where there is none, and the reasons."""

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows as `ReadGaps` gives them to addresses, values, reasons and seconds; no rows give no rows."""
        started = time.perf_counter()
        halved = self.batches.halved
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
        halvings = [self.batches.halved - halved] + [0] * (block.num_rows - 1)
        columns[HALVED] = pa.array(halvings[: block.num_rows], pa.int32())
        return pa.table(columns)
