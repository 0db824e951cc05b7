"""``python daft_embed.py INPUT MODEL DATABASE``: Daft's `embed_image`, by an interpreter that has Daft."""

from __future__ import annotations

import sys

import daft
from daft import col
from daft.functions import decode_image, embed_image


def main(source: str, model_name: str, db: str) -> None:
    """Embed a Parquet file into Lance."""
    pictures = decode_image(col("image")).convert_image("RGB")
    vectors = embed_image(pictures, provider="transformers", model=model_name, batch_size=32)
    daft.read_parquet(source).with_column("vector", vectors).write_lance(f"{db}/t.lance")


if __name__ == "__main__":
    main(*sys.argv[1:])
