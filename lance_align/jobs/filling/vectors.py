"""Decoded rows to vectors and reasons: what an actor of the backfill's pool does with one block."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from lance_align.jobs.cluster import Shape
from lance_align.jobs.filling.gaps import READ_SECONDS, TEXT
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.decode import SECONDS
from lance_align.jobs.stages.encode import embed_pixels, embed_texts, vector_column, worker_encoder
from lance_align.spec import ModelSpec
from lance_align.tables.filling import ADDRESS, Filling

ENCODE_SECONDS = "decoded.encode_seconds"  # float32, a row's share of its block
HALVED = "decoded.halved"  # int32: see `Batches`; a block's number stands in its first row
SECONDS_COLUMNS = {"read": READ_SECONDS, "decode": SECONDS, "encode": ENCODE_SECONDS}  # by stage of the report


class VectorMaker:
    """Loads a model once, then embeds blocks; each call stands alone and may be repeated.

    Args:
        spec: the model; its weights are found and verified here, on the worker.
        filling: the columns that are made.
        shape: where and on how many threads the model runs.
    """

    def __init__(self, spec: ModelSpec, filling: Filling, shape: Shape) -> None:
        self.encoder = worker_encoder(spec, shape)
        self.filling = filling
        self.batches = Batches()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows as `ReadGaps` gives them to addresses, vectors, reasons and seconds; no rows give no rows."""
        started = time.perf_counter()
        halved = self.batches.halved
        if self.filling.column.kind == "image":
            vectors, reasons = embed_pixels(block, self.encoder, self.batches)
        else:
            vectors, reasons = embed_texts(block.column(TEXT), self.encoder, self.batches)
        columns: dict[str, Any] = {
            ADDRESS: block.column(ADDRESS),
            self.filling.column.vector: vector_column(vectors, reasons),
            self.filling.error: pa.array(reasons, pa.string()),
            READ_SECONDS: block.column(READ_SECONDS),
            SECONDS: block.column(SECONDS),
        }
        share_s = (time.perf_counter() - started) / max(1, block.num_rows)
        columns[ENCODE_SECONDS] = pa.array([share_s] * block.num_rows, pa.float32())
        halvings = [self.batches.halved - halved] + [0] * (block.num_rows - 1)
        columns[HALVED] = pa.array(halvings[: block.num_rows], pa.int32())
        return pa.table(columns)
