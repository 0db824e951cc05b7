"""Small inputs for jobs: real image files with captions, some of them bad on purpose."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(seed: int, side_px: int = 12) -> bytes:
    """A small PNG, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def pictures(rows: int) -> pa.Table:
    """`rows` good rows: id, image, caption, and a column that only travels."""
    return pa.table(
        {
            "id": pa.array([f"row-{number}" for number in range(rows)], pa.string()),
            "image": pa.array([png(number) for number in range(rows)], pa.binary()),
            "caption": pa.array([f"picture {number}" for number in range(rows)], pa.string()),
            "kind": pa.array([f"kind {number % 3}" for number in range(rows)], pa.string()).dictionary_encode(),
        }
    )


def parquet(table: pa.Table, path: Path, *, group_rows: int = 16) -> Path:
    """Write a Parquet file with small row groups, so that a job has several splits."""
    pq.write_table(table, path, row_group_size=group_rows)
    return path


def stored(db: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a LanceDB table, in the order of their ids."""
    found: list[dict[str, Any]] = lancedb.connect(db).open_table(table).to_arrow().to_pylist()
    return sorted(found, key=lambda row: str(row["id"]))
