"""Pixels and texts to vectors: an actor of the backfill's pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lance_align.jobs.filling.gaps import TEXT
from lance_align.jobs.filling.making import Maker
from lance_align.jobs.shape import Shape
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.encode import embed_pixels, embed_texts, vector_column, worker_encoder
from lance_align.spec import ModelSpec
from lance_align.tables.filling import Filling


class VectorMaker(Maker):
    """Loads a model once, then embeds blocks.

    Args:
        spec: the model; its weights are found and verified here, on the worker.
        filling: the columns that are made.
        shape: where and on how many threads the model runs.
    """

    def __init__(self, spec: ModelSpec, filling: Filling, shape: Shape) -> None:
        super().__init__(filling, Batches())
        self.encoder = worker_encoder(spec, shape)

    @property
    def choices(self) -> Mapping[str, str | int]:
        """See `Maker.choices`."""
        return self.encoder.choices

    @property
    def halved(self) -> int:
        """See `Maker.halved`."""
        return self.batches.halved + self.encoder.halved

    def make(self, block: pa.Table) -> tuple[pa.Array[Any], list[str | None]]:
        """See `Maker.make`."""
        if self.filling.kind == "image":
            vectors, reasons = embed_pixels(block, self.encoder, self.batches)
        else:
            vectors, reasons = embed_texts(block.column(TEXT), self.encoder, self.batches)
        return vector_column(vectors, reasons), reasons
