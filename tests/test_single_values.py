"""One value where a list is expected is an error: a text would be as many texts as it has letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lance_align
from lance_align.errors import ArgumentError
from tests.fake_tables import png

RED = png("red")
PICTURES = [
    "red.png",
    Path("red.png"),
    RED,
    bytearray(RED),
    memoryview(RED),
    Image.new("RGB", (4, 4)),
    np.zeros((4, 4, 3), np.uint8),
    np.zeros((4, 4), np.uint8),
]
LABELS = ["a cat", b"a cat", {"cat": 1, "dog": 2}, {"cat", "dog"}, (label for label in ("cat", "dog")), None]


@pytest.mark.parametrize("model", ["fake", "align-tiny"])
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: type(picture).__name__)
def test_one_picture_is_no_list_of_pictures(model: str, picture: Any) -> None:
    encoder = lance_align.load_encoder(model, device="cpu")
    with pytest.raises(ArgumentError, match=r"images are one \w+; expected a list of images"):
        encoder.encode_images(picture)
    with pytest.raises(ArgumentError, match="images are one"):
        lance_align.zero_shot(picture, ["a", "b"], model=model)


def test_several_pictures_in_one_array_are_a_list() -> None:
    encoder = lance_align.load_encoder("fake")
    assert len(encoder.encode_images(np.zeros((2, 8, 8, 3), np.uint8))) == 2
    assert len(encoder.encode_images(np.zeros((2, 8, 8), np.uint8))) == 2


@pytest.mark.parametrize("model", ["fake", "align-tiny"])
@pytest.mark.parametrize("text", ["a red car", b"a red car", {"a": 1}, iter(["a"]), None])
def test_one_text_is_no_list_of_texts(model: str, text: Any) -> None:
    with pytest.raises(ArgumentError, match="expected a list of texts"):
        lance_align.load_encoder(model, device="cpu").encode_texts(text)


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: type(labels).__name__)
def test_labels_are_a_list(labels: Any, photos: Any) -> None:
    takers: list[Callable[[], Any]] = [
        lambda: lance_align.zero_shot([RED], labels, model="fake"),
        lambda: lance_align.add_labels(photos, labels),
        lambda: lance_align.segment([RED], labels, model="no/such-model"),
    ]
    for take in takers:
        with pytest.raises(ArgumentError, match="expected a list of labels"):
            take()
