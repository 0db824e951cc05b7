"""Drawn scenes: the pixels show what the ground truth says, and every scene stands alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lance_align.corpora import grammar
from lance_align.corpora.scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_PAIRS,
    OBJECTS,
    PlacedObject,
    Split,
    draw_scene,
    pairs,
    scene_at,
    scenes,
)
from lance_align.errors import ArgumentError

SEEDS = st.integers(0, 2**40)
INDICES = st.integers(0, 2**40)
SPLITS = st.sampled_from(["train", "held_out", "all"])


def around(pixels: NDArray[np.uint8], item: PlacedObject) -> NDArray[np.int64]:
    """The pixels within an object's circle, ``(n, 3)``."""
    side = len(pixels)
    rows, columns = np.mgrid[0:side, 0:side] + 0.5
    inside = np.hypot(columns - item.x * side, rows - item.y * side) <= item.radius * side
    return pixels[inside].astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, index=INDICES, split=SPLITS)
def test_every_object_lies_inside_the_picture_in_its_colour(seed: int, index: int, split: Split) -> None:
    scene = scene_at(seed, index, split=split)
    pixels = draw_scene(scene, size_px=96)
    assert pixels.shape == (96, 96, 3)
    assert pixels.dtype == np.uint8
    background = BACKGROUNDS[scene.background]
    for item in scene.objects:
        assert item.radius <= min(item.x, item.y, 1 - item.x, 1 - item.y)
        nearby = around(pixels, item)
        painted = np.abs(nearby - item.rgb).max(axis=1) <= 6
        empty = np.min([np.abs(nearby - tone).max(axis=1) for tone in (background.rgb, background.pattern_rgb)], axis=0)
        others = ~painted & (empty > 6)  # outlines, details, and mixed pixels on edges
        assert painted.mean() > 0.1
        # Windows, petals' middles and outlines have colours of their own; none of them covers more than the object's.
        kinds = np.unique(nearby[others] // 24, axis=0, return_counts=True)[1]
        assert painted.sum() > kinds.max(initial=0)
        assert np.abs(np.subtract(item.rgb, COLOURS[item.colour])).max() <= 10


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, index=INDICES)
def test_outside_its_objects_a_scene_is_its_background(seed: int, index: int) -> None:
    scene = scene_at(seed, index)
    pixels = draw_scene(scene, size_px=64)
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    outside = np.ones((64, 64), dtype=bool)
    for item in scene.objects:
        outside &= np.hypot(columns - item.x * 64, rows - item.y * 64) > item.radius * 64 * 1.3 + 2
    tones = BACKGROUNDS[scene.background]
    low, high = np.minimum(tones.rgb, tones.pattern_rgb), np.maximum(tones.rgb, tones.pattern_rgb)
    assert ((pixels[outside] >= low - 1) & (pixels[outside] <= high + 1)).all()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, index=INDICES)
def test_the_relation_is_true_and_the_plainest(seed: int, index: int) -> None:
    scene = scene_at(seed, index, two_object_share=1.0)
    first, second = scene.objects
    right, down = first.x - second.x, first.y - second.y
    assert abs(abs(right) - abs(down)) > 0.2
    truth = ("left of" if right < 0 else "right of") if abs(right) > abs(down) else ("above" if down < 0 else "below")
    assert scene.relation == truth
    assert first.name != second.name
    assert first.colour != second.colour
    one, other = (grammar.an(f"{item.colour} {item.name}") for item in scene.objects)
    assert scene.captions[0] == f"{one} {truth} {other}"
    assert f"{other} {grammar.OPPOSITE[truth]} {one}" in scene.captions


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, index=INDICES, split=SPLITS)
def test_captions_name_exactly_what_is_there(seed: int, index: int, split: Split) -> None:
    scene = scene_at(seed, index, split=split)
    assert len(set(scene.captions)) == len(scene.captions) >= 5
    named = {item.name for item in scene.objects}
    coloured = {item.colour for item in scene.objects}
    for caption in scene.captions:
        words = set(caption.split())
        assert words & set(OBJECTS) == named
        assert words & set(COLOURS) - {"white"} == coloured - {"white"}  # white paper may stand behind anything
        assert "  " not in caption
        assert caption == caption.strip()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, index=INDICES, split=SPLITS)
def test_a_scene_depends_on_its_seed_index_and_split_alone(seed: int, index: int, split: Split) -> None:
    alone = scene_at(seed, index, split=split)
    in_a_row = list(scenes(seed=seed, start=max(0, index - 2), count=min(index, 2) + 1, split=split))[-1]
    assert in_a_row == alone
    np.testing.assert_array_equal(draw_scene(in_a_row), draw_scene(alone))


def test_a_corpus_stays_the_same_from_version_to_version() -> None:
    scene = scene_at(7, 1_000_003)
    assert scene.id == "scene-all-7-001000003"
    assert [scene_at(7, index).captions[0] for index in range(4)] == [
        "a grey flower",
        "a yellow car",
        "an orange star left of a yellow fish",
        "a red ball",
    ]


def test_scenes_differ_between_indices_seeds_and_splits() -> None:
    drawn = [
        draw_scene(scene_at(seed, index, split=split)).tobytes()
        for seed, index, split in itertools.product((0, 1), range(20), ("train", "held_out", "all"))
    ]
    assert len(set(drawn)) == len(drawn)


def test_held_out_pairs_never_occur_in_training_though_each_object_and_colour_does() -> None:
    train, held_out, every = (set(pairs(split)) for split in ("train", "held_out", "all"))
    assert not train & held_out
    assert train | held_out == every
    assert held_out == HELD_OUT_PAIRS
    assert len(OBJECTS) >= 12
    assert len(COLOURS) == 12
    assert 0.1 <= len(held_out) / len(every) <= 0.15
    for name in OBJECTS:
        assert 10 <= sum(pair[0] == name for pair in train) < 12
    for colour in COLOURS:
        assert sum(pair[1] == colour for pair in train) == len(OBJECTS) - 2


@pytest.mark.parametrize("split", ["train", "held_out", "all"])
def test_sampling_keeps_to_its_split_and_reaches_all_of_it(split: Split) -> None:
    seen = {(item.name, item.colour) for scene in scenes(seed=0, count=1500, split=split) for item in scene.objects}
    assert seen == set(pairs(split))


def test_shares_of_two_objects_and_of_relations() -> None:
    drawn = list(scenes(seed=3, count=1000, two_object_share=0.4))
    relations = [scene.relation for scene in drawn if scene.relation]
    assert 330 < len(relations) < 470
    assert min(relations.count(r) for r in ("left of", "right of", "above", "below")) > 60
    assert all(len(scene.objects) == 1 for scene in scenes(seed=3, count=50, two_object_share=0))
    assert {scene.background for scene in drawn} == set(BACKGROUNDS)
    one_object = [scene for scene in drawn if len(scene.objects) == 1]
    assert {scene.size for scene in one_object} == {"small", "", "large"}
    for scene in one_object:
        item = scene.objects[0]
        assert ("left" in scene.position) == (item.x < 0.35)
        assert ("right" in scene.position) == (item.x > 0.65)
        assert ("top" in scene.position) == (item.y < 0.35)
        assert ("bottom" in scene.position) == (item.y > 0.65)


def test_shows_answers_for_pairs_not_for_words() -> None:
    scene = next(scene for scene in scenes(seed=0, count=100) if len(scene.objects) == 2)
    first, second = scene.objects
    assert scene.shows(first.name, first.colour)
    assert scene.shows(second.name, second.colour)
    assert not scene.shows(first.name, second.colour)


@pytest.mark.parametrize("size_px", [1, 17, 64, 289])
def test_any_size_can_be_drawn(size_px: int) -> None:
    assert draw_scene(scene_at(0, 0), size_px=size_px).shape == (size_px, size_px, 3)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="seed=-1"):
        scene_at(-1, 0)
    with pytest.raises(ArgumentError, match=r"two_object_share=1\.5"):
        scene_at(0, 0, two_object_share=1.5)
    with pytest.raises(ArgumentError, match="size_px=0"):
        draw_scene(scene_at(0, 0), size_px=0)
    with pytest.raises(ArgumentError, match="'test'"):
        scene_at(0, 0, split="test")  # type: ignore[arg-type]
