"""Drawn scenes: pictures whose contents are known exactly, any number of them, each from (seed, index) alone.

`scene_at` decides what is in a picture and says it in words; `draw_scene` paints it. Both are pure functions, so that
any worker can draw any part of a corpus, and a test can compare a search result with the truth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from lance_align.corpora import grammar
from lance_align.corpora.painting import draw_scene
from lance_align.corpora.world import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_PAIRS,
    OBJECTS,
    Background,
    PlacedObject,
    Relation,
    Scene,
    Split,
    pairs,
)
from lance_align.errors import ArgumentError

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "HELD_OUT_PAIRS",
    "OBJECTS",
    "Background",
    "PlacedObject",
    "Relation",
    "Scene",
    "Split",
    "draw_scene",
    "pairs",
    "scene_at",
    "scenes",
]

T = TypeVar("T")
_MIN_CONTRAST = 75.0  # distance in RGB between an object and either background colour, so that it can be seen
_SIZES: Mapping[str, tuple[float, float]] = {"small": (0.13, 0.17), "": (0.19, 0.26), "large": (0.3, 0.38)}


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
