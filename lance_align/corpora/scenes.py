"""Drawn scenes: pictures whose contents are known exactly, any number of them, each from (seed, index) alone.

`scene_at` decides what is in a picture and says it in words; `draw_scene` paints it. Both are pure functions, so that
any worker can draw any part of a corpus, and a test can compare a search result with the truth.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lance_align.corpora import grammar
from lance_align.corpora.shapes import SHAPES, Tone
from lance_align.errors import ArgumentError

Rgb = tuple[int, int, int]
Split = Literal["train", "held_out", "all"]
Relation = Literal["left of", "right of", "above", "below"]
T = TypeVar("T")

OBJECTS: tuple[str, ...] = tuple(SHAPES)
COLOURS: Mapping[str, Rgb] = {
    "red": (214, 32, 38),
    "orange": (246, 132, 18),
    "yellow": (250, 220, 30),
    "green": (38, 150, 60),
    "turquoise": (40, 200, 190),
    "blue": (34, 78, 210),
    "purple": (128, 48, 170),
    "pink": (250, 130, 190),
    "brown": (124, 74, 36),
    "black": (24, 24, 26),
    "grey": (134, 136, 140),
    "white": (252, 252, 252),
}
_HUES: tuple[str, ...] = tuple(COLOURS)
# One pair in eight: every object lacks one or two colours, every colour lacks two objects (5 and 12 are coprime).
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    (OBJECTS[k % len(OBJECTS)], _HUES[5 * k % len(_HUES)]) for k in range(len(OBJECTS) * len(_HUES) // 8)
)


@dataclasses.dataclass(frozen=True, slots=True)
class Background:
    """What a scene stands on: a colour, a pattern of a second colour, and the words for it."""

    rgb: Rgb
    pattern_rgb: Rgb
    pattern: Literal["plain", "horizon", "grid", "specks", "bricks"]
    words: str


BACKGROUNDS: Mapping[str, Background] = {
    "paper": Background((255, 255, 255), (255, 255, 255), "plain", "on white paper"),
    "squares": Background((250, 250, 244), (205, 220, 235), "grid", "on squared paper"),
    "sky": Background((176, 216, 244), (214, 236, 250), "horizon", "in the sky"),
    "meadow": Background((200, 230, 250), (176, 216, 140), "horizon", "on a meadow"),
    "sand": Background((240, 224, 180), (218, 198, 148), "specks", "on sand"),
    "snow": Background((224, 234, 244), (255, 255, 255), "specks", "in the snow"),
    "wall": Background((216, 176, 156), (236, 216, 204), "bricks", "in front of a brick wall"),
    "night": Background((26, 30, 66), (190, 190, 150), "specks", "at night"),
}
_MIN_CONTRAST = 75.0  # distance in RGB between an object and either background colour, so that it can be seen
_SIZES: Mapping[str, tuple[float, float]] = {"small": (0.13, 0.17), "": (0.19, 0.26), "large": (0.3, 0.38)}
_TONES: Mapping[Tone, Rgb] = {"ink": (52, 48, 52), "glass": (214, 232, 240)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlacedObject:
    """One object as it is painted; lengths are fractions of the picture's side, the origin is top left.

    Attributes:
        name: one of `OBJECTS`.
        colour: one of `COLOURS`; `rgb` is the shade painted, within 10 steps of it in each channel.
        x, y: the centre.
        radius: of the circle that the object's unit square is inscribed to on each axis; it spans ``2 * radius``.
        tilt_deg: rotation, clockwise.
        flipped: mirrored left to right before it is tilted.
    """

    name: str
    colour: str
    rgb: Rgb
    x: float
    y: float
    radius: float
    tilt_deg: float
    flipped: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows.

    Attributes:
        seed, index: where it comes from; `id` is made of them and the split.
        objects: one, or two with different names and colours.
        relation: where the first object is, seen from the second; None for one object.
        background: a key of `BACKGROUNDS`.
        size: ``"small"``, ``"large"`` or ``""`` for what is neither.
        position: words such as ``"at the top left"``; ``""`` in the middle and for two objects.
        captions: ways to say it, all true, the plainest first.
    """

    seed: int
    index: int
    split: Split
    objects: tuple[PlacedObject, ...]
    relation: Relation | None
    background: str
    size: str
    position: str
    captions: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name no other scene has."""
        return f"scene-{self.split}-{self.seed}-{self.index:09d}"

    def shows(self, name: str, colour: str) -> bool:
        """Whether an object of this name has this colour: the truth that precision is measured against."""
        return any(item.name == name and item.colour == colour for item in self.objects)


@lru_cache(maxsize=3)
def pairs(split: Split = "all") -> tuple[tuple[str, str], ...]:
    """The (object, colour) pairs of a split, in a fixed order; ``train`` and ``held_out`` share none.

    Raises:
        ArgumentError: an unknown split.
    """
    if split not in ("train", "held_out", "all"):
        raise ArgumentError(f"unknown split {split!r}; expected 'train', 'held_out' or 'all'")
    every = [(name, colour) for name in OBJECTS for colour in _HUES]
    if split == "all":
        return tuple(every)
    return tuple(pair for pair in every if (pair in HELD_OUT_PAIRS) == (split == "held_out"))


def scene_at(seed: int, index: int, *, split: Split = "all", two_object_share: float = 0.4) -> Scene:
    """Scene number `index` of the corpus that `seed` names; it depends on nothing else.

    Args:
        seed, index: whole numbers from 0.
        split: which (object, colour) pairs may occur, see `pairs`.
        two_object_share: chance of a second object, 0 to 1.

    Raises:
        ArgumentError: a negative number, an unknown split, or a share outside 0 to 1.
    """
    allowed = pairs(split)
    if seed < 0 or index < 0 or not 0 <= two_object_share <= 1:
        raise ArgumentError(
            f"seed={seed}, index={index}, two_object_share={two_object_share}; expected whole numbers from 0 and a "
            "share between 0 and 1"
        )
    # Only Random.random() is used: its sequence is the one that Python promises never to change.
    rng = random.Random(f"{seed}/{index}/{split}")
    two = rng.random() < two_object_share
    name, colour = _pick(rng, allowed)
    if not two:
        return _one_object(rng, seed, index, split, name, colour)
    others = [pair for pair in allowed if pair[0] != name and pair[1] != colour]
    return _two_objects(rng, seed, index, split, (name, colour), _pick(rng, others))


def scenes(
    *, seed: int, count: int, start: int = 0, split: Split = "all", two_object_share: float = 0.4
) -> Iterator[Scene]:
    """Scenes `start` to ``start + count - 1`` of a corpus, in order; see `scene_at`."""
    for index in range(start, start + count):
        yield scene_at(seed, index, split=split, two_object_share=two_object_share)


def _one_object(rng: random.Random, seed: int, index: int, split: Split, name: str, colour: str) -> Scene:
    size = _pick(rng, tuple(_SIZES))
    radius = _between(rng, *_SIZES[size])
    column, row = (
        (_pick(rng, ("left", "", "right")), _pick(rng, ("top", "", "bottom"))) if size != "large" else ("", "")
    )
    x = _along(rng, ("left", "", "right").index(column), radius)
    y = _along(rng, ("top", "", "bottom").index(row), radius)
    position = f"at the {row} {column}".replace("  ", " ").strip() if row or column else ""
    position = position.replace("at the left", "on the left").replace("at the right", "on the right")
    background = _background(rng, (colour,))
    captions = grammar.one_object(
        name=name, colour=colour, size=size, position=position, place=BACKGROUNDS[background].words
    )
    return Scene(
        seed=seed, index=index, split=split, relation=None, background=background, size=size, position=position,
        objects=(_place(rng, name, colour, x, y, radius),), captions=captions,
    )  # fmt: skip


def _two_objects(
    rng: random.Random, seed: int, index: int, split: Split, first: tuple[str, str], second: tuple[str, str]
) -> Scene:
    relation: Relation = _pick(rng, ("left of", "right of", "above", "below"))
    one, other = _between(rng, 0.17, 0.23), _between(rng, 0.17, 0.23)
    low, high = _between(rng, 0.24, 0.28), _between(rng, 0.72, 0.76)
    near, far = (low, high) if relation in ("left of", "above") else (high, low)
    # Across the axis of the relation both stay near the middle, so that no second relation is as true as the first.
    one_across, other_across = _between(rng, 0.42, 0.58), _between(rng, 0.42, 0.58)
    background = _background(rng, (first[1], second[1]))
    sideways = relation in ("left of", "right of")
    here, there = ((near, one_across), (far, other_across)) if sideways else ((one_across, near), (other_across, far))
    captions = grammar.two_objects(
        first=f"{first[1]} {first[0]}", second=f"{second[1]} {second[0]}", relation=relation,
        place=BACKGROUNDS[background].words,
    )  # fmt: skip
    return Scene(
        seed=seed, index=index, split=split, relation=relation, background=background, size="", position="",
        objects=(_place(rng, *first, *here, one), _place(rng, *second, *there, other)), captions=captions,
    )  # fmt: skip


def _place(rng: random.Random, name: str, colour: str, x: float, y: float, radius: float) -> PlacedObject:
    red, green, blue = (min(255, max(0, round(v + _between(rng, -10, 10)))) for v in COLOURS[colour])
    return PlacedObject(
        name=name, colour=colour, rgb=(red, green, blue), x=x, y=y, radius=radius,
        tilt_deg=_between(rng, -12, 12), flipped=rng.random() < 0.5,
    )  # fmt: skip


def _background(rng: random.Random, colours: Sequence[str]) -> str:
    return _pick(rng, _backgrounds_for(tuple(colours)))


@lru_cache(maxsize=1024)
def _backgrounds_for(colours: tuple[str, ...]) -> tuple[str, ...]:
    def visible(item: Background) -> bool:
        return all(
            math.dist(COLOURS[c], shade) >= _MIN_CONTRAST for c in colours for shade in (item.rgb, item.pattern_rgb)
        )

    return tuple(name for name, item in BACKGROUNDS.items() if visible(item))


def _along(rng: random.Random, third: int, radius: float) -> float:
    """A centre in the first, middle or last part of an axis, with the whole object inside the picture."""
    low, high = ((0.0, 0.3), (0.42, 0.58), (0.7, 1.0))[third]
    margin = 1.1 * radius  # the corner of a tilted object reaches a little beyond its radius
    return _between(rng, max(low, margin), min(high, 1 - margin))


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


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
