"""Scenes to pixels: antialiased polygons on a background, the same for the same scene."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lance_align.corpora.shapes import SHAPES, Tone
from lance_align.corpora.world import BACKGROUNDS, PlacedObject, Rgb, Scene
from lance_align.errors import ArgumentError

_TONES: Mapping[Tone, Rgb] = {"ink": (52, 48, 52), "glass": (214, 232, 240)}


def draw_scene(scene: Scene, *, size_px: int = 64, oversample: int = 4) -> NDArray[np.uint8]:
    """Paint a scene: drawn `oversample` times larger, then averaged down.

    Returns:
        uint8 ``(size_px, size_px, 3)`` RGB.

    Raises:
        ArgumentError: `size_px` or `oversample` below 1.
    """
    if size_px < 1 or oversample < 1:
        raise ArgumentError(f"size_px={size_px}, oversample={oversample}; expected whole numbers from 1")
    side = size_px * oversample
    image = _empty(scene.background, side).copy()
    pen = ImageDraw.Draw(image)
    for item in scene.objects:
        _paint(pen, item, side)
    return np.asarray(image.reduce(oversample))


def _paint(pen: ImageDraw.ImageDraw, item: PlacedObject, side: int) -> None:
    angle = math.radians(item.tilt_deg)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    if item.flipped:
        turn = np.array([[-1.0, 0.0], [0.0, 1.0]]) @ turn
    scale, centre = item.radius * side, np.array([item.x, item.y]) * side
    width = max(1, round(scale * 0.05))
    edge = _darker(item.rgb, 0.5)
    for part in SHAPES[item.name]:
        points = (part.outline @ turn * scale + centre).ravel().tolist()
        tone = part.tone
        fill = item.rgb if tone == "main" else _darker(item.rgb, 0.72) if tone == "shade" else _TONES[tone]
        pen.polygon(points, fill=fill, outline=edge, width=width)


def _darker(rgb: Rgb, share: float) -> Rgb:
    red, green, blue = (round(value * share) for value in rgb)
    return red, green, blue


@lru_cache(maxsize=32)
def _empty(background: str, side: int) -> Image.Image:
    item = BACKGROUNDS[background]
    image = Image.new("RGB", (side, side), item.rgb)
    pen = ImageDraw.Draw(image)
    if item.pattern == "horizon":
        pen.rectangle((0, round(side * 0.62), side, side), fill=item.pattern_rgb)
    elif item.pattern == "grid":
        for k in range(1, 8):
            at = round(side * k / 8)
            pen.line((0, at, side, at), fill=item.pattern_rgb, width=max(1, side // 80))
            pen.line((at, 0, at, side), fill=item.pattern_rgb, width=max(1, side // 80))
    elif item.pattern == "specks":
        rng = random.Random(background)
        for _ in range(60):
            x, y, r = rng.random() * side, rng.random() * side, side * 0.008
            pen.ellipse((x - r, y - r, x + r, y + r), fill=item.pattern_rgb)
    elif item.pattern == "bricks":
        for row in range(8):
            y = round(side * row / 8)
            pen.line((0, y, side, y), fill=item.pattern_rgb, width=max(1, side // 50))
            for k in range(4):
                x = round(side * (k + row % 2 / 2) / 4)
                pen.line((x, y, x, y + side // 8), fill=item.pattern_rgb, width=max(1, side // 50))
    return image
