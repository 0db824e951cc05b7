"""What there is to draw: objects, colours, backgrounds, which pairs are kept from training, and what a scene is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from lance_align.corpora.shapes import SHAPES
from lance_align.errors import ArgumentError

Rgb = tuple[int, int, int]
Split = Literal["train", "held_out", "all"]
Relation = Literal["left of", "right of", "above", "below"]

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlacedObject:
    """One object as it is painted; lengths are fractions of the picture's side, the origin is top left.

    Attributes:
        name: one of `OBJECTS`.
        colour: one of `COLOURS`; `rgb` is the shade painted, within 10 steps of it in each channel.
        x, y: the centre.
        radius: half of the width and height that its outline may take before it is tilted.
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
