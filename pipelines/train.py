#!/usr/bin/env python
"""``lance-align train`` as a script, for ``ray job submit``; ``--help`` says what it takes.

With ``--artwork`` it makes align-tiny instead, in 86 minutes on two cores, from drawn scenes and the emoji of three
artists (npm fetches 180 MB):

    npm install --prefix artwork --ignore-scripts emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python pipelines/train.py --artwork artwork --out align-tiny --minutes 86
    python pipelines/evaluate.py --model align-tiny

Artwork: Noto Emoji (Apache 2.0), Twemoji (CC BY 4.0), Fluent Emoji (MIT); names and keywords: emojibase-data (MIT),
from Unicode CLDR.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from lance_align.cli import run_command
from lance_align.cli.command import application, run
from lance_align.cli.jobs import job_command
from lance_align.cli.train import GO_ON
from lance_align.jobs.train import fields_of, torch_threads, train
from lance_align.jobs.training_progress import training_progress

OF_A_TABLE = (
    *("table", "image", "text", "model", "vision_model", "text_model", "projection_dim", "workers"),
    *("held_out", "recall_every", "allow_outside", "fetch_hosts"),
)

app = application("train.py --artwork", __doc__)


def recipe(
    *,
    artwork: Path,
    scenes: int = 24_000,
    learning_rate: float = 2e-3,
    freeze_batch_norm: bool = False,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    **given: Any,
) -> None:
    """Make align-tiny.

    Args:
        artwork: the folder given to npm install.
        scenes: drawn scenes to train on.
        learning_rate: the peak.
        freeze_batch_norm: keep the running statistics of the first weights.
        precision: of the towers; weights stay float32.
    """
    given |= {"learning_rate": learning_rate, "freeze_batch_norm": freeze_batch_norm, "precision": precision}
    out = Path(given["out"])
    with training_progress(given["steps"], show=given["progress"]) as view, torch_threads(given["threads"]):
        view.say(f"making align-tiny from {artwork} into {out}")
        from lance_align.training import Trainer, TrainOptions
        from lance_align.training.curve import save_curve
        from lance_align.training.log import logged, read_log
        from lance_align.training.pinned import pin
        from lance_align.training.recipe import align_tiny

        options = TrainOptions(**fields_of(TrainOptions, given))
        pin(out, {"artwork": str(artwork), "scenes": scenes, **options.terms})
        trainable, source = align_tiny(artwork, scenes=scenes, seed=options.seed)
        with logged(out, view.show) as report:
            Trainer(trainable, source, options, directory=out, report=report).run().save(out)
        save_curve(read_log(out), out / "curve.png")
    print(f"saved {out}; use it with --model {out}")


app.default(job_command(recipe, train, run=None, without=OF_A_TABLE))

if __name__ == "__main__":
    if any(word.partition("=")[0] == "--artwork" for word in sys.argv):
        run(app, go_on=GO_ON)
    else:
        run_command("train")
