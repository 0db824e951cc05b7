"""Pictures and captions to measure with."""

from __future__ import annotations

import io
import random
from typing import Any

from PIL import Image

from lance_align.corpora import openmoji
from lance_align.corpora.scenes import draw_scene, scenes

SEED = 0


def scene_pictures(number: int, *, size_px: int) -> list[Image.Image]:
    """Drawn scenes, RGB, `size_px` wide and high."""
    return [
        Image.fromarray(draw_scene(scene, size_px=size_px, oversample=1)) for scene in scenes(seed=SEED, count=number)
    ]


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    """A picture as a file of the format that Pillow calls `name`."""
    out = io.BytesIO()
    picture.save(out, format=name, **options)
    return out.getvalue()


def caption_mixes(number: int) -> dict[str, list[str]]:
    """Captions of real lengths: names of emoji, captions of scenes, and 1 to 60 words drawn evenly."""
    names = [emoji.name for emoji in openmoji.catalogue()]
    draw = random.Random(SEED)
    said = [draw.choice(scene.captions) for scene in scenes(seed=SEED, count=number)]
    words = " ".join(said).split()
    return {
        "emoji names": [draw.choice(names) for _ in range(number)],
        "scene captions": said,
        "1-60 words": [" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(number)],
    }
