"""Where pairs come from: emoji packages on disk, drawn scenes, rows of a table, and mixtures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lance_align.corpora.grammar import an
from lance_align.corpora.scenes import HELD_OUT_PAIRS, scene_at
from lance_align.errors import SourceError
from lance_align.spec import ImageSpec
from lance_align.training import MixedPairs, RowPairs
from lance_align.training.artwork import ARTISTS, NAMES, read_artwork
from lance_align.training.pairs import find_matches
from lance_align.training.sources import EmojiPairs, draw_scene_pairs, emoji_caption, scene_caption, scene_truths
from tests.artwork_folders import opaque_share, write_artwork


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, format="PNG")
    return out.getvalue()


def test_artwork_is_read_without_flags_and_whatever_the_file_names(tmp_path: Path) -> None:
    art = read_artwork(write_artwork(tmp_path))
    assert [emoji.name for emoji in art.emojis] == [
        "red apple",
        "green heart",
        "left arrow",
        "blue book",
        "clockwise car",
    ]
    assert art.rgba.shape == (15, 72, 72, 4)
    assert art.rgba.dtype == np.uint8
    assert np.bincount(art.emoji).tolist() == [3] * 5
    assert np.bincount(art.artist).tolist() == [5] * 3
    wide = art.rgba[(art.artist == 1) & (art.emoji == 0)][0]
    assert opaque_share(wide[:18]) == 0  # twice as wide as high: its aspect ratio is kept
    assert tuple(wide[36, 36]) == (255, 0, 0, 255)


def test_a_mirror_image_keeps_its_name_only_where_no_direction_is_named(tmp_path: Path) -> None:
    art = read_artwork(write_artwork(tmp_path), artists=("noto",))
    assert {emoji.name: emoji.mirrors for emoji in art.emojis} == {
        "red apple": True, "green heart": True, "left arrow": False, "blue book": True, "clockwise car": False,
    }  # fmt: skip


def test_missing_and_damaged_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data\.json"):
        read_artwork(tmp_path / "nowhere")
    root = write_artwork(tmp_path)
    folder = root / "node_modules" / ARTISTS["noto"][0]
    (folder / "1f34e.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(SourceError, match=r"1f34e\.png"):
        read_artwork(root)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(SourceError, match="noto"):
        read_artwork(root)
    (root / "node_modules" / NAMES).write_text("{}")
    with pytest.raises(SourceError, match="emojibase"):
        read_artwork(root)


def test_emoji_batches_depend_on_the_generator_alone(tmp_path: Path) -> None:
    source = EmojiPairs(read_artwork(write_artwork(tmp_path)), 32)
    first, again, other = (source.batch(12, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.pixels.shape == (12, 3, 32, 32)
    assert first.texts == again.texts
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)
    assert first.matches.diagonal().all()


def test_pictures_of_one_emoji_share_its_captions(tmp_path: Path) -> None:
    art = read_artwork(write_artwork(tmp_path))
    batch = EmojiPairs(art, 32).batch(15, np.random.default_rng(0))  # every picture once
    names = [next((emoji.name for emoji in art.emojis if emoji.name in text), None) for text in batch.texts]
    for text in (place for place, name in enumerate(names) if name is not None):
        assert batch.matches[text].sum() >= 3, batch.texts[text]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_captions_of_scenes_are_true_and_held_out_pairs_do_not_occur(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = scene_at(seed, 0, split="train")
    caption = scene_caption(scene, rng)
    assert caption in scene_truths(scene)
    assert not {(item.name, item.colour) for item in scene.objects} & HELD_OUT_PAIRS


def test_emoji_captions_name_the_emoji_or_one_keyword(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    apple = read_artwork(write_artwork(tmp_path), artists=("noto",)).emojis[0]
    captions = {emoji_caption(apple, rng) for _ in range(300)}
    assert {"red apple", "fruit", "apple"} <= captions
    assert all(text.split(", ")[0] in {"red apple", *apple.keywords} for text in captions)


def test_scenes_are_drawn_once_and_batches_hold_different_ones() -> None:
    source = draw_scene_pairs(seed=3, count=20, side_px=32)
    assert source.pixels.shape[1:] == (32, 32, 3)
    batch = source.batch(12, np.random.default_rng(0))
    assert batch.pixels.dtype == torch.uint8
    assert len({picture.numpy().tobytes() for picture in batch.pixels}) >= 10


def test_twins_differ_only_in_which_object_has_which_colour() -> None:
    source = draw_scene_pairs(seed=4, count=60, side_px=32)
    assert len(source.twins) >= 10
    for scene, twin in ((source.scenes[one], source.scenes[other]) for one, other in source.twins):
        (first, second), (first_twin, second_twin) = scene.objects, twin.objects
        assert (first_twin.colour, second_twin.colour) == (second.colour, first.colour)
        assert (first_twin.name, first_twin.x, first_twin.y) == (first.name, first.x, first.y)
        assert not {(item.name, item.colour) for item in twin.objects} & HELD_OUT_PAIRS
        shared = {an(first.name), an(second.name), first.colour, second.colour}
        assert scene_truths(scene) & scene_truths(twin) == shared
        assert all(item.colour in twin.captions[0] for item in twin.objects)


def test_twins_stand_in_one_batch_and_their_captions_do_not_match() -> None:
    source = draw_scene_pairs(seed=4, count=60, side_px=32)
    batch = source.batch(30, np.random.default_rng(1))
    sure = [place for place in range(0, 14, 2) if " and " in batch.texts[place]]
    assert sure
    assert not any(batch.matches[place, place + 1] for place in sure)


def test_matches_are_the_captions_that_are_true() -> None:
    found = find_matches(["a cat", "cat", "a dog"], [{"a cat", "cat"}, {"a cat", "cat"}, {"unheard of"}])
    assert found.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_rows_that_cannot_be_used_are_skipped_and_counted() -> None:
    rows = [
        (png("red"), "red"),
        (b"junk", "junk"),
        (None, "none"),
        (png("blue"), None),
        (png("blue"), " "),
        (png("blue"), "blue"),
    ]
    spec = ImageSpec(resize=(16, 16), crop=(12, 12))
    source = RowPairs(lambda places: [rows[place] for place in places], len(rows), spec)
    batch = source.batch(6, np.random.default_rng(0))
    assert batch.texts == ("red", "blue")
    assert batch.skipped == 4
    assert batch.pixels.shape == (2, 3, 12, 12)
    assert batch.pixels[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_a_table_without_usable_rows_is_an_error() -> None:
    source = RowPairs(lambda places: [(b"junk", "x") for _ in places], 9, ImageSpec(resize=(8, 8), crop=(8, 8)))
    with pytest.raises(SourceError, match=r"0 of 4 rows.*format"):
        source.batch(4, np.random.default_rng(0))


def test_mixtures_keep_shares_and_never_match_across_sources(tmp_path: Path) -> None:
    emoji = EmojiPairs(read_artwork(write_artwork(tmp_path)), 32)
    mixed = MixedPairs((emoji, draw_scene_pairs(seed=0, count=8, side_px=32)), (3, 1))
    batch = mixed.batch(16, np.random.default_rng(0))
    assert len(batch) == 16
    assert batch.pixels.shape == (16, 3, 32, 32)
    assert not batch.matches[:12, 12:].any()
    assert not batch.matches[12:, :12].any()
