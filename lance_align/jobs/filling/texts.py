"""Pictures and prompts to texts: an actor of the describing job's pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lance_align.describers.base import Describer
from lance_align.describers.loading import load_describer
from lance_align.describers.spec import DescriberSpec
from lance_align.encoders.once import Once
from lance_align.images import Pixels
from lance_align.jobs.filling.gaps import TEXT
from lance_align.jobs.filling.making import Maker
from lance_align.jobs.filling.pictures import pictures_of
from lance_align.jobs.shape import Shape
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.decode import REASON
from lance_align.tables.filling import Filling

# Described at once, each batch a sign of life. Seven billion parameters need 8.4 TFLOP for the 600 tokens of a picture,
# some 50 s of two CPU cores: 8 rows stay below the 900 s of `stall_seconds`.
GPU_ROWS = 32
CPU_ROWS = 8


class Row(NamedTuple):
    """A picture, uint8 ``(height, width, 3)``, and what is asked of it."""

    picture: Pixels
    prompt: str | None


class TextMaker(Maker):
    """Loads a describer with its first block, then describes blocks.

    Args:
        spec: the describer; its weights are found and verified here, on the worker.
        filling: the columns that are made.
        shape: where and on how many threads the model runs.
    """

    def __init__(self, spec: DescriberSpec, filling: Filling, shape: Shape) -> None:
        super().__init__(filling, Batches(GPU_ROWS if shape.gpus else CPU_ROWS))
        # With the first block: Ray starts an actor that fails again and again, a block that fails ends the job.
        self._describer = Once(lambda: _loaded(spec, shape))

    @property
    def choices(self) -> Mapping[str, str | int]:
        """See `Maker.choices`."""
        return self._describer().choices if self._describer.made else {}

    def make(self, block: pa.Table) -> tuple[pa.Array[Any], list[str | None]]:
        """See `Maker.make`; a text that was cut has a reason as well."""
        reasons: list[str | None] = block.column(REASON).to_pylist()
        prompts: list[str | None] = block.column(TEXT).to_pylist()
        pictures = pictures_of(block)
        good = [number for number, reason in enumerate(reasons) if reason is None]
        rows = [Row(picture, prompts[number]) for number in good if (picture := pictures[number]) is not None]
        texts = np.full(len(rows), None, dtype=object)
        found = self.batches.fill(texts, rows, self._described)
        values: list[str | None] = [None] * len(reasons)
        for number, text, reason in zip(good, texts.tolist(), found, strict=True):
            values[number], reasons[number] = text, reason
        return pa.array(values, pa.string()), reasons

    def _described(self, rows: list[Row]) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
        found = self._describer().describe([row.picture for row in rows], [row.prompt for row in rows])
        return found.texts, found.reasons


def _loaded(spec: DescriberSpec, shape: Shape) -> Describer:
    import torch

    torch.set_num_threads(shape.threads)
    return load_describer(spec, device=shape.worker_device)
