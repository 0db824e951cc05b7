"""Train align-tiny from nothing, or any ALIGN checkpoint further on a Lance table of image–text pairs.

align-tiny, in 86 minutes on two cores, from drawn scenes and the emoji of three artists (npm fetches 180 MB):

    npm install --prefix artwork --ignore-scripts emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python pipelines/train.py --artwork artwork --out align-tiny --minutes 86
    python pipelines/evaluate.py --model align-tiny

Fine-tuning, from a table's uri such as db/photos.lance (s3:// too):

    python pipelines/train.py TABLE_URI --image image --text caption --model align-tiny --out mine --steps 500

The same command again goes on where a run was stopped. Pictures of artwork: Noto Emoji (Apache 2.0), Twemoji
(CC BY 4.0), Fluent Emoji (MIT); names and keywords: emojibase-data (MIT), from Unicode CLDR.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from lance_align.errors import ArgumentError, LanceAlignError, SourceError

if TYPE_CHECKING:
    from lance_align.spec import ImageSpec
    from lance_align.training import LogLine, PairSource, RowPairs

app = App(name="train.py", help=__doc__, help_format="markdown")


@app.default
def train(
    table: str | None = None,
    *,
    out: Path,
    artwork: Path | None = None,
    image: str = "image",
    text: str = "caption",
    model: str = "align-tiny",
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 256,
    learning_rate: float | None = None,
    freeze_batch_norm: bool | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    scenes: int = 24_000,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_every_s: float = 180.0,
) -> None:
    """Train until the steps or the minutes are over, whichever comes first.

    Args:
        table: uri of a Lance table to fine-tune on; leave it out to train align-tiny from `artwork`.
        out: directory of the model, the checkpoint and the log.
        artwork: the folder given to npm install.
        image: the table's column of encoded pictures.
        text: the table's column of captions.
        model: what to fine-tune: a known name, a hub id or a directory.
        steps: optimiser steps.
        minutes: wall-clock budget.
        batch_size: pairs a step.
        learning_rate: the peak; 2e-3 from nothing and 1e-4 for fine-tuning where it is left out.
        freeze_batch_norm: keep running statistics; only fine-tuning does where it is left out.
        precision: of the towers; bfloat16 from nothing and float32 for fine-tuning where it is left out.
        scenes: drawn scenes to train on.
        seed: of first weights, batches and dropout.
        device: "auto", "cpu", "mps" or "cuda".
        threads: of the processor; torch decides where it is left out.
        checkpoint_every_s: seconds between checkpoints.
    """
    if (table is None) == (artwork is None):
        raise ArgumentError("give either a table to fine-tune on or --artwork to train align-tiny, and not both")
    import torch
    from transformers.utils.logging import disable_progress_bar

    from lance_align.encoders import resolve_spec
    from lance_align.training import Trainer, TrainOptions, load_trainable
    from lance_align.training.recipe import align_tiny

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading and saving, which take a moment
    torch.set_num_threads(threads or torch.get_num_threads())
    tuning = table is not None
    options = TrainOptions(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate or (1e-4 if tuning else 2e-3),
        freeze_batch_norm=tuning if freeze_batch_norm is None else freeze_batch_norm,
        precision=precision or ("float32" if tuning else "bfloat16"),
        device=device,
        seed=seed,
        checkpoint_every_s=checkpoint_every_s,
    )
    source: PairSource
    if table is not None:
        source = table_pairs(table, image, text, resolve_spec(model).image)
        trainable = load_trainable(model)
    else:
        assert artwork is not None
        trainable, source = align_tiny(artwork, scenes=scenes, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "train.jsonl").open("a", encoding="utf-8") as log:

        def report(line: LogLine) -> None:
            for stream in (log, sys.stdout):
                print(json.dumps(dataclasses.asdict(line)), file=stream, flush=True)

        Trainer(trainable, source, options, directory=out, report=report).run().save(out)
    print(f"saved {out}; use it with --model {out}")


def table_pairs(uri: str, image: str, text: str, geometry: ImageSpec) -> RowPairs:
    """Rows of a Lance table, read when a batch wants them."""
    import lance

    from lance_align.training import RowPairs

    try:
        dataset = lance.dataset(uri)
    except (ValueError, OSError) as error:
        raise SourceError(f"{uri} cannot be opened as a Lance table ({str(error).splitlines()[0][:200]})") from error
    missing = {image, text} - set(dataset.schema.names)
    if missing:
        raise SourceError(f"{uri} has no column {sorted(missing)}; it has {dataset.schema.names}")

    def fetch(places: Any) -> list[tuple[bytes | None, str | None]]:
        rows = dataset.take(places, columns=[image, text])
        return list(zip(rows[image].to_pylist(), rows[text].to_pylist(), strict=True))

    return RowPairs(fetch, dataset.count_rows(), geometry)


if __name__ == "__main__":
    try:
        app()
    except LanceAlignError as error:
        sys.exit(f"error: {error}")
