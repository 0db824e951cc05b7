"""Image files of every kind the encoders must treat as the reference does."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def scene(width: int, height: int, *, seed: int) -> Image.Image:
    """An RGB picture with structure: random blobs of colour, smoothly enlarged."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def every_kind() -> dict[str, bytes]:
    """One file for each mode, orientation and size that has caused trouble somewhere."""
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: rotate a quarter turn clockwise to see it upright
    alpha = scene(120, 90, seed=4)
    alpha.putalpha(Image.linear_gradient("L").resize((120, 90)))
    return {
        "rgb": encoded(scene(160, 120, seed=1), "PNG"),
        "jpeg": encoded(scene(320, 200, seed=2), "JPEG", quality=90),
        "greyscale": encoded(scene(100, 140, seed=3).convert("L"), "PNG"),
        "palette": encoded(scene(90, 90, seed=5).quantize(16), "PNG"),
        "palette with transparency": encoded(scene(90, 90, seed=6).quantize(16), "PNG", transparency=3),
        "rgba": encoded(alpha, "PNG"),
        "cmyk": encoded(scene(200, 150, seed=7).convert("CMYK"), "JPEG"),
        "exif rotated": encoded(scene(240, 120, seed=8), "JPEG", exif=turned),
        "one pixel": encoded(Image.new("RGB", (1, 1), (200, 30, 90)), "PNG"),
        "4000 pixels": encoded(scene(4000, 3000, seed=9), "JPEG"),
    }
