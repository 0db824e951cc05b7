"""The outlines of the drawn objects: polygons in a unit square, x to the right and y down, centre at the origin.

An object is painted part by part, back to front. Its colour covers most of it; details take fixed or darker tones, so
that the colour a caption names is the colour a picture shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Tone = Literal["main", "shade", "ink", "glass"]  # the object's colour, a darker one, near-black, pale blue
Outline = NDArray[np.float64]  # (points, 2), x and y between -1 and 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One filled polygon of an object."""

    outline: Outline
    tone: Tone = "main"


def _polygon(*points: tuple[float, float], tone: Tone = "main") -> Part:
    return Part(np.array(points, dtype=np.float64), tone)


def _box(left: float, top: float, right: float, bottom: float, tone: Tone = "main") -> Part:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom), tone=tone)


def _oval(
    x: float, y: float, rx: float, ry: float, tone: Tone = "main", *, span: tuple[float, float] = (0, 360)
) -> Part:
    """An ellipse, or the piece of it between two angles in degrees (clockwise from the right), closed by a chord."""
    angles = np.radians(np.linspace(*span, 25))
    return Part(np.stack((x + rx * np.cos(angles), y + ry * np.sin(angles)), axis=1), tone)


def _band(x: float, y: float, outer: float, inner: float, span: tuple[float, float] = (0, 360)) -> Part:
    """A ring, or the piece of it between two angles in degrees, in the object's colour."""
    there = _oval(x, y, outer, outer, span=span).outline
    back = _oval(x, y, inner, inner, span=span).outline[::-1]
    return Part(np.concatenate((there, back)))


def _star(points: int, inner: float) -> Part:
    turns = [math.pi * k / points - math.pi / 2 for k in range(2 * points)]
    radii = [1.0 if k % 2 == 0 else inner for k in range(2 * points)]
    return _polygon(*((r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, turns, strict=True)))


def _heart() -> Part:
    t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)  # the well-known heart curve
    return Part(np.stack((x / 17, -y / 17 - 0.1), axis=1))


def _petals() -> list[Part]:
    angles = [math.radians(72 * k - 90) for k in range(5)]
    return [_oval(0.52 * math.cos(a), 0.52 * math.sin(a), 0.44, 0.44) for a in angles]


SHAPES: Mapping[str, tuple[Part, ...]] = {
    "ball": (_oval(0, 0, 0.9, 0.9), _band(0, 0, 0.62, 0.5, (190, 260))),
    "star": (_star(5, 0.45),),
    "heart": (_heart(),),
    "house": (
        _box(0.35, -0.85, 0.6, -0.3, "shade"),
        _box(-0.72, -0.15, 0.72, 0.9),
        _polygon((-1, -0.1), (0, -0.95), (1, -0.1)),
        _box(-0.15, 0.35, 0.2, 0.9, "ink"),
        _box(-0.55, 0.1, -0.28, 0.4, "glass"),
    ),
    "tree": (
        _box(-0.14, 0.5, 0.14, 1, "ink"),
        _polygon((-0.8, 0.6), (0, -0.25), (0.8, 0.6)),
        _polygon((-0.65, 0.1), (0, -0.65), (0.65, 0.1)),
        _polygon((-0.48, -0.35), (0, -1), (0.48, -0.35)),
    ),
    "car": (
        _polygon((-0.6, -0.02), (-0.36, -0.55), (0.3, -0.55), (0.62, -0.02)),
        _polygon((-1, 0.42), (-1, 0.05), (-0.85, -0.08), (0.8, -0.08), (1, 0.1), (1, 0.42)),
        _polygon((-0.4, -0.06), (-0.26, -0.42), (-0.02, -0.42), (-0.02, -0.06), tone="glass"),
        _polygon((0.08, -0.06), (0.08, -0.42), (0.24, -0.42), (0.44, -0.06), tone="glass"),
        _oval(-0.55, 0.42, 0.24, 0.24, "ink"),
        _oval(0.55, 0.42, 0.24, 0.24, "ink"),
    ),
    "boat": (
        _polygon((-1, 0.4), (1, 0.4), (0.62, 0.92), (-0.62, 0.92)),
        _box(-0.07, -0.95, 0.03, 0.4, "ink"),
        _polygon((0.07, -0.9), (0.85, 0.28), (0.07, 0.28)),
        _polygon((-0.12, -0.6), (-0.12, 0.28), (-0.7, 0.28)),
    ),
    "fish": (
        _polygon((0.4, 0), (1, -0.55), (0.85, 0), (1, 0.55)),
        _polygon((-0.3, -0.35), (0.05, -0.8), (0.35, -0.3), tone="shade"),
        _oval(-0.2, 0, 0.78, 0.48),
        _oval(-0.62, -0.1, 0.1, 0.1, "ink"),
    ),
    "cup": (
        _band(0.55, 0.1, 0.45, 0.25, (-90, 90)),
        _polygon((-0.85, -0.6), (0.6, -0.6), (0.45, 0.75), (-0.7, 0.75)),
        _oval(-0.125, -0.6, 0.725, 0.2, "shade"),
    ),
    "flower": (*_petals(), _oval(0, 0, 0.27, 0.27, "ink")),
    "key": (
        _box(-0.12, -0.14, 1, 0.14),
        _box(0.78, 0.1, 0.98, 0.55),
        _box(0.42, 0.1, 0.62, 0.42),
        _band(-0.52, 0, 0.48, 0.2),
    ),
    "umbrella": (
        _box(-0.05, -0.1, 0.05, 0.8, "ink"),
        _polygon((-0.3, 0.72), (0.05, 0.72), (0.05, 0.9), (-0.3, 0.9), tone="ink"),
        _oval(0, 0, 1, 0.9, span=(180, 360)),
        _oval(0, 0, 0.36, 0.9, "shade", span=(180, 360)),
    ),
    "mushroom": (
        _polygon((-0.25, 0), (0.25, 0), (0.38, 0.9), (-0.38, 0.9), tone="glass"),
        _oval(0, 0.1, 0.95, 0.95, span=(180, 360)),
    ),
    "bell": (
        _oval(0, 0.72, 0.2, 0.2, "ink"),
        _polygon(
            (-0.2, -0.8), (0.2, -0.8), (0.5, -0.4), (0.58, 0.3), (0.9, 0.7), (-0.9, 0.7), (-0.58, 0.3), (-0.5, -0.4)
        ),
        _band(0, -0.82, 0.17, 0.07),
    ),
    "arrow": (_polygon((1, 0), (0.2, -0.72), (0.2, -0.3), (-0.95, -0.3), (-0.95, 0.3), (0.2, 0.3), (0.2, 0.72)),),
    "shirt": (
        _polygon(
            *((-0.4, -0.8), (-0.18, -0.62), (0.18, -0.62), (0.4, -0.8), (1, -0.4), (0.78, 0.08), (0.5, -0.08)),
            *((0.5, 0.9), (-0.5, 0.9), (-0.5, -0.08), (-0.78, 0.08), (-1, -0.4)),
        ),
    ),
}
