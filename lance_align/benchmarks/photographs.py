"""Files as cameras, screenshots and websites make them: drawn scenes under a texture, or the user's own photographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lance_align.benchmarks.inputs import SEED, encoded, scene_pictures
from lance_align.errors import ArgumentError, RowError
from lance_align.images import load

SIZES_PX: Mapping[str, tuple[int, int]] = {"0.3 MP": (640, 480), "2 MP": (1632, 1224), "12 MP": (4000, 3000)}
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 3},
    "WEBP": {"method": 1},
}

_SCENE_PX = 512
_TEXTURE = 3.0  # standard deviation of each octave in levels; ten of them give a photograph's 1/f spectrum
_OFFERED = (".jpg", ".jpeg", ".png", ".webp")


def photo_files(number: int, folder: Path | None, *, sizes_px: Mapping[str, tuple[int, int]]) -> Iterator[list[bytes]]:
    """Encoded pictures: for each size all formats, as `photo_kinds` names them.

    Args:
        number: pictures of each kind, at most.
        folder: photographs that are scaled and cropped to every size; None makes pictures.
        sizes_px: (width, height) by name.

    Raises:
        ArgumentError: the folder holds no picture.
    """
    for size in sizes_px.values():
        pictures = _made(number, size) if folder is None else _brought(number, folder, size)
        for name, options in FORMATS.items():
            yield [encoded(picture, name, **options) for picture in pictures]


def photo_kinds(sizes_px: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    """Format and name of size of what `photo_files` gives."""
    return [(name, size) for size in sizes_px for name in FORMATS]


def _made(number: int, size: tuple[int, int]) -> list[Image.Image]:
    rng = np.random.default_rng(SEED)
    pictures = []
    for scene in scene_pictures(number, size_px=_SCENE_PX):
        pixels = np.asarray(scene.resize(size, Image.Resampling.BICUBIC)) + _texture(size, rng)[:, :, np.newaxis]
        pictures.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return pictures


def _texture(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of equal strength at every octave, from blotches as large as the picture to single pixels: (h, w)."""
    width, height = size
    octaves = int(np.log2(max(size)))
    field = np.zeros((1, 1), dtype=np.float32)
    for octave in reversed(range(octaves)):
        shape = (-(-width // 2**octave), -(-height // 2**octave))
        field = np.array(Image.fromarray(field).resize(shape, Image.Resampling.BICUBIC))
        field += rng.normal(0, _TEXTURE, field.shape).astype(np.float32)
    return field


def _brought(number: int, folder: Path, size: tuple[int, int]) -> list[Image.Image]:
    found: list[Image.Image] = []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _OFFERED)
    for path in paths:
        if len(found) == number:
            break
        try:
            found.append(ImageOps.fit(load(path), size))
        except RowError:
            continue
    if not found:
        raise ArgumentError(
            f"{folder} holds no picture that can be opened ({', '.join(_OFFERED)}); name another folder"
        )
    return found
