"""Query vectors that are remembered, and what a server loads before its first query."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lancedb
import numpy as np
import pytest

import lance_align
from lance_align.encoders.base import Embeddings
from lance_align.encoders.remembered import MAX_CHARACTERS, TextVectors, remembered
from lance_align.errors import TableError
from lance_align.queries import Query
from lance_align.testing import FAKE_SPEC, FakeEncoder
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config


class Counting(FakeEncoder):
    """The fake as one of several models, which counts the texts it embeds."""

    def __init__(self, name: str) -> None:
        super().__init__(dataclasses.replace(FAKE_SPEC, fingerprint=name))
        self.texts: list[str | None] = []

    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        self.texts += texts
        return super().encode_texts([f"{self.spec.fingerprint} {text}" for text in texts])


def alone(encoder: Counting, text: str) -> Any:
    return FakeEncoder().encode_texts([f"{encoder.spec.fingerprint} {text}"]).vectors[0]


def test_a_text_is_embedded_once_a_model() -> None:
    vectors, one, other = TextVectors(), Counting("one"), Counting("other")
    for _ in range(3):
        for encoder in (one, other):
            found = vectors.encode(encoder, ["a", "b", "a"])
            np.testing.assert_array_equal(found.vectors, [alone(encoder, text) for text in "aba"])
            found.vectors[:] = 0  # the caller's own
    assert sorted(filter(None, one.texts)) == ["a", "a", "b"]  # "a" stood twice in the first call
    assert len(other.texts) == 3


def test_it_is_bounded_and_forgets_what_was_not_asked_for_the_longest() -> None:
    vectors, encoder = TextVectors(max_texts=3), Counting("one")
    for text in ("a", "b", "c", "a", "d"):
        vectors.encode(encoder, [text])
    assert len(vectors) == 3
    encoder.texts.clear()
    vectors.encode(encoder, ["a", "b", "c", "d"])
    assert encoder.texts == ["b"]
    vectors.encode(encoder, ["x" * (MAX_CHARACTERS + 1)])
    assert len(vectors) == 3
    vectors.encode(encoder, [str(number) for number in range(100)])
    assert len(vectors) == 3
    vectors.clear()
    assert len(vectors) == 0


def test_what_has_no_vector_is_asked_again() -> None:
    vectors, encoder = TextVectors(), FakeEncoder()
    for _ in range(2):
        assert vectors.encode(encoder, ["\ud800"]).reasons[0] is not None
    assert len(vectors) == 0


def test_threads_get_the_right_vectors() -> None:
    vectors, models = TextVectors(max_texts=7), [Counting("one"), Counting("other")]

    def ask(number: int) -> bool:
        encoder, text = models[number % 2], str(number % 11)
        return bool((vectors.encode(encoder, [text]).vectors[0] == alone(encoder, text)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(2000)))
    assert len(vectors) <= 7


def test_queries_use_it() -> None:
    encoder = Counting("of test_queries_use_it")
    query = Query("red car") - 0.5 * Query("red")
    first = query.encode(encoder)
    np.testing.assert_array_equal(query.encode(encoder), first)
    Query("red").encode(encoder)
    assert encoder.texts == ["red car", "red"]
    assert len(remembered) >= 2


def test_a_server_warms_up(photos: Any) -> None:
    warm = lance_align.warm_up(photos)
    assert (warm.model, warm.index, warm.image_s) == ("fake", None, None)
    assert str(warm.settings) == ""
    photos.create_index("vector", config=lancedb.index.IvfFlat(num_partitions=1))
    warm = lance_align.warm_up(photos, images=True)
    assert warm.index == "vector_idx"
    assert warm.image_s is not None
    with pytest.raises(TableError, match="does not say which model"):
        lance_align.warm_up(photos, vector="caption")
    with pytest.raises(TableError, match="synchronous"):
        lance_align.warm_up(object())


@pytest.mark.parametrize("images", [False, True])
def test_warming_up_loads_the_towers_that_were_asked_for(tmp_path: Any, images: bool) -> None:
    from lance_align.benchmarks.weights import build_model

    directory = save_checkpoint(
        build_model(small_config(), seed=0, warm_up=32), tmp_path / "model", preprocessor=SMALL_PREPROCESSOR
    )
    lance_align.allow_models(str(directory))
    table = lancedb.connect(tmp_path).create_table("t", [{"id": "a", "caption": "a red car"}])
    lance_align.attach(table, text="caption", model=str(directory))
    table.add([{"id": "b", "caption": "a blue car"}])
    fresh = lancedb.connect(tmp_path).open_table("t")
    lance_align.warm_up(fresh, images=images)
    encoder: Any = lance_align.load_encoder(directory)
    assert ("image" in encoder.loaded_towers) == images
