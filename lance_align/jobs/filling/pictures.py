"""Whole pictures of any size as columns of a table, on their way from a reading task to a describer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lance_align.images import Pixels
from lance_align.jobs.stages.decode import PIXELS

HEIGHT = "decoded.height"  # int32, of the picture in `PIXELS`; null where there is none


def picture_columns(pictures: Sequence[Pixels | None]) -> dict[str, Any]:
    """The columns `PIXELS` and `HEIGHT`; null where there is no picture."""
    cells = [None if picture is None else picture.tobytes() for picture in pictures]
    heights = [None if picture is None else picture.shape[0] for picture in pictures]
    # large: a block of 700 pictures of 3 MiB would not fit into 31 bits
    return {PIXELS: pa.array(cells, pa.large_binary()), HEIGHT: pa.array(heights, pa.int32())}


def pictures_of(block: pa.Table) -> list[Pixels | None]:
    """The inverse of `picture_columns`: uint8 ``(height, width, 3)`` views, None where there is no picture."""
    heights: list[int | None] = block.column(HEIGHT).to_pylist()
    cells: Any = block.column(PIXELS)
    return [
        None if height is None else _picture(cell.as_buffer(), height)
        for cell, height in zip(cells, heights, strict=True)
    ]


def _picture(buffer: Any, height: int) -> Pixels:
    flat: Pixels = np.frombuffer(buffer, dtype=np.uint8)
    return flat.reshape(height, -1, 3)
