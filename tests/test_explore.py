"""Pictures of tables: whatever the rows hold, a PNG comes out, and it shows them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lance_align import Query, explore
from lance_align.errors import ArgumentError

ROOT = Path(__file__).parent.parent
RED, GREEN, BLUE = (220, 10, 10), (10, 200, 10), (10, 10, 220)


def png(colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format="PNG")
    return out.getvalue()


def pixels(sheet: explore.Sheet) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(sheet._repr_png_())).convert("RGB")).astype(np.int64)


def area(sheet: explore.Sheet, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels(sheet) - colour).max(axis=2) < 8).sum())


def words(sheet: explore.Sheet) -> list[str]:
    """Every text of the figure, in the order it was drawn."""
    texts = [*sheet.figure.texts, *(text for axes in sheet.figure.axes for text in axes.texts)]
    return [text.get_text().replace("\n", " ") for text in texts]


ROWS: list[dict[str, Any]] = [
    {"id": "a", "caption": "red", "image": png(RED), "vector": [1.0, 0.0, 0.0], "error": None},
    {"id": "b", "caption": "green", "image": png(GREEN), "vector": [0.0, 1.0, 0.0], "error": None},
    {"id": "c", "caption": "blue", "image": png(BLUE), "vector": [0.0, 0.0, 1.0], "error": None},
    {"id": "d", "caption": None, "image": b"junk", "vector": None, "error": "format: not an image"},
]


def test_a_gallery_shows_every_picture_once_at_the_same_size() -> None:
    sheet = explore.gallery(ROWS[:3], title="Three", credit="by nobody")
    sizes = [area(sheet, colour) for colour in (RED, GREEN, BLUE)]
    assert max(sizes) <= 1.1 * min(sizes)
    assert min(sizes) > 10_000
    assert {"Three", "by nobody", "red", "green", "blue"} <= set(words(sheet))


def test_pictures_keep_their_shape() -> None:
    wide = explore.gallery([{"id": "w", "image": png(RED, (80, 20))}])
    rows, columns = np.nonzero(np.abs(pixels(wide) - RED).max(axis=2) < 8)
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("kind", ["list", "arrow", "batch", "pandas", "query"])
def test_rows_may_come_in_any_form_that_lancedb_gives(kind: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS[:3])
    forms: dict[str, Any] = {
        "list": ROWS[:3],
        "arrow": table,
        "batch": table.to_batches()[0],
        "pandas": pd.DataFrame(ROWS[:3]),
        "query": lancedb.connect(tmp_path).create_table("t", table).search().limit(3),
    }
    sheet = explore.gallery(forms[kind])
    assert all(area(sheet, colour) > 10_000 for colour in (RED, GREEN, BLUE))
    assert {"red", "green", "blue"} <= set(words(sheet))


def test_paths_and_file_uris_are_opened(tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(png(GREEN))
    for value in (str(file), file.as_uri()):
        assert area(explore.gallery([{"id": "x", "uri": value}]), GREEN) > 10_000


def test_what_cannot_be_opened_becomes_a_tile_with_the_reason() -> None:
    said = " ".join(words(explore.gallery([ROWS[3], {**ROWS[0], "image": None}, {**ROWS[0], "image": 7}])))
    assert "format: not" in said
    assert "no picture" in said
    assert "type: int cannot" in said


@pytest.mark.parametrize(
    ("metric", "distance", "shown"), [("l2", 0.5, "0.75"), ("cosine", 0.25, "0.75"), ("dot", 0.25, "0.75")]
)
def test_distances_are_shown_as_cosines(metric: explore.Metric, distance: float, shown: str) -> None:
    assert shown in words(explore.gallery([{**ROWS[0], "_distance": distance}], metric=metric))


def test_the_cosine_is_right_for_lancedbs_own_distances(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 0.0], [0.6, 0.8]], pa.list_(pa.float32(), 2))
    table = lancedb.connect(tmp_path).create_table("t", pa.table({"id": ["x", "y"], "vector": vectors}))
    search = table.search([1.0, 0.0]).limit(2)
    assert {"1.00", "0.60"} <= set(words(explore.gallery(search)))
    assert {"1.00", "0.60"} <= set(words(explore.gallery(search.distance_type("cosine"), metric="cosine")))
    assert {"1.00", "0.60"} <= set(words(explore.gallery(search.distance_type("dot"), metric="dot")))


def test_relevance_of_a_reranker_is_shown_as_it_is() -> None:
    assert "relevance 0.031" in words(explore.gallery([{**ROWS[0], "_distance": 0.1, "_relevance_score": 0.0312}]))


def test_only_so_many_rows_are_shown() -> None:
    assert len(explore.gallery(ROWS[:1] * 30, columns=4, max_rows=7).figure.axes) == 7


def test_a_contact_sheet_has_a_line_for_each_query() -> None:
    sheet = explore.contact_sheet(
        {"words": ROWS[:2], "a picture": ROWS[1:3], "none": []}, pictures={"a picture": png(RED)}, title="Found"
    )
    assert area(sheet, RED) == pytest.approx(area(sheet, GREEN), rel=0.1)
    assert area(sheet, GREEN) == pytest.approx(2 * area(sheet, BLUE), rel=0.1)
    assert {"Found", "“words”", "a picture", "no rows"} <= set(words(sheet))
    assert "“a picture”" not in words(sheet)


def test_a_composed_query_shows_its_parts_with_signs_and_weights() -> None:
    query = Query(png(RED)) + "blue" - 0.5 * Query("old") + np.zeros(3, np.float32)
    sheet = explore.composed(query, ROWS[1:3])
    assert {"this picture", "+ “blue”", "− 0.5 × “old”", "+ an embedding"} <= set(words(sheet))
    assert all(area(sheet, colour) > 10_000 for colour in (RED, GREEN, BLUE))
    assert "no rows" in words(explore.composed(Query("x"), []))


def test_a_map_puts_near_vectors_near_each_other() -> None:
    rng = np.random.default_rng(0)
    centres = {RED: (5.0, 0, 0, 0), GREEN: (0, 5.0, 0, 0), BLUE: (0, 0, 5.0, 0)}
    rows = [
        {"id": str(k), "image": png(colour), "vector": (np.array(centre) + rng.normal(0, 0.1, 4)).tolist()}
        for colour, centre in centres.items()
        for k in range(5)
    ]
    sheet = explore.embedding_map([*rows, {**rows[0], "vector": None}])
    shown = pixels(sheet)
    middles = []
    for colour in centres:
        found = np.argwhere(np.abs(shown - colour).max(axis=2) < 8)
        assert len(found) > 500
        middles.append(found.mean(axis=0))
        assert found.std(axis=0).max() < 80
    assert min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 200
    assert any("15 rows; 1 without a vector" in text for text in words(sheet))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_map_of_hardly_any_rows_is_still_a_picture(count: int) -> None:
    sheet = explore.embedding_map(ROWS[:count])
    assert len(pixels(sheet)) > 300
    assert ("no rows with a vector" in words(sheet)) == (count == 0)


def test_thumbnails_never_cover_each_other_and_never_exceed_their_number() -> None:
    crowd = [{**ROWS[0], "vector": [k / 100, 0.0, float(k == 5)]} for k in range(100)]
    few = explore.embedding_map(crowd, max_thumbnails=3).figure
    many = explore.embedding_map(crowd).figure
    assert len(few.axes) == 1 + 3  # the dots have one of their own
    boxes = [axes.get_position() for axes in many.axes[1:]]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_failures_are_counted_by_kind_and_listed_with_their_reasons() -> None:
    rows = [{"id": f"{k}.jpg", "error": "empty: zero bytes"} for k in range(4)]
    sheet = explore.failures([*rows, *ROWS], max_rows=3)
    said = words(sheet)
    assert said[0] == "5 of 8 rows have no vector"
    assert said.index("empty") < said.index("format")
    assert said[said.index("empty") + 1] == "4"
    assert {"0.jpg", "2.jpg", "empty: zero bytes", "and 2 more"} <= set(said)
    assert "3.jpg" not in said


def test_no_failures_is_said_too() -> None:
    assert words(explore.failures(pd.DataFrame(ROWS[:3]))) == ["0 of 3 rows have no vector"]
    assert words(explore.failures([])) == ["0 of 0 rows have no vector"]
    assert "no rows" in words(explore.gallery([]))


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=300))
def test_no_text_is_markup_and_none_breaks_a_sheet(text: str) -> None:
    rows = [{"id": text, "image": ROWS[0]["image"], "error": f"format: {text}"}]
    for sheet in (
        explore.gallery(rows, title=text, credit=text),
        explore.contact_sheet({text: rows}),
        explore.composed(Query(text), rows),
        explore.failures(rows),
    ):
        assert sheet._repr_png_().startswith(b"\x89PNG")


def test_formulas_are_shown_as_they_are_written() -> None:
    assert r"$\frac{1}{2$" in words(explore.gallery([{**ROWS[0], "caption": r"$\frac{1}{2$"}]))


def test_a_sheet_saves_as_png(tmp_path: Path) -> None:
    sheet = explore.gallery(ROWS[:1])
    assert sheet.save(tmp_path / "x.png") == tmp_path / "x.png"
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
    with pytest.raises(ArgumentError, match=r"x\.svg does not end in \.png"):
        sheet.save(tmp_path / "x.svg")
    with pytest.raises(ArgumentError, match="cannot be written"):
        sheet.save(tmp_path / "missing" / "x.png")


def test_bad_arguments_are_named() -> None:
    for wrong in (
        lambda: explore.gallery(ROWS, image="photo"),
        lambda: explore.gallery(ROWS, caption="words"),
        lambda: explore.embedding_map(ROWS, vector="v"),
        lambda: explore.failures([{"id": "x"}]),
    ):
        with pytest.raises(ArgumentError, match="the rows have no column"):
            wrong()
    with pytest.raises(ArgumentError, match="columns=0"):
        explore.gallery(ROWS, columns=0)
    with pytest.raises(ArgumentError, match="at least one query"):
        explore.contact_sheet({})
    with pytest.raises(ArgumentError, match="pictures only for queries"):
        explore.contact_sheet({"a": ROWS}, pictures={"b": png(RED)})
    with pytest.raises(ArgumentError, match="3 parts; expected 1 to 2"):
        explore.composed(Query("a") + "b" + "c", ROWS, columns=2)
    with pytest.raises(ArgumentError, match="different lengths"):
        explore.embedding_map([ROWS[0], {**ROWS[1], "vector": [1.0]}])
    with pytest.raises(ArgumentError, match="max_rows=0"):
        explore.failures(ROWS, max_rows=0)
    with pytest.raises(ArgumentError, match="str holds no rows"):
        explore.gallery("rows")


def test_without_matplotlib_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from lance_align import explore, errors\n"
        "try: explore.gallery([])\nexcept errors.MissingExtraError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "matplotlib is not installed; it comes with: pip install 'lance-align[plots]'"
