"""Train align-tiny from drawn scenes and emoji artwork.

    npm install --prefix artwork --ignore-scripts emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python pipelines/train.py --artwork artwork --out align-tiny --minutes 90
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
from cyclopts import App

from lance_align.spec import ImageSpec
from lance_align.training import recipe
from lance_align.training.artwork import read_artwork
from lance_align.training.export import save_checkpoint
from lance_align.training.loop import LogLine, Trainer, TrainOptions
from lance_align.training.pairs import MixedPairs
from lance_align.training.sources import EmojiPairs, draw_scene_pairs, recipe_texts

app = App()


@app.default
def train(
    *, artwork: Path, out: Path, minutes: float | None = None, steps: int | None = None, scenes: int = 24000,
    batch_size: int = 256, seed: int = 0, threads: int = 2,
) -> None:  # fmt: skip
    torch.set_num_threads(threads)
    emoji = EmojiPairs(read_artwork(artwork), recipe.SIDE_PX)
    drawn = draw_scene_pairs(seed=seed, count=scenes, side_px=recipe.SIDE_PX)
    tokenizer = recipe.build_tokenizer(recipe_texts(emoji, drawn))
    model = recipe.build_model(recipe.tiny_config(vocabulary_size=len(tokenizer)), seed=seed)
    image = ImageSpec(resize=(recipe.SIDE_PX, recipe.SIDE_PX), crop=(recipe.SIDE_PX, recipe.SIDE_PX))
    options = TrainOptions(
        steps=steps, minutes=minutes, batch_size=batch_size, seed=seed, learning_rate=2e-3, precision="bfloat16"
    )
    source = MixedPairs((emoji, drawn), (0.72, 0.28))
    trainer = Trainer(model, tokenizer, image, source, options, directory=out, report=report)
    save_checkpoint(trainer.run(), tokenizer, image, out)


def report(line: LogLine) -> None:
    print(json.dumps(dataclasses.asdict(line)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    app()
