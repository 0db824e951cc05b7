"""Pictures of tables: whatever the rows hold, a PNG comes out, and it shows them."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
from collections import Counter, defaultdict
from html.parser import HTMLParser
from itertools import pairwise
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
from lance_align.images import DecodeLimits

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
    ("metric", "distance", "shown"),
    [("l2", 0.5, "similarity 0.75"), ("cosine", 0.25, "similarity 0.75"), ("dot", 0.25, "similarity 0.75")],
)
def test_distances_are_shown_as_cosines(metric: explore.Metric, distance: float, shown: str) -> None:
    assert shown in words(explore.gallery([{**ROWS[0], "_distance": distance}], metric=metric))


def test_the_cosine_is_right_for_lancedbs_own_distances(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 0.0], [0.6, 0.8]], pa.list_(pa.float32(), 2))
    table = lancedb.connect(tmp_path).create_table("t", pa.table({"id": ["x", "y"], "vector": vectors}))
    search = table.search([1.0, 0.0]).limit(2)
    assert {"similarity 1.00", "similarity 0.60"} <= set(words(explore.gallery(search)))
    assert {"similarity 1.00", "similarity 0.60"} <= set(
        words(explore.gallery(search.distance_type("cosine"), metric="cosine"))
    )
    assert {"similarity 1.00", "similarity 0.60"} <= set(
        words(explore.gallery(search.distance_type("dot"), metric="dot"))
    )


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
    said = " ".join(words(sheet))
    assert all(part in said for part in ("this picture", "+ “blue”", "− 0.5 × “old”", "+ an embedding"))
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


@pytest.mark.parametrize(
    "caption",
    [
        "0123456789abcdef" * 2,
        "W" * 90,
        "iiii " * 60,
        "a small red car beside a big blue house",
        "مرحبا بالعالم " * 5,
        "猫" * 30,
    ],
    ids=["digest", "wide", "narrow", "words", "arabic", "chinese"],
)
def test_captions_stay_in_their_tiles(caption: str) -> None:
    """Measured as drawn: neither the next tile nor the score below is touched."""
    rows = [{**ROWS[0], "caption": caption, "_distance": 0.5}] * 2
    figure = explore.gallery(rows, columns=2).figure
    figure.draw_without_rendering()
    tiles = sorted((axes.get_window_extent() for axes in figure.axes), key=lambda box: float(box.x0))
    drawn = [(text, text.get_window_extent()) for text in figure.texts]
    for tile in tiles:
        below = [(text, box) for text, box in drawn if abs(box.x0 - tile.x0) < 5]
        assert len(below) >= 2
        assert all(box.x1 <= tile.x1 + 3 for _, box in below)
        for (_, upper), (_, lower) in pairwise(below):
            assert lower.y1 <= upper.y0 + 3
    assert all(box.y0 >= 0 for _, box in drawn)


def test_letters_without_a_font_are_shown_as_their_code_points() -> None:
    said = words(
        explore.gallery([{**ROWS[0], "caption": "\ue000\U000f0000 caf\xe9"}, {**ROWS[0], "caption": "a\u202eb"}])
    )
    assert "U+E000 U+F0000" in said
    assert "café" in said
    assert "aU+202Eb" in said


def test_fonts_of_this_machine_draw_what_the_first_one_lacks() -> None:
    """DejaVu Sans has no small capital Fraktur; its mathematical sibling and STIX, which matplotlib brings, do."""
    figure = explore.gallery([{**ROWS[0], "caption": "\U0001d504 and a"}]).figure
    [text] = [text for text in figure.texts if text.get_text().startswith("\U0001d504")]
    assert len(text.get_fontfamily()) == 2


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"id": "1", "text": "a text", "name": "a name"}, "a text"),
        ({"id": "1", "caption": None, "text": " ", "name": "a name"}, "a name"),
        ({"id": "1", "title": "a title"}, "a title"),
        ({"id": "photo.jpg", "place": "somewhere"}, "photo.jpg"),
        ({"id": "0123456789abcdef" * 2, "content_hash": "f", "error": "e: x", "place": "somewhere"}, "somewhere"),
        ({"id": "0123456789abcdef" * 2, "size": 3}, "0123456789abcdef01"),
    ],
)
def test_captions_are_what_tells_most(row: dict[str, Any], shown: str) -> None:
    assert shown in words(explore.gallery([{**row, "image": ROWS[0]["image"]}]))


def tiff() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), RED).save(out, format="TIFF")
    return out.getvalue()


def test_what_a_job_gave_a_vector_is_opened_whatever_its_format() -> None:
    row = {"id": "x", "image": tiff(), "error": None}
    assert area(explore.gallery([{**row, "vector": [1.0, 0.0]}]), RED) > 10_000
    assert area(explore.gallery([{**row, "_distance": 0.1}]), RED) > 10_000
    for failed in ({**row, "vector": None}, {**row, "error": "format: TIFF", "box": [1.0, 2.0]}):
        assert "TIFF is not" in " ".join(words(explore.gallery([failed])))
    assert area(explore.gallery([row], limits=DecodeLimits(formats=("TIFF",))), RED) > 10_000
    small = DecodeLimits(max_pixels=100)
    assert "too_large" in " ".join(words(explore.gallery(ROWS[:1], limits=small)))


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x00\ud800\u202e'


def test_an_html_sheet_is_one_file_that_loads_and_runs_nothing(tmp_path: Path) -> None:
    rows = [
        {**ROWS[0], "caption": HOSTILE, "_distance": 0.5},
        {**ROWS[3], "caption": "bad"},
        {**ROWS[1], "image": tiff()},
    ]
    sheet = explore.html_sheet(
        {HOSTILE: rows, "a picture": ROWS[1:3], "none": []},
        pictures={"a picture": png(BLUE)}, title=HOSTILE, credit=HOSTILE,
    )  # fmt: skip
    text = sheet.save(tmp_path / "x.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags["section"] == 3
    assert page.tags["img"] == 5  # two of the first query, the second's own and its two
    assert page.tags["script"] == 0
    assert not any(name.startswith("on") or name in ("style", "href") for name in page.attributes)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes["src"])
    assert {"green", "blue", "picture of the query: a picture"} <= set(page.attributes["alt"])
    assert all(page.attributes["alt"])
    assert "<img src=x onerror=alert(1)>U+0000U+D800" in page.words  # as text
    for said in ("similarity 0.75", "format: not an image", "no rows", '“"><script>'):
        assert said in page.words
    policy = page.attributes["content"][0]
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = hashlib.sha256(page.style.encode()).digest()
    assert f"style-src 'sha256-{base64.b64encode(style).decode()}'" in policy
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in page.attributes["src"]]
    assert all(picture.format == "JPEG" and max(picture.size) <= 320 for picture in pictures)


class Page(HTMLParser):
    """What a browser would make of a page: its tags, attributes, words and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: defaultdict[str, list[str]] = defaultdict(list)
        self.words = self.style = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes[name].append(value or "")

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text() == "<style>" and not self.style:
            self.style = data
        self.words += data


def test_an_html_sheet_says_what_is_wrong(tmp_path: Path) -> None:
    sheet = explore.html_sheet({"a": ROWS})
    with pytest.raises(ArgumentError, match=r"x\.png does not end in \.html"):
        sheet.save(tmp_path / "x.png")
    with pytest.raises(ArgumentError, match="cannot be written"):
        sheet.save(tmp_path / "missing" / "x.html")
    with pytest.raises(ArgumentError, match="at least one query"):
        explore.html_sheet({})
    with pytest.raises(ArgumentError, match="pictures only for queries"):
        explore.html_sheet({"a": ROWS}, pictures={"b": png(RED)})


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
