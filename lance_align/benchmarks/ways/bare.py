"""``python bare.py INPUT MODEL DATABASE``: load, decode, encode and write in one process, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lance_align import load_encoder, visuals

BATCH = 1024  # as the job's blocks


def main(source: str, model: str, db: str) -> None:
    """Embed a folder of Parquet files batch by batch."""
    encoder = load_encoder(model, device="cpu")
    for path in sorted(Path(source).rglob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH):
            images: list[Any] = batch.column("image").to_pylist()
            pixels = np.stack([visuals.read_pixels(image, encoder.spec.image) for image in images])
            vectors = encoder.encode_pixels(pixels)
            flat: Any = pa.array(np.asarray(vectors, np.float32).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, encoder.spec.dim)
            lance.write_dataset(
                pa.Table.from_batches([batch]).append_column("vector", column), f"{db}/t.lance", mode="append"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
