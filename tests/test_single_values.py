"""One value where a list is expected is an error: a text would be as many texts as it has letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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


@pytest.mark.parametrize("model", ["fake", "align-tiny"])
def test_columns_of_pandas_and_arrow_are_lists_in_their_order(model: str) -> None:
    """A frame that was sorted or filtered has an index of its own."""
    encoder = lance_align.load_encoder(model, device="cpu")
    texts, pictures = ["a red car", "a dog", "a house"], [RED, png("blue"), png("green")]
    columns: list[Callable[[Any], Any]] = [
        lambda values: pd.Series(values, index=[2, 0, 1]),
        lambda values: pd.Series(values, index=[7, 8, 9]),
        pa.array,
    ]
    for column in columns:
        found = encoder.encode_texts(column(texts)), encoder.encode_images(column(pictures))
        for one, expected in zip(found, (encoder.encode_texts(texts), encoder.encode_images(pictures)), strict=True):
            np.testing.assert_array_equal(one.vectors, expected.vectors)


def test_labels_may_be_a_column() -> None:
    labels = ["a dog", "a house"]
    expected = lance_align.zero_shot([RED], labels, model="fake")
    for column in (pd.Series(labels, index=[1, 0]), pa.array(labels)):
        np.testing.assert_array_equal(lance_align.zero_shot([RED], column, model="fake"), expected)


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


@pytest.mark.parametrize("template", ["no place", "", None, b"{}"])
def test_a_template_is_a_text_with_a_place(template: Any) -> None:
    with pytest.raises(ArgumentError, match="has no place for the label"):
        lance_align.zero_shot([RED], ["a", "b"], template=template, model="fake")


@pytest.mark.parametrize("table", [None, "photos", pa.table({"a": [1]})], ids=["none", "name", "arrow"])
def test_a_table_is_an_open_table_of_lancedb(table: Any) -> None:
    takers: list[Callable[[], Any]] = [
        lambda: lance_align.attach(table, image="image", model="fake"),
        lambda: lance_align.add_labels(table, ["a", "b"]),
        lambda: lance_align.build_index(table),
        lambda: lance_align.search_settings(table),
        lambda: lance_align.verify(table),
    ]
    for take in takers:
        with pytest.raises(ArgumentError, match="is not a table of LanceDB's synchronous API"):
            take()
