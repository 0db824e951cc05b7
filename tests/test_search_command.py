"""``lance-align search`` and ``lance-align evaluate`` on a real table, as a user types them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from PIL import Image

import lance_align
from lance_align.cli import run_command
from lance_align.corpora import demo_source


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    source = demo_source("scenes", directory=folder, rows=120, seed=5)
    lance_align.embed(source, db=folder, table="t", model="align-tiny", progress=False)
    table = lancedb.connect(folder).open_table("t")
    (folder / "query.png").write_bytes(table.search().limit(1).to_list()[0]["image"])
    return folder


def searched(db: Path, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    run_command("search", [*words, "--db", str(db), "--table", "t"])
    return capsys.readouterr().out


def hits(db: Path, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    (line,) = searched(db, [*words, "--json"], capsys).splitlines()
    found: list[dict[str, Any]] = json.loads(line)["hits"]
    return found


def test_words_find_what_plain_lancedb_finds(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = lancedb.connect(db).open_table("t")
    expected = [row["id"] for row in table.search("a red car").limit(5).to_list()]
    found = hits(db, ["a red car", "--limit", "5"], capsys)
    assert [row["id"] for row in found] == expected
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5]
    assert {"image", "vector", "content_hash"} & set(found[0]) == set()
    out = searched(db, ["a red car", "--limit", "5"], capsys)
    assert out.splitlines()[0].strip() == "a red car"
    assert f"{found[0]['similarity']:.3f}" in out
    assert found[0]["caption"].split()[0] in out


def test_an_image_and_a_row_find_themselves_or_not(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = hits(db, ["--image", str(db / "query.png"), "--limit", "1"], capsys)[0]
    assert first["similarity"] == pytest.approx(1.0, abs=1e-4)
    assert hits(db, [str(db / "query.png"), "--limit", "1"], capsys)[0]["id"] == first["id"]  # a path is the image
    alike = hits(db, ["--like", first["id"], "--limit", "120"], capsys)
    assert first["id"] not in [row["id"] for row in alike]
    assert len(alike) == 119


def test_parts_are_weighed(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = lancedb.connect(db).open_table("t")
    query = lance_align.Query("a car") + 2.5 * lance_align.Query("blue") - 0.5 * lance_align.Query("red")
    expected = [row["id"] for row in table.search(query).limit(5).to_list()]
    found = hits(db, ["a car", "--plus", "2.5*blue", "--minus", "0.5 * red", "--limit", "5"], capsys)
    assert [row["id"] for row in found] == expected


def test_conditions_and_columns(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hits(db, ["a car", "--where", "background = 'sky'", "--limit", "200"], capsys)
    rows = lancedb.connect(db).open_table("t").count_rows("background = 'sky'")
    assert len(found) == rows
    assert {row["background"] for row in found} <= {"sky"}
    out = searched(db, ["a car", "--columns", "background", "--limit", "2"], capsys)
    assert "background" in out
    assert "caption" not in out
    assert "no rows" in searched(db, ["a car", "--where", "id = 'none'"], capsys)


def test_standard_input_asks_one_query_a_line(
    db: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a red car\n\n  a tree \n"))
    lines = [json.loads(line) for line in searched(db, ["-", "--json", "--limit", "2"], capsys).splitlines()]
    assert [line["query"] for line in lines] == ["a red car", "a tree"]
    assert [len(line["hits"]) for line in lines] == [2, 2]


def test_a_sheet_is_a_picture(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(db, ["a red car", "--sheet", str(tmp_path / "found.png")], capsys)
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > 800
        assert np.asarray(sheet.convert("L")).std() > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to look for"),
        (["gone.png"], "the image 'gone.png' does not exist"),
        (["x", "--image", "gone.png"], "--image gone.png does not exist"),
        (["--like", "nobody"], "no row with this id"),
        (["x", "--limit", "0"], "limit=0"),
        (["x", "--columns", "colour"], "no column 'colour'; it has id"),
        (["x", "--sheet", "found.pdf"], "ends in .png or .html"),
        (["x", "--where", "colour = 1"], "No field named colour"),
        (["x", "--vector", "other"], "no 'other' that can be searched"),
        (["a car", "--minus", "a car"], "cancel each other"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], message: str, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        searched(db, words, capsys)
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert message in err


def test_evaluation_is_what_numpy_says(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = lancedb.connect(db).open_table("t")
    found = lance_align.evaluate(table, text="caption")
    rows = table.search().limit(None).to_list()
    vectors = np.stack([row["vector"] for row in rows])
    captions = list(dict.fromkeys(row["caption"] for row in rows))
    words = lance_align.load_encoder("align-tiny").encode_texts(captions).vectors
    scores = words @ vectors.T
    right = np.array([[row["caption"] == caption for row in rows] for caption in captions])
    own = np.where(right, scores, -np.inf).max(axis=1)
    ranks = 1 + (scores > own[:, None] + 1e-6).sum(axis=1)
    exact, back = found.figures
    assert (exact.queries, exact.items) == (len(captions), 120)
    for k in (1, 5, 10):
        assert exact.recall[k] == pytest.approx((ranks <= k).mean())
    assert exact.median_rank == np.median(ranks)
    assert exact.recall[10] > 3 * exact.chance[10]
    assert back.items == len(captions)
    assert lance_align.evaluate(table, queries=7, where="background = 'sky'").figures[0].queries <= 7
    run_command("evaluate", ["--db", str(db), "--table", "t", "--json", str(tmp_path / "figures.json")])
    assert json.loads((tmp_path / "figures.json").read_text())["figures"][0]["recall"]["1"] == exact.recall[1]
    assert "recall@10" in capsys.readouterr().out


def test_evaluation_through_an_index(db: Path) -> None:
    table = lancedb.connect(db).open_table("t")
    lance_align.build_index(table, index="IVF_FLAT")
    exact, index, _ = lance_align.evaluate(table).figures
    assert index.what.startswith("words -> image, IVF_FLAT")
    assert index.recall[10] == pytest.approx(exact.recall[10], abs=0.05)
    assert index.chance == exact.chance


def test_what_cannot_be_evaluated_is_said(db: Path) -> None:
    table = lancedb.connect(db).open_table("t")
    with pytest.raises(lance_align.LanceAlignError, match="no column 'words'; it has id"):
        lance_align.evaluate(table, text="words")
    with pytest.raises(lance_align.LanceAlignError, match="expected captions"):
        lance_align.evaluate(table, text="objects")
    with pytest.raises(lance_align.LanceAlignError, match="has both a 'caption' and a 'vector'"):
        lance_align.evaluate(table, where="id = 'none'")
    with pytest.raises(lance_align.LanceAlignError, match="queries=0"):
        lance_align.evaluate(table, queries=0)
