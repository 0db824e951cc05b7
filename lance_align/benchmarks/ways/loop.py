"""``python loop.py INPUT MODEL DATABASE``: a plain loop over transformers and `table.add`."""

from __future__ import annotations

import io
import sys
from typing import Any

import lancedb
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AlignModel
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

BATCH = 32


def main(source: str, model_name: str, db: str) -> None:
    """Embed a Parquet file batch by batch."""
    processor = EfficientNetImageProcessorPil.from_pretrained(model_name)  # the default one needs torchvision
    model: Any = AlignModel.from_pretrained(model_name)  # in eval mode
    table = None
    for batch in pq.ParquetFile(source).iter_batches(batch_size=BATCH):
        rows: list[dict[str, Any]] = batch.to_pylist()
        images = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows]
        with torch.inference_mode():
            found = model.get_image_features(**processor(images, return_tensors="pt")).pooler_output
        for row, vector in zip(rows, torch.nn.functional.normalize(found).numpy(), strict=True):
            row["vector"] = vector
        if table is None:
            table = lancedb.connect(db).create_table("t", rows)
        else:
            table.add(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
