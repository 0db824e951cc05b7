"""``python ray_data.py INPUT MODEL DATABASE``: batch inference as Ray Data documents it.

https://docs.ray.io/en/latest/data/batch_inference.html: `map_batches` with a class that loads the model once. Ray
Data's own Lance sink fails on pylance 14 (https://github.com/ray-project/ray/issues/65129), so the driver adds the
batches.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import lancedb
import pyarrow as pa
import ray
import torch
from PIL import Image

BATCH = 32


class Embed:
    """An actor with the model."""

    def __init__(self, model_name: str) -> None:
        from transformers import AlignModel
        from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

        self.processor = EfficientNetImageProcessorPil.from_pretrained(model_name)  # the default needs torchvision
        self.model: Any = AlignModel.from_pretrained(model_name)  # in eval mode

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Decode and embed."""
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch["image"]]
        with torch.inference_mode():
            found = self.model.get_image_features(**self.processor(images, return_tensors="pt")).pooler_output
        batch["vector"] = torch.nn.functional.normalize(found).numpy()
        return batch


def main(source: str, model_name: str, db: str) -> None:
    """Embed a Parquet file, and add what comes to a table."""
    ray.init(include_dashboard=False, log_to_driver=False)
    found = ray.data.read_parquet(source).map_batches(
        Embed, fn_constructor_args=(model_name,), batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1)
    )
    table = None
    batches: Any = found.iter_batches(batch_size=BATCH, batch_format="numpy")
    for batch in batches:
        columns: dict[str, Any] = {name: batch[name].tolist() for name in ("id", "image", "caption")}
        columns["vector"] = pa.array(list(batch["vector"]), pa.list_(pa.float32(), batch["vector"].shape[1]))
        rows = pa.table(columns)
        if table is None:
            table = lancedb.connect(db).create_table("t", rows)
        else:
            table.add(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
