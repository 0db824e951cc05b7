"""Small copies of the emoji packages' layout, with pictures drawn for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lance_align.training.artwork import ARTISTS, NAMES

ENTRIES: list[dict[str, Any]] = [
    {"label": "red apple", "hexcode": "1F34E", "tags": ["apple", "fruit", "red"], "group": 4},
    {"label": "green heart", "hexcode": "1F49A", "tags": ["green", "heart"], "group": 0},
    {"label": "Left arrow", "hexcode": "2B05-FE0F", "tags": ["arrow"], "group": 8},
    {"label": "blue book", "hexcode": "1F4D8", "group": 7},
    {"label": "clockwise car", "hexcode": "1F697", "tags": ["car"], "group": 5},
    {"label": "flag: Wales", "hexcode": "1F3F4", "tags": ["flag"], "group": 9},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
_COLOURS = {"1f34e": "red", "1f49a": "lime", "2b05": "black", "1f4d8": "blue", "1f697": "orange", "1f3f4": "grey"}


def write_artwork(root: Path, *, entries: list[dict[str, Any]] | None = None) -> Path:
    """Lay out the packages below `root`; the artists write the variation selector FE0F differently."""
    modules = root / "node_modules"
    names = modules / NAMES
    names.parent.mkdir(parents=True)
    names.write_text(json.dumps(ENTRIES if entries is None else entries))
    for number, (folder, suffix) in enumerate(ARTISTS.values()):
        (modules / folder).mkdir(parents=True)
        for code, colour in _COLOURS.items():
            file = f"{code}-fe0f" if code == "2b05" and number == 0 else code
            _picture(colour, number).save(modules / folder / f"{file}{suffix}", lossless=True)
    return root


def _picture(colour: str, artist: int) -> Image.Image:
    """A shape on transparent ground; one artist draws wide pictures."""
    image = Image.new("RGBA", (64, 64) if artist != 1 else (80, 40))
    pen = ImageDraw.Draw(image)
    box = (8, 8, image.width - 9, image.height - 9)
    (pen.ellipse if artist == 0 else pen.rectangle)(box, fill=colour)
    return image


def opaque_share(rgba: np.ndarray) -> float:
    """Share of pixels that are covered."""
    return float((rgba[..., 3] > 127).mean())
