"""Composed queries: pictures and words, added and subtracted with weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lance_align.encoders import Encoder, load_encoder
from lance_align.errors import ArgumentError
from lance_align.queries import Query
from tests.fake_tables import png

RED = png("red")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("fake")


def text(encoder: Encoder, words: str) -> Any:
    return encoder.encode_texts([words]).vectors[0]


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def test_parts_are_weighted_summed_and_normalised(encoder: Encoder) -> None:
    picture = encoder.encode_images([RED]).vectors[0]
    expected = unit(2 * picture + text(encoder, "blue") - 0.5 * text(encoder, "red"))
    vector = (2 * Query(RED) + "blue" - 0.5 * Query("red")).encode(encoder)
    assert vector.shape == (32,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_a_query_of_one_part_is_that_part(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    pixels = np.asarray(Image.open(path))
    expected = encoder.encode_images([RED]).vectors[0]
    for value in (RED, bytearray(RED), memoryview(RED), path, pixels, Image.open(path), expected, 3 * expected):
        np.testing.assert_allclose(Query(value).encode(encoder), expected, atol=1e-6)
    np.testing.assert_allclose(Query("red").encode(encoder), text(encoder, "red"), atol=1e-6)


@pytest.mark.parametrize(
    ("query", "weights"),
    [
        (Query("a") + "b", [1, 1]),
        ("a" + Query("b"), [1, 1]),
        (Query("a") - "b", [1, -1]),
        ("a" - Query("b"), [1, -1]),
        (-Query("a") + Query("b", 0.5), [-1, 0.5]),
        (2 * (Query("a") - 0.25 * Query("b")), [2, -0.5]),
        (Query("a") * 2 + Query(Query("b") * 3, 2), [2, 6]),
        (np.float32(2) * Query("a") + "b", [2, 1]),
    ],
)
def test_operators(query: Query, weights: list[float]) -> None:
    assert [(part.value, part.weight) for part in query.parts] == list(zip("ab", weights, strict=True))


@pytest.mark.parametrize("left", [np.zeros((2, 2, 3), np.uint8), RED, Image.new("RGB", (2, 2)), Path("red.png")])
def test_pictures_may_stand_on_the_left(left: Any) -> None:
    for query, weight in ((left + Query("a"), 1.0), (left - Query("a"), -1.0)):
        assert [part.kind for part in query.parts] == ["image", "text"]
        assert query.parts[0].value is left
        assert query.parts[1].weight == weight


def test_a_query_is_not_changed_by_what_is_made_from_it() -> None:
    query = Query("a")
    assert query + "b" is not query
    assert len(query.parts) == 1
    with pytest.raises(AttributeError):
        query.parts = ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Query(3.5), "cannot hold a float"),
        (lambda: Query(None), "cannot hold a NoneType"),
        (lambda: Query(np.zeros(3, np.int64)), "cannot hold a ndarray"),
        (lambda: Query("a") + 1, "cannot hold a int"),
        (lambda: Query("a", float("nan")), "weight is nan"),
        (lambda: Query("a") * "b", "weight is 'b'"),
        (lambda: Query("a", True), "weight is True"),
    ],
)
def test_what_cannot_be_a_query(make: Callable[[], Query], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query("a") - "a", r"cancel each other"),
        (Query("a", 0.0), r"cancel each other"),
        (Query("a") + b"junk", r"part bytes \(image\) cannot be embedded: format"),
        (Query("a") + Path("/no/such.png"), r"such.png.*\(image\) cannot be embedded: missing"),
        (Query(np.zeros(31, np.float32)), r"expected \(32,\)"),
        (Query(np.zeros(32, np.float32)), r"finite and not zero"),
        (Query(np.full(32, np.inf)), r"finite and not zero"),
    ],
)
def test_a_query_that_cannot_be_embedded_says_which_part(encoder: Encoder, query: Query, said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as caught:
        query.encode(encoder)
    assert "\n" not in str(caught.value)


@given(
    parts=st.lists(st.tuples(st.text(), st.floats(-100, 100).filter(lambda w: abs(w) > 1e-3)), min_size=1, max_size=6)
)
@settings(max_examples=50, deadline=None)
def test_any_words_in_any_order_give_a_unit_vector_or_cancel(parts: list[tuple[str, float]]) -> None:
    encoder = load_encoder("fake")
    forward = backward = 0.0 * Query("")
    for words, weight in parts:
        forward = forward + Query(words, weight)
        backward = Query(words, weight) + backward
    try:
        vector = forward.encode(encoder)
    except ArgumentError as error:
        assert "cancel" in str(error)  # noqa: PT017  # either outcome is right
        return
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    np.testing.assert_allclose(vector, backward.encode(encoder), atol=1e-3)


@given(
    first=st.floats(min_value=1e-300, max_value=1.7e308),
    share=st.floats(min_value=1e-3, max_value=1.0),
    factors=st.lists(st.floats(min_value=1e-300, max_value=1.7e308), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_weights_of_any_size_lead_where_their_proportions_say(first: float, share: float, factors: list[float]) -> None:
    encoder = load_encoder("fake")
    second = first * share
    expected = unit(text(encoder, "a").astype(np.float64) + second / first * text(encoder, "b"))
    try:
        query = Query("a", first) + Query("b", second)
        for factor in factors:
            query = query * factor
    except ArgumentError as error:
        assert "multiply to" in str(error)  # noqa: PT017  # beyond what a float holds, and said
        return
    np.testing.assert_allclose(query.encode(encoder), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e200, 1.7e308])
def test_an_embedding_of_any_length_is_a_direction(encoder: Encoder, scale: float) -> None:
    direction = text(encoder, "red").astype(np.float64)
    direction /= np.abs(direction).max()
    np.testing.assert_allclose(Query(direction * scale).encode(encoder), unit(direction), atol=1e-6)


@pytest.mark.parametrize("weight", [10**400, -(10**400), float("inf")])
def test_a_weight_beyond_all_floats_is_refused(weight: float) -> None:
    with pytest.raises(ArgumentError, match="expected a finite number"):
        Query("a", weight)


def test_words_that_name_a_picture_are_told_once_and_searched_as_words(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "red.PNG").write_bytes(RED)
    monkeypatch.chdir(tmp_path)
    named = {
        str(tmp_path / "red.PNG"): r"path of a file.*pathlib\.Path\(",
        "red.PNG": r"path of a file",
        "https://example.org/cats/1.jpg?size=big": "URL of a picture.*nothing is fetched",
        "s3://bucket/1.webp": "URL of a picture",
        "data:image/png;base64,AAAA": "URL of a picture",
    }
    for words, said in named.items():
        with pytest.warns(UserWarning, match=said):
            query = Query(words)
        vector = Query(words).encode(encoder)  # no second warning
        np.testing.assert_allclose(vector, text(encoder, words), atol=1e-6)
        assert query.parts[0].kind == "text"
    for words in (
        "red",
        "blue.png",
        "a/b",
        "https://example.org/cats",
        "a photo of a.png cat",
        "~nobody/x.png",
        "a\0.png",
    ):
        Query(words)  # where there is no such file there is nothing to say
