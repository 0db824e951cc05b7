#!/usr/bin/env python
"""Train on a Lance table of image–text pairs: ALIGN, CLIP, VisionTextDualEncoder; or align-tiny from nothing.

Fine-tuning, from a table's uri such as db/photos.lance (s3:// too), and recall on 1,000 pairs held out:

    python pipelines/train.py TABLE_URI --text caption --model align-tiny --out mine --held-out 1000 --steps 500

A VisionTextDualEncoder from two checkpoints, first its projections alone; both towers, in four processes of Ray Train:

    python pipelines/train.py TABLE_URI --vision-model vit --text-model bert --freeze-image-tower --freeze-text-tower \
        --out pair --steps 500
    python pipelines/train.py TABLE_URI --model pair --out tuned --batch-size 4096 --pairs-per-pass 64 --workers 4

align-tiny, in 86 minutes on two cores, from drawn scenes and the emoji of three artists (npm fetches 180 MB):

    npm install --prefix artwork --ignore-scripts emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python pipelines/train.py --artwork artwork --out align-tiny --minutes 86
    python pipelines/evaluate.py --model align-tiny

The same command again goes on where a run was stopped. Pictures of artwork: Noto Emoji (Apache 2.0), Twemoji
(CC BY 4.0), Fluent Emoji (MIT); names and keywords: emojibase-data (MIT), from Unicode CLDR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lance_align.cli.command import application, run
from lance_align.errors import ArgumentError

FROM_NOTHING = {"learning_rate": 2e-3, "freeze_batch_norm": False, "precision": "bfloat16"}
FINE_TUNING = {"learning_rate": 1e-4, "freeze_batch_norm": True, "precision": "float32"}

app = application("train.py", __doc__)
GO_ON = "its last checkpoint stays; run the same command again to go on"


@app.default
def train(
    table: str | None = None,
    *,
    out: Path,
    artwork: Path | None = None,
    image: str = "image",
    text: str = "caption",
    model: str | None = None,
    vision_model: str | None = None,
    text_model: str | None = None,
    projection_dim: int = 512,
    workers: int = 1,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 256,
    pairs_per_pass: int | None = None,
    learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    weight_decay: float | None = None,
    warmup_steps: int | None = None,
    min_temperature: float | None = None,
    max_temperature: float | None = None,
    freeze_image_tower: bool = False,
    freeze_text_tower: bool = False,
    freeze_batch_norm: bool | None = None,
    gradient_checkpointing: bool = False,
    precision: Literal["float32", "bfloat16"] | None = None,
    held_out: int = 0,
    allow_outside: bool = False,
    fetch_hosts: Sequence[str] = (),
    recall_every: int | None = None,
    scenes: int = 24_000,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_every_s: float = 180.0,
) -> None:
    """Train until the steps or the minutes are over, whichever comes first.

    Args:
        table: uri of a Lance table to fine-tune on; leave it out to train align-tiny from `artwork`.
        out: directory of the model, the checkpoint and the log. One that holds a run goes on with it; another model,
            table, choice of rows or loss is refused. Duration, learning rate, precision and device may change.
        artwork: the folder given to npm install.
        image: the table's column of pictures: encoded, or paths, which start from the folder of the database.
        text: the table's column of captions.
        model: what to train further: a known name, a hub id or a directory; align-tiny where nothing is named.
        vision_model, text_model: a ViT, DeiT or CLIP and a BERT, RoBERTa or CLIP, paired anew: hub ids or directories.
        projection_dim: length of the vectors of such a pair.
        workers: processes of Ray Train; all must see `out`. Each has a GPU where there are GPUs, unless device is cpu.
        steps: optimiser steps.
        minutes: wall-clock budget.
        batch_size: pairs a step, of all workers together.
        pairs_per_pass: most pairs in the towers at once; gradients are those of the whole batch.
        learning_rate: the peak; 2e-3 from nothing and 1e-4 for fine-tuning where it is left out.
        head_learning_rate: the peak for projections and temperature; the same where it is left out.
        weight_decay: of matrices and kernels; 0.05 where it is left out.
        warmup_steps: in which the learning rate rises; 3 % of the run where it is left out.
        min_temperature, max_temperature: bounds of what cosines are divided by; 0.01 and none where left out.
        freeze_image_tower, freeze_text_tower: leave a tower as it is.
        freeze_batch_norm: keep running statistics; only fine-tuning does where it is left out.
        gradient_checkpointing: recompute activations, for less memory.
        precision: of the towers; bfloat16 from nothing and float32 for fine-tuning where it is left out.
        held_out: rows of the table to measure recall on; no row that shows one of their pictures is trained on.
        allow_outside: let image paths in the rows lead out of the database's folder.
        fetch_hosts: hosts that image URLs in the rows are fetched from; none by default.
        recall_every: steps between measurements; only at the end where it is left out.
        scenes: drawn scenes to train on.
        seed: of first weights, batches and dropout.
        device: "auto", "cpu", "mps" or "cuda".
        threads: of the processor; torch decides where it is left out.
        checkpoint_every_s: seconds between checkpoints.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if (table is None) == (artwork is None):
        raise ArgumentError("give either a table to fine-tune on or --artwork to train align-tiny, and not both")
    import torch

    from lance_align.fetching import fetch_policy
    from lance_align.jobs.train import TrainJob, train_on_table
    from lance_align.training import Trainer, TrainOptions
    from lance_align.training.log import logged
    from lance_align.training.pinned import pin

    torch.set_num_threads(threads or torch.get_num_threads())
    options = TrainOptions(**named(TrainOptions, {**(FINE_TUNING if table else FROM_NOTHING), **given}))
    with logged(out) as report:
        if table is None:
            from lance_align.training.recipe import align_tiny

            pin(out, {"artwork": str(artwork), "scenes": scenes, **options.terms})
            trainable, source = align_tiny(Path(str(artwork)), scenes=scenes, seed=seed)
            Trainer(trainable, source, options, directory=out, report=report).run().save(out)
        else:
            given = {"model": None if vision_model or text_model else "align-tiny", **given, "options": options}
            given["fetching"] = fetch_policy(fetch_hosts)
            train_on_table(TrainJob(**named(TrainJob, given)), workers=workers, report=report)
    print(f"saved {out}; use it with --model {out}")


def named(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}


if __name__ == "__main__":
    run(app, go_on=GO_ON)
